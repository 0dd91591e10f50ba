import type { Client, ClientOptions, ClientState, StateListener } from './client.js';
import { createGrants, type GrantOutcome, MOST_WAIT_MS, retryAfter } from './grants.js';
import { createRefusal } from './refusal.js';
import { afterAnswer, afterRenewal, type Renewal, type Renewed } from './steps.js';
import { type AccessToken, joinTabs } from './tabs.js';

export type { Client, ClientOptions, ClientState, StateListener } from './client.js';
export type { CookieJar } from './grants.js';

/** A token that has less than this is renewed beside the request that it is used for. */
const SPARE_MS = 15_000;
/** How often a request that can be repeated is tried again after 503. */
const PATIENCE = 2;
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
  const origins = new Set([base.origin, ...(options.origins ?? []).map((one) => new URL(one).origin)]);
  const listeners = new Set<StateListener>();
  const grants = createGrants({ at: base.origin + basePath, clientId, cookies, headers, fetch: send });
  let state: ClientState = 'session';
  let token: AccessToken | undefined;
  /** Which sign-in this is: a request of one before it is not sent again. */
  let turn = 0;
  /** Before this time the bridge is not asked for the same again. */
  const notBefore = { exchange: 0, refresh: 0, goBack: 0 };
  const renewing = new Map<Renewal, Promise<Renewed>>();
  const refusal = createRefusal(`crossfade ${base.origin}${basePath} refused`);
  /** Whether the exchange was tried on this page, for this login. */
  let hasTried = false;

  const tabs = joinTabs(`crossfade ${base.origin}${basePath}`, (message) => {
    if (message === 'ask') {
      if (token && isFresh(token)) tabs.post({ token });
    } else if (message === 'signed-in') start();
    else if (message === 'signed-out') signOut();
    // Another tab may belong to another person: only a newer token of the same session is taken over.
    else if (token && sidOf(token) && sidOf(token) === sidOf(message.token)) hold(message.token);
  });

  function become(next: ClientState): void {
    if (next === state) return;
    state = next;
    for (const listener of [...listeners]) listener({ type: 'state' });
  }

  function hold(next: AccessToken | undefined): void {
    token = next;
    become(next ? 'jwt' : 'session');
  }

  function start(): void {
    turn += 1;
    hasTried = false;
    refusal.forget();
    notBefore.exchange = notBefore.refresh = notBefore.goBack = 0;
    grants.forget();
    hold(undefined);
  }

  function signOut(): void {
    turn += 1;
    token = undefined;
    grants.forget();
    become('signed-out');
  }

  function apply(what: Renewal, outcome: GrantOutcome): Renewed {
    switch (outcome.kind) {
      case 'token':
        hold(outcome.token);
        tabs.post({ token: outcome.token });
        return 'renewed';
      case 'session':
        hold(undefined);
        return 'renewed';
      case 'ended':
        notBefore[what] = Date.now() + 1000;
        grants.setAside();
        hold(undefined);
        return 'ended';
      default:
        notBefore[what] = Date.now() + (outcome.kind === 'later' ? outcome.ms : 0);
        // What has run out is of no use meanwhile; the cookie may be.
        if (token && isOver(token)) hold(undefined);
        return 'later';
    }
  }

  async function renewNow(what: Renewal, refused: string | undefined): Promise<Renewed> {
    if (what === 'refresh' && token) {
      await tabs.ask();
      if (token && isFresh(token) && token.value !== refused) return 'renewed';
    }
    if (Date.now() < notBefore[what]) return 'later';
    const outcome = await grants[what]();
    return outcome.kind === 'return' ? apply('goBack', await grants.goBack()) : apply(what, outcome);
  }

  /** One of a kind at a time, in all tabs. `refused`: the token that was not good enough. Never rejects. */
  function renew(what: Renewal, refused?: string): Promise<Renewed> {
    const underWay = renewing.get(what);
    if (underWay) return underWay;
    const work = tabs.alone(() => renewNow(what, refused)).finally(() => renewing.delete(what));
    renewing.set(what, work);
    return work;
  }

  /** At `dual` nobody asks for it. */
  async function exchangeUnasked(): Promise<void> {
    if (options.exchange !== 'when-open' || hasTried || refusal.isRecent()) return;
    hasTried = true;
    if ((await renew('exchange')) !== 'renewed') refusal.note();
  }

  async function sendOnce(request: Request, bearer: string | undefined): Promise<Response> {
    const copy = request.clone();
    const jar = new URL(request.url).origin === base.origin ? cookies?.get() : undefined;
    for (const [name, value] of Object.entries({ ...headers, ...(jar ? { cookie: jar } : {}) }))
      if (!copy.headers.has(name)) copy.headers.set(name, value);
    if (bearer) copy.headers.set('authorization', `Bearer ${bearer}`);
    return await send(copy, { signal: request.signal });
  }

  /** Waits where the bridge, or whoever stands before it, asks for that. */
  async function sendPatiently(request: Request, bearer: string | undefined): Promise<Response> {
    const mine = turn;
    for (let tries = 0; ; tries++) {
      const response = await sendOnce(request, bearer);
      const waitMs = response.status === 503 && response.headers.has('retry-after') ? retryAfter(response) : Number.POSITIVE_INFINITY;
      if (waitMs > MOST_WAIT_MS || tries === PATIENCE || !REPEATABLE.test(request.method)) return response;
      await unlessGivenUp(request, new Promise((resolve) => setTimeout(resolve, waitMs)));
      if (mine !== turn) return response;
      discard(response);
    }
  }

  /** What an answer asks for. */
  function demandOf(response: Response, bearer: string | undefined): Renewal | undefined {
    const migration = response.headers.get('auth-migration') ?? '';
    if (/\bexchange=/.test(migration) && !bearer) return 'exchange';
    if (/\breturn=/.test(migration) && bearer) return 'goBack';
    // Only the bridge's own refusals: a 401 of the app, of a wrong password for one, or of whoever a redirect led to, means something else.
    const challenge = bearer ? 'Bearer error="invalid_token"' : 'Bearer';
    const isOwn = response.status === 401 && response.headers.get('www-authenticate') === challenge;
    return isOwn && origins.has(new URL(response.url || base).origin) ? 'refresh' : undefined;
  }

  async function sendSigned(request: Request): Promise<Response> {
    const mine = turn;
    const tried = new Map<Renewal, Renewed>();
    let hasWaited = false;

    async function attempt(what: Renewal, refused?: string): Promise<Renewed> {
      const known = tried.get(what);
      if (known) return known;
      const outcome = await unlessGivenUp(request, renew(what, refused));
      tried.set(what, outcome);
      return outcome;
    }

    /** Whether it is sent again. */
    async function renewFor(demand: Renewal, bearer: string | undefined): Promise<boolean> {
      let outcome = await attempt(demand, bearer);
      // A token that was refused is not shown again.
      if (bearer && token?.value === bearer) hold(undefined);
      for (let mayWait = !hasWaited; ; mayWait = false) {
        const waitMs = notBefore[demand] - Date.now();
        const renewing = {
          demand,
          outcome,
          hadToken: bearer !== undefined,
          mayWait: mayWait && waitMs <= MOST_WAIT_MS,
          mayGoBack: !tried.has('goBack'),
        };
        switch (afterRenewal(renewing)) {
          case 'send':
            return true;
          case 'wait':
            hasWaited = true;
            tried.delete(demand);
            await unlessGivenUp(request, new Promise((resolve) => setTimeout(resolve, waitMs)));
            return true;
          case 'go-back':
            outcome = await attempt('goBack');
            break;
          case 'sign-out':
            if (mine === turn) signOut();
            return false;
          default:
            return false;
        }
      }
    }

    for (let sends = 1; ; sends++) {
      if (token && isOver(token)) await attempt('refresh', token.value);
      else if (token && !isFresh(token)) void renew('refresh', token.value);
      const bearer = token?.value;
      const response = await sendPatiently(request, bearer);
      if (!bearer && response.ok && mine === turn) {
        // Only who has a session is told to exchange it: any other answer may be one for everybody, such as a style sheet.
        if (response.headers.has('auth-migration')) grants.accepted();
        else void exchangeUnasked();
      }
      const demand = demandOf(response, bearer);
      const step = afterAnswer({
        demand,
        isRefused: response.status === 401,
        hadToken: bearer !== undefined,
        isLast: mine !== turn || sends === MOST_SENDS,
        isSignedOut: state === 'signed-out',
        hasRefreshed: tried.get('refresh') === 'renewed',
      });
      if (demand && step === 'renew-beside') void renew(demand, bearer);
      if (!demand || step !== 'renew' || !(await renewFor(demand, bearer)) || mine !== turn) return response;
      discard(response);
    }
  }

  return {
    async fetch(input, init) {
      const { url, headers: own, credentials } = input instanceof Request ? input : new Request(input);
      // Somebody else's place, or a credential of the caller's own: nothing of ours.
      if (!origins.has(new URL(url).origin) || new Headers(init?.headers ?? own).has('authorization')) return await send(input, init);
      const isOmitted = (init?.credentials ?? credentials) === 'omit';
      return await sendSigned(new Request(input, { ...init, credentials: isOmitted ? 'omit' : 'include' }));
    },
    get state() {
      return state;
    },
    addEventListener: (_, listener) => void listeners.add(listener),
    removeEventListener: (_, listener) => void listeners.delete(listener),
    async exchange() {
      if (token && !isOver(token)) return true;
      notBefore.exchange = 0;
      refusal.forget();
      return (await renew('exchange')) === 'renewed';
    },
    async logout() {
      if (!(await grants.logout(token && !isOver(token) ? token.value : undefined))) await grants.logout(undefined);
      signOut();
      tabs.post('signed-out');
    },
    signedIn() {
      start();
      tabs.post('signed-in');
    },
    close: () => tabs.close(),
  };
}

declare const location: { readonly href: string } | undefined;

const isOver = ({ expiresAt }: AccessToken) => expiresAt <= Date.now();
const isFresh = ({ expiresAt }: AccessToken) => expiresAt - SPARE_MS > Date.now();

/** Which session a token is of; undefined where it does not say. */
function sidOf({ value }: AccessToken): unknown {
  try {
    const payload = /\.(.+)\./.exec(value)?.[1] ?? '';
    return JSON.parse(atob(payload.replaceAll('-', '+').replaceAll('_', '/'))).sid;
  } catch {
    return undefined;
  }
}

/** Frees the connection of an answer that nobody will read. */
function discard(response: Response): void {
  void response.body?.cancel().catch(() => undefined);
}

/** Rejects where the request is given up meanwhile. */
async function unlessGivenUp<T>({ signal }: Request, work: Promise<T>): Promise<T> {
  // Not every platform gives a request a signal, or a signal a reason.
  if (!signal) return await work;
  const reason = (): unknown => signal.reason ?? Object.assign(new Error('the request was given up'), { name: 'AbortError' });
  if (signal.aborted) throw reason();
  let giveUp: () => void = () => undefined;
  try {
    return await Promise.race([
      work,
      new Promise<never>((_, reject) => {
        giveUp = () => reject(reason());
        signal.addEventListener('abort', giveUp);
      }),
    ]);
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}
