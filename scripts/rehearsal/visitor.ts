import { decodeJwt } from 'jose';
import type { App, AppPlace } from './apps.js';
import type { Ledger } from './ledger.js';
import type { Random } from './random.js';

/** Somebody with an app, and what must be true of every answer that they get. */
export interface Visitor {
  readonly app: App;
  /** Comes again and again until `stop`. */
  readonly done: Promise<void>;
  stop(): void;
}

/** A session that somebody has just got, however old it says it is. */
export interface Login {
  readonly cookie: string;
  /** When it ends by itself, in ms since the epoch. */
  readonly endsAt: number;
}

export interface VisitorOptions {
  readonly name: string;
  readonly subject: string;
  readonly url: string;
  readonly version: string;
  readonly create: (place: AppPlace) => App;
  /** Between two requests, on average. */
  readonly thinkMs: number;
  /** Chance of a logout instead of a request. */
  readonly logoutRate: () => number;
  /** Whether the legacy app may log out by itself: not while its Redis evicts, when nobody could tell the two apart. */
  readonly legacyMayLogOut: () => boolean;
  readonly legacy: {
    login(name: string): Promise<Login>;
    logout(cookie: string): Promise<void>;
    /** Whether the record behind a cookie is there. */
    hasRecord(cookie: string): Promise<boolean>;
  };
  /** Resolves once nothing has been wrong for a few seconds: what was ended is then ended everywhere. */
  readonly calm: () => Promise<void>;
  readonly accessSeconds: number;
  readonly random: Random;
  readonly ledger: Ledger;
}

/** An answer takes its time. */
const EDGE_MS = 2000;
/** By the clock that is 20 s off a session ends so much sooner. */
const SESSION_EDGE_MS = 22_000;

export function createVisitor(options: VisitorOptions): Visitor {
  const { name, subject, url, version, create, thinkMs, logoutRate, legacyMayLogOut, legacy, calm, accessSeconds, random, ledger } = options;
  const cookie = { value: '' };
  let isLoggedIn = false;
  let logins = 0;
  let endsAt = 0;
  let failingSince: number | undefined;
  let stopped = false;
  let wake: () => void = () => undefined;
  const probes: Promise<void>[] = [];
  /** The latest tokens that were given out. */
  let tokens: { readonly access: string; readonly refresh: string | undefined } | undefined;

  /** Sees every answer on the wire: a good credential that is refused counts, whether or not the app makes up for it. */
  const watched: typeof fetch = async (input, init) => {
    const request = new Request(input, init);
    const shown = request.headers.get('authorization')?.slice('Bearer '.length);
    const own = request.headers.get('cookie') ?? '';
    const at = performance.now();
    const login = logins;
    const answer = await fetch(request);
    const path = new URL(request.url).pathname;
    ledger.answered(answer.status, path === '/me' && answer.ok ? (shown === undefined ? 'session' : 'jwt') : '');
    if (answer.status >= 500) failingSince ??= at;
    else if (answer.ok) {
      if (failingSince !== undefined) ledger.recovered(failingSince);
      failingSince = undefined;
    }
    // What was asked for with an older login is of no session that there is.
    if (login !== logins) return answer;
    if (path === '/auth/token' && answer.ok) await keepTokens(answer.clone());
    if (path === '/me' && answer.status === 401 && isLoggedIn) await judgeRefusal(shown, own, answer);
    return answer;
  };

  async function keepTokens(answer: Response): Promise<void> {
    const body: unknown = await answer.json();
    const given = new Map<string, unknown>(body !== null && typeof body === 'object' ? Object.entries(body) : []);
    const refresh = given.get('refresh_token');
    tokens = { access: String(given.get('access_token')), refresh: typeof refresh === 'string' ? refresh : undefined };
  }

  async function judgeRefusal(shown: string | undefined, own: string, answer: Response): Promise<void> {
    if (shown !== undefined) {
      const { exp = 0 } = decodeJwt(shown);
      if (exp * 1000 - Date.now() > EDGE_MS) ledger.violated('lockouts', `${name} (${app.kind}): a token that is good for another while was refused`);
      return;
    }
    // "Exchange first" is the stage's word, not a refusal.
    if (/\bexchange=/.test(answer.headers.get('auth-migration') ?? '')) return;
    if (!hasRunOut() && (await legacy.hasRecord(own))) ledger.violated('lockouts', `${name} (${app.kind}): the cookie of a live session was refused`);
  }

  const hasRunOut = () => Date.now() > endsAt - SESSION_EDGE_MS;

  async function logIn(): Promise<void> {
    const login = await legacy.login(name);
    logins += 1;
    cookie.value = login.cookie;
    endsAt = login.endsAt;
    isLoggedIn = true;
    tokens = undefined;
    app.signedIn();
  }

  async function visit(): Promise<void> {
    const heldTokens = app.hasTokens;
    const answer = await app.ask();
    if (answer.ok) {
      const body: unknown = await answer.json();
      const found = body !== null && typeof body === 'object' && 'subject' in body ? body.subject : undefined;
      if (found !== subject) ledger.violated('wrongPrincipals', `${name} (${app.kind}): answered as ${found === '' ? 'nobody' : 'somebody else'}`);
      return;
    }
    if (answer.status !== 401) return;
    // A session that its store has lost takes with it who had nothing else; whoever held tokens goes on.
    if (hasRunOut()) return await logIn();
    if (heldTokens) ledger.violated('lockouts', `${name} (${app.kind}): held tokens, and was left with 401`);
    else if (await legacy.hasRecord(cookie.value)) ledger.violated('lockouts', `${name} (${app.kind}): left with 401 though the session lives`);
    await logIn();
  }

  /** Ends the session on either side, and sees later that nothing of it is good for anything. */
  async function logOut(): Promise<void> {
    const old = { cookie: cookie.value, ...tokens };
    // Where the store has lost the record, the legacy app has nothing left to end.
    const byLegacy = legacyMayLogOut() && random.next() < 0.5 && (await legacy.hasRecord(old.cookie));
    isLoggedIn = false;
    if (byLegacy) await legacy.logout(old.cookie);
    else {
      const form = new URLSearchParams({
        client_id: app.kind === 'oauth' ? 'partner' : 'app',
        ...(old.refresh ? { refresh_token: old.refresh } : {}),
      });
      form.set('subject_token', old.cookie);
      form.set('subject_token_type', 'urn:crossfade:params:oauth:token-type:session');
      const answer = await watched(`${url}/auth/logout`, { method: 'POST', body: form });
      if (answer.status !== 204) {
        // It has not been ended, and goes on.
        isLoggedIn = true;
        return;
      }
    }
    probes.push(probe(old, byLegacy));
    await logIn();
  }

  /** A logout of the legacy app alone is noticed at the latest when the access token has run out. */
  async function probe(
    old: { readonly cookie: string; readonly access?: string; readonly refresh?: string | undefined },
    byLegacy: boolean,
  ): Promise<void> {
    const side = byLegacy ? 'the legacy app' : 'the bridge';
    const reached = async (headers: Record<string, string>) => (await fetch(`${url}/me`, { headers })).ok;
    await calm();
    if (await reached({ cookie: old.cookie })) ledger.violated('staleLogins', `${name}: the cookie is good after a logout at ${side}`);
    if (old.refresh !== undefined) {
      const form = new URLSearchParams({
        grant_type: 'refresh_token',
        client_id: app.kind === 'oauth' ? 'partner' : 'app',
        refresh_token: old.refresh,
      });
      const answer = await fetch(`${url}/auth/token`, { method: 'POST', body: form });
      if (answer.ok) ledger.violated('staleLogins', `${name}: the refresh token is good after a logout at ${side}`);
    }
    if (old.access === undefined) return;
    if (byLegacy) await new Promise((resolve) => setTimeout(resolve, accessSeconds * 1000));
    if (await reached({ authorization: `Bearer ${old.access}` }))
      ledger.violated('staleLogins', `${name}: the access token is good after a logout at ${side}`);
  }

  const app = create({ url, version, cookie, fetch: watched });

  async function live(): Promise<void> {
    await pause(random.next() * thinkMs);
    await logIn();
    while (!stopped) {
      try {
        if (random.next() < logoutRate()) await logOut();
        else await visit();
      } catch (error) {
        // A connection that was cut: an instance or a proxy has ended in the middle of it.
        ledger.answered(599, '');
        if (!(error instanceof TypeError)) throw error;
      }
      if (!stopped) await pause(thinkMs * (0.5 + random.next()));
    }
    await Promise.all(probes);
  }

  async function pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  return {
    app,
    done: live(),
    stop() {
      stopped = true;
      wake();
    },
  };
}
