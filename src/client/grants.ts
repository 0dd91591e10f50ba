import { type AccessToken, abortAfter } from './tabs.js';

/** What came of a POST to the bridge. */
export type GrantOutcome =
  | { readonly kind: 'token'; readonly token: AccessToken }
  /** The session's cookie is there again. */
  | { readonly kind: 'session' }
  /** The client is called back to its session. */
  | { readonly kind: 'return' }
  /** What was presented is no longer good. */
  | { readonly kind: 'ended' }
  /** Not now: what is held stays good. */
  | { readonly kind: 'later'; readonly ms: number };

/** For clients without a cookie jar of their own: Node, native shells. */
export interface CookieJar {
  /** The session's cookies as in a `Cookie` header; empty: there are none. */
  get(): string;
  /** Takes `Set-Cookie` lines: of a session that has come back. */
  set(lines: readonly string[]): void;
}

export interface GrantsOptions {
  /** Where the bridge's endpoints are: `https://app.example.com/auth`. */
  readonly at: string;
  readonly clientId: string | undefined;
  readonly cookies: CookieJar | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly fetch: typeof fetch;
}

export interface Grants {
  exchange(): Promise<GrantOutcome>;
  refresh(): Promise<GrantOutcome>;
  /** The return: from tokens to the session. */
  goBack(): Promise<GrantOutcome>;
  /** False: the bearer itself was refused. Rejects where it cannot be said to have ended. */
  logout(bearer: string | undefined): Promise<boolean>;
  /** The refresh token is of no use for now: whatever is on its way counts no more. */
  setAside(): void;
  /** The session's cookie was accepted: a refresh token that was set aside is forgotten. */
  accepted(): void;
  /** Forgets the refresh token, where it is held here and not in a cookie, and whatever is on its way. */
  forget(): void;
}

/** Longer than this nobody is kept waiting. */
export const MOST_WAIT_MS = 10_000;
/** How long a refusal is taken for an answer: nothing that is refused is asked again and again. */
const REFUSED_MS = 60_000;

/** Asks the bridge's endpoints, and says in one word what came of it. */
export function createGrants({ at, clientId, cookies, headers, fetch: send }: GrantsOptions): Grants {
  let refreshToken: string | undefined;
  /** Kept only until the session's cookie was accepted: a Redis that has lost its data may get it back. */
  let isAside = false;
  /** Which sign-in this is: what comes back for one before it is nobody's. */
  let turn = 0;

  interface Answer {
    readonly status: number;
    readonly headers: Headers;
    readonly said: ReadonlyMap<string, unknown>;
  }

  /** Undefined: there was no answer, or none that could be read. */
  async function post(path: string, form: Record<string, string | undefined>, bearer?: string): Promise<Answer | undefined> {
    const body = new URLSearchParams();
    for (const [name, value] of Object.entries({ ...form, client_id: clientId })) if (value) body.set(name, value);
    const authorization = bearer ? { authorization: `Bearer ${bearer}` } : {};
    const { signal, clear } = abortAfter(MOST_WAIT_MS);
    const init = { method: 'POST', body, credentials: 'include', headers: { ...headers, ...authorization }, signal } as const;
    // Only what others do is caught: a mistake of ours must not look like a bridge that cannot say.
    const {
      status,
      headers: given,
      text,
    } = await send(`${at}/${path}`, init)
      .then(async (answer) => ({ status: answer.status, headers: answer.headers, text: await answer.text() }))
      .catch(() => ({ status: 0, headers: undefined, text: '' }))
      .finally(clear);
    return given && { status, headers: given, said: read(text) };
  }

  async function ask(path: string, form: () => Record<string, string | undefined>, canEnd = true): Promise<GrantOutcome> {
    const asked = Date.now();
    const mine = turn;
    const answer = await post(path, form());
    if (mine !== turn) return { kind: 'later', ms: 0 };
    if (!answer) return { kind: 'later', ms: retryAfter() };
    const { status, said } = answer;
    if (status === 204) return took(answer);
    const isGood = status >= 200 && status < 300;
    if (isGood) {
      refreshToken = textOf(said.get('refresh_token')) ?? refreshToken;
      isAside = false;
      const value = textOf(said.get('access_token'));
      if (value) return { kind: 'token', token: { value, expiresAt: asked + Number(said.get('expires_in')) * 1000 } };
    }
    if (isGood || status >= 500 || status === 429) return { kind: 'later', ms: retryAfter(answer) };
    if (said.has('return_uri')) return { kind: 'return' };
    // A refresh token that is bad, or that is not there; any other refusal says nothing of it.
    const isEnded = /^invalid_(grant|request)$/.test(String(said.get('error')));
    return isEnded && canEnd ? { kind: 'ended' } : { kind: 'later', ms: REFUSED_MS };
  }

  function took(answer: Answer): GrantOutcome {
    cookies?.set(linesOf(answer.headers));
    isAside = true;
    return { kind: 'session' };
  }

  const session = () => {
    const value = cookies?.get();
    return value ? { subject_token: value, subject_token_type: 'urn:crossfade:params:oauth:token-type:session' } : {};
  };

  return {
    exchange: () => ask('token', () => ({ grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange', ...session() }), false),
    refresh: () => ask('token', () => ({ grant_type: 'refresh_token', refresh_token: refreshToken })),
    goBack: () => ask('session', () => ({ refresh_token: refreshToken })),
    async logout(bearer) {
      const answer = await post('logout', { ...session(), refresh_token: refreshToken }, bearer);
      if (answer?.status === 401 && bearer) return false;
      if (answer?.status !== 204) throw new Error(`the logout was answered ${answer?.status ?? 'by nobody'}`);
      return true;
    },
    setAside() {
      turn += 1;
      isAside = true;
    },
    accepted() {
      if (isAside) refreshToken = undefined;
    },
    forget() {
      turn += 1;
      refreshToken = undefined;
      isAside = false;
    },
  };
}

/** The members of a JSON object. Empty for any other text, such as a proxy's HTML page. */
function read(text: string): ReadonlyMap<string, unknown> {
  try {
    return new Map<string, unknown>(Object.entries(JSON.parse(text || '{}') ?? {}));
  } catch {
    return new Map();
  }
}

/** The lines of `Set-Cookie`. Where headers have no `getSetCookie` there is one line, or several with commas between them. */
function linesOf(headers: Headers): readonly string[] {
  if (typeof headers.getSetCookie === 'function') return headers.getSetCookie();
  return (headers.get('set-cookie') ?? '').split(/,\s*(?=[^;,\s]+=)/).filter((line) => line !== '');
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** In ms: what the answer says (RFC 9110, section 10.2.3), else a second. */
export function retryAfter(answer?: { readonly headers: Headers }): number {
  const seconds = Number(answer?.headers.get('retry-after') ?? 1);
  return (seconds >= 0 ? seconds : 1) * 1000;
}
