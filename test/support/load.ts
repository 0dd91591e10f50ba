import { z } from 'zod';
import { rememberRefresh, SESSION_TYPE, TOKEN_EXCHANGE } from './tokens.js';
import { rememberToken } from './transcript.js';

/** What the clients were answered. All of them hold credentials that are good. */
export interface LoadCounts {
  requests: number;
  /** Good answers by what was asked for. */
  readonly good: Record<'session' | 'bearer' | 'exchange' | 'refresh', number>;
  /** 503 with a reason: "keep what you hold, try again". */
  readonly unavailable: Record<string, number>;
  /** 401 to somebody whose credential is good. */
  unauthorized: number;
  /** A 5xx that is no such 503, or any other answer that none should get. */
  readonly wrong: string[];
  /** Connections that a process that was ending cut; the client went to the next instance. */
  cut: number;
}

export interface Load {
  /** Counts from now on; gives what was counted since the last call. */
  take(): LoadCounts;
  /** What the clients do from now on. */
  show(what: readonly Shown[]): void;
  /** Resolves once this many more requests were answered. */
  served(requests: number): Promise<void>;
  stop(): Promise<void>;
}

interface Client {
  readonly cookie: string;
  tokens: Tokens;
}

const answerSchema = z.object({ access_token: z.string(), refresh_token: z.string() });
type Tokens = z.output<typeof answerSchema>;

type Shown = 'session' | 'bearer' | 'refresh' | 'exchange';
/** Between two requests of a client: what is started and stopped meanwhile needs the machine as well. */
const PAUSE_MS = 20;
const DO: readonly Shown[] = ['session', 'bearer', 'bearer', 'session', 'refresh', 'bearer', 'exchange'];

/**
 * Clients that never stop: they show their session or their bearer at a path that needs somebody (by default forward-auth itself), refresh
 * and exchange, at one instance after the other, as a load balancer would send them. What they hold is good, so no answer may be 401.
 */
export async function startLoad(urls: readonly string[], cookies: readonly string[], guarded = '/auth/verify'): Promise<Load> {
  let counts = fresh();
  let doing = DO;
  let answered = 0;
  let turn = 0;
  let stopped = false;
  const waiting = new Set<() => void>();

  async function post(url: string, form: Record<string, string>): Promise<Response> {
    return await fetch(`${url}/auth/token`, { method: 'POST', body: new URLSearchParams({ client_id: 'android', ...form }) });
  }

  async function ask(what: Shown, client: Client, url: string): Promise<Response> {
    switch (what) {
      case 'session':
        return await fetch(`${url}${guarded}`, { headers: { cookie: client.cookie, 'x-client-id': 'android' } });
      case 'bearer':
        return await fetch(`${url}${guarded}`, { headers: { authorization: `Bearer ${client.tokens.access_token}` } });
      case 'refresh':
        return await post(url, { grant_type: 'refresh_token', refresh_token: client.tokens.refresh_token });
      case 'exchange':
        return await post(url, { grant_type: TOKEN_EXCHANGE, subject_token: client.cookie, subject_token_type: SESSION_TYPE });
    }
  }

  async function step(what: Shown, client: Client): Promise<void> {
    turn += 1;
    const url = urls[turn % urls.length] ?? '';
    let response: Response;
    try {
      response = await ask(what, client, url);
    } catch {
      counts.cut += 1;
      await new Promise((resolve) => setImmediate(resolve));
      return;
    }
    counts.requests += 1;
    if (response.status === 200) {
      counts.good[what] += 1;
      if (what === 'refresh' || what === 'exchange') client.tokens = answerSchema.parse(await response.json());
    } else {
      const text = await response.text();
      if (response.status === 401) counts.unauthorized += 1;
      const reason = response.status === 503 && response.headers.has('retry-after') ? /"reason":"(\w+)"/.exec(text)?.[1] : undefined;
      if (reason !== undefined) counts.unavailable[reason] = (counts.unavailable[reason] ?? 0) + 1;
      else if (!isRefusedByStage(what, response.status, text)) counts.wrong.push(`${what}: ${response.status} ${text.slice(0, 120)}`);
    }
    if (!response.bodyUsed) await response.arrayBuffer();
    answered += 1;
    for (const look of waiting) look();
  }

  async function live(cookie: string): Promise<void> {
    const first = await post(urls[0] ?? '', { grant_type: TOKEN_EXCHANGE, subject_token: cookie, subject_token_type: SESSION_TYPE });
    const client: Client = { cookie, tokens: answerSchema.parse(await first.json()) };
    // Of so many the first stand for all.
    rememberToken(client.tokens.access_token);
    rememberRefresh(client.tokens.refresh_token);
    begun += 1;
    for (const look of waiting) look();
    for (let at = turn; !stopped; at++) {
      await step(doing[at % doing.length] ?? 'session', client);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  let begun = 0;
  const lives = cookies.map(live);
  await Promise.race([until(() => begun === cookies.length), Promise.all(lives)]);

  async function until(fits: () => boolean): Promise<void> {
    await new Promise<void>((resolve) => {
      const look = () => {
        if (!fits()) return;
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
    });
  }

  return {
    take() {
      const taken = counts;
      counts = fresh();
      return taken;
    },
    show(what) {
      doing = what;
    },
    async served(requests) {
      const goal = answered + requests;
      await until(() => answered >= goal);
    },
    async stop() {
      stopped = true;
      await Promise.all(lives);
    },
  };
}

function fresh(): LoadCounts {
  return { requests: 0, good: { session: 0, bearer: 0, exchange: 0, refresh: 0 }, unavailable: {}, unauthorized: 0, wrong: [], cut: 0 };
}

/** The exchange is closed below `dual`: the client stays with its session, and nobody is locked out. */
function isRefusedByStage(what: string, status: number, text: string): boolean {
  return what === 'exchange' && status === 400 && text.includes('unauthorized_client') && text.includes('"stage"');
}
