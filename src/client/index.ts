import { type AccessToken, type CookieJar, createGrants, type GrantOutcome, retryAfter } from './grants.js';
import { joinTabs } from './tabs.js';

export type { CookieJar } from './grants.js';

/**
 * How this client is signed in: by the session's cookie, which is where it starts; by an access token; or not at all, as
 * far as the bridge has said.
 */
export type ClientState = 'session' | 'jwt' | 'signed-out';

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
  addEventListener(type: 'state', listener: (event: Event) => void): void;
  removeEventListener(type: 'state', listener: (event: Event) => void): void;
  /** Ends session and tokens, in all tabs. Rejects where the bridge could not be told: then nothing has changed. */
  logout(): Promise<void>;
  /** To be called after a login without a new page: the session is there again. */
  signedIn(): void;
  /** Stops listening to other tabs. */
  close(): void;
}

type Renewal = 'exchange' | 'refresh' | 'goBack';

/** A token that has less than this is renewed before it is used. */
const SPARE_MS = 15_000;
/** How often a request that can be repeated is tried again after 503. */
const PATIENCE = 2;
/** A refusal for longer than this is passed on instead of being waited for. */
const MOST_WAIT_MS = 10_000;
/** By cookie, by token, and once more with what came of each. */
const MOST_SENDS = 4;
const REPEATABLE = /^(GET|HEAD|OPTIONS|PUT|DELETE)$/;

/**
 * A `fetch` that starts on the session's cookie, exchanges it when it is nudged, keeps the access token in memory, refreshes it once
 * for all tabs, and steps back to the cookie when it is refused or told to. Each request leads to at most one renewal of a kind.
 */
export function createClient(options: ClientOptions): Client {
  const { baseUrl, basePath = '/auth', cookies, clientId, headers = {}, fetch: send = (input, init) => fetch(input, init) } = options;
  const base = new URL(baseUrl, typeof location === 'undefined' ? undefined : location.href);
  const origins = new Set([base.origin, ...(options.origins ?? [])]);
  const events = new EventTarget();
  const grants = createGrants({ at: base.origin + basePath, clientId, cookies, headers, fetch: send });
  let state: ClientState = 'session';
  let token: AccessToken | undefined;
  /** Before this time the bridge is not asked for the same again. */
  const notBefore: Record<Renewal, number> = { exchange: 0, refresh: 0, goBack: 0 };
  let renewing: Promise<boolean> | undefined;

  const tabs = joinTabs(`crossfade ${base.origin}${basePath}`, (message) => {
    if (message === 'ask') {
      if (token) tabs.tell({ token });
    } else if (typeof message === 'object') hold(message.token);
    else if (message === 'signed-in') start();
    else signOut();
  });

  function become(next: ClientState): void {
    if (next === state) return;
    state = next;
    events.dispatchEvent(new Event('state'));
  }

  function hold(next: AccessToken | undefined): void {
    token = next;
    become(next ? 'jwt' : 'session');
  }

  function start(): void {
    for (const what of ['exchange', 'refresh', 'goBack'] as const) notBefore[what] = 0;
    grants.forget();
    hold(undefined);
  }

  function signOut(): void {
    token = undefined;
    grants.forget();
    become('signed-out');
  }

  const isFresh = () => token !== undefined && token.expiresAt - Date.now() > SPARE_MS;

  /** Whether the bridge could say what is. */
  function apply(what: Renewal, outcome: GrantOutcome): boolean {
    switch (outcome.kind) {
      case 'token':
        hold(outcome.token);
        tabs.tell({ token: outcome.token });
        return true;
      case 'session':
        hold(undefined);
        return true;
      case 'later':
        notBefore[what] = Date.now() + outcome.ms;
        // What has run out is of no use meanwhile; the cookie may be.
        if (token && token.expiresAt <= Date.now()) hold(undefined);
        return false;
      default:
        notBefore[what] = Date.now() + retryAfter();
        if (what === 'exchange') return true;
        grants.forget();
        hold(undefined);
        return true;
    }
  }

  async function renewNow(what: Renewal, refused: string | undefined): Promise<boolean> {
    if (what !== 'goBack') {
      await tabs.ask();
      if (isFresh() && token?.value !== refused) return true;
    }
    if (Date.now() < notBefore[what]) return false;
    const outcome = await grants[what]();
    return outcome.kind === 'return' ? apply('goBack', await grants.goBack()) : apply(what, outcome);
  }

  /** One at a time, in all tabs. `refused`: the token that was not good enough. */
  function renew(what: Renewal, refused?: string): Promise<boolean> {
    renewing ??= tabs
      .alone(() => renewNow(what, refused))
      .finally(() => {
        renewing = undefined;
      });
    return renewing;
  }

  async function sendOnce(request: Request, bearer: string | undefined): Promise<Response> {
    const each = new Headers({ ...headers, ...(cookies?.get() ? { cookie: cookies.get() } : {}) });
    for (const [name, value] of request.headers) each.set(name, value);
    if (bearer) each.set('authorization', `Bearer ${bearer}`);
    return await send(new Request(request.clone(), { headers: each, credentials: 'include' }));
  }

  /** Waits where the bridge, or whoever stands before it, asks for that. */
  async function sendPatiently(request: Request, bearer: string | undefined): Promise<Response> {
    for (let tries = 0; ; tries++) {
      const response = await sendOnce(request, bearer);
      if (response.status !== 503 || tries === PATIENCE || !response.headers.has('retry-after') || !REPEATABLE.test(request.method)) return response;
      await sleep(retryAfter(response), request.signal);
    }
  }

  /** What an answer asks for. Undefined: nothing, or nothing that this request has not led to before. */
  function demandOf(response: Response, bearer: string | undefined): Renewal | undefined {
    const migration = response.headers.get('auth-migration') ?? '';
    const challenge = response.headers.get('www-authenticate') ?? '';
    if (/\bexchange=/.test(migration) && !bearer) return 'exchange';
    if (/\breturn=/.test(migration) && bearer) return 'goBack';
    // Only the bridge's own refusals: a 401 of the app, of a wrong password for one, means something else.
    if (response.status !== 401 || !/^bearer/i.test(challenge)) return undefined;
    return bearer === undefined || /invalid_token/.test(challenge) ? 'refresh' : undefined;
  }

  async function sendSigned(request: Request): Promise<Response> {
    const tried = new Set<Renewal>();
    let hasWaited = false;
    let isKnown = true;
    for (let sends = 1; ; sends++) {
      if (token && !isFresh() && !tried.has('refresh')) {
        tried.add('refresh');
        isKnown = await renew('refresh', token.value);
      }
      const bearer = token?.value;
      const response = await sendPatiently(request, bearer);
      const demand = demandOf(response, bearer);
      if (demand === undefined || (demand === 'refresh' && state === 'signed-out') || sends === MOST_SENDS) return response;
      if (response.status !== 401) {
        void renew(demand, bearer);
        return response;
      }
      if (!tried.has(demand)) {
        tried.add(demand);
        isKnown = await renew(demand, bearer);
      }
      // A token that was refused is not shown again.
      if (bearer !== undefined && token?.value === bearer) hold(undefined);
      if (token?.value !== bearer) continue;
      const waitMs = notBefore[demand] - Date.now();
      if (!isKnown && !hasWaited && waitMs <= MOST_WAIT_MS) {
        hasWaited = true;
        tried.delete(demand);
        await sleep(waitMs, request.signal);
        continue;
      }
      // Tokens cannot be had, and there is no cookie that would do: the way back makes one, where it is open.
      if (demand === 'refresh' && !isKnown && !tried.has('goBack')) {
        tried.add('goBack');
        isKnown = await renew('goBack', bearer);
        if (isKnown) continue;
      }
      if (demand === 'refresh' && isKnown) signOut();
      return response;
    }
  }

  // Another tab may hold a token already.
  void tabs.ask();

  return {
    async fetch(input, init) {
      const request = new Request(input, init);
      return await (origins.has(new URL(request.url).origin) ? sendSigned(request) : send(request));
    },
    get state() {
      return state;
    },
    addEventListener: (type, listener) => events.addEventListener(type, listener),
    removeEventListener: (type, listener) => events.removeEventListener(type, listener),
    async logout() {
      await grants.logout(token && token.expiresAt > Date.now() ? token.value : undefined);
      signOut();
      tabs.tell('signed-out');
    },
    signedIn() {
      start();
      tabs.tell('signed-in');
    },
    close: () => tabs.close(),
  };
}

declare const location: { readonly href: string } | undefined;

/** Rejects where the request is given up meanwhile. */
async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
