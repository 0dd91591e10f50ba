import type { CookieJar } from './grants.js';

/**
 * How this client is signed in: by the session's cookie, which is where it starts; by an access token; or not at all, as
 * far as the bridge has said.
 */
export type ClientState = 'session' | 'jwt' | 'signed-out';

/** Called with each change of the state. */
export type StateListener = (event: { readonly type: 'state' }) => void;

export interface ClientOptions {
  /** Where the bridge is: `https://app.example.com`. In a browser relative to the page. */
  readonly baseUrl: string;
  /** `http.basePath` of the bridge. Default: `/auth`. */
  readonly basePath?: string;
  /** Other origins whose services take these tokens. A token is never sent anywhere else. Default: none beside that of `baseUrl`. */
  readonly origins?: readonly string[];
  /** `id` of the client in the configuration. Default: the bridge knows it by its `Origin`, or by `match`. */
  readonly clientId?: string;
  /** Where there is no cookie jar, as in Node. Default: that of the browser. */
  readonly cookies?: CookieJar;
  /**
   * When the session is exchanged. `when-told`: where the bridge asks for it (`jwt-preferred`, `jwt-only`). `when-open`: once for each page and
   * login at `dual` as well, by itself; a refusal is remembered for ten minutes. Default: `when-told`.
   */
  readonly exchange?: 'when-told' | 'when-open';
  /** Sent with every request to these origins, such as a `User-Agent` in Node. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Default: the global one. */
  readonly fetch?: typeof fetch;
}

export interface Client {
  /** As the global one. Rejects with what that rejects with. */
  readonly fetch: typeof fetch;
  readonly state: ClientState;
  /** `state`: the state has changed. */
  addEventListener(type: 'state', listener: StateListener): void;
  removeEventListener(type: 'state', listener: StateListener): void;
  /** Exchanges the session now, whatever was refused before. True: the client goes on by token. Never rejects. */
  exchange(): Promise<boolean>;
  /** Ends session and tokens, in all tabs. Rejects where the bridge could not be told: then nothing has changed. */
  logout(): Promise<void>;
  /** To be called after a login, on its first page or without a new one: another session is there, in all tabs. */
  signedIn(): void;
  /** Stops listening to other tabs. */
  close(): void;
}
