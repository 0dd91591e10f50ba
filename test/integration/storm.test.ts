import Keygrip from 'keygrip';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Service, startService } from '../support/serve.js';
import { SESSION_TYPE, TOKEN_EXCHANGE } from '../support/tokens.js';
import { remember } from '../support/transcript.js';
import { createWorld, type World } from '../support/world.js';

const CLIENTS = 10_000;
const AT_ONCE = 32;
const SECONDS = 4;
const RATE = 50;

let world: World;
let cookies: readonly string[];
beforeAll(async () => {
  world = await createWorld({ stage: 'session-only' });
  cookies = await writeSessions(CLIENTS);
}, 60_000);
afterAll(async () => {
  await world.legacy.redis.del(...cookies.map(idOf));
  await world.close();
});

const idOf = (cookie: string) => /koa\.sess=([^;]+)/.exec(cookie)?.[1] ?? '';

/** Sessions as the legacy app would have written them, without as many logins. */
async function writeSessions(count: number): Promise<string[]> {
  const keygrip = new Keygrip([...world.secrets]);
  const pipeline = world.legacy.redis.pipeline();
  const made = Array.from({ length: count }, (_, n) => {
    const id = crypto.randomUUID();
    const record = { user: { id: `u-storm-${n}`, tenant: 'acme', loggedInAt: Date.now() }, _expire: Date.now() + 3_600_000, _maxAge: 3_600_000 };
    pipeline.set(id, JSON.stringify(record), 'PX', 3_600_000);
    return `koa.sess=${id}; koa.sess.sig=${keygrip.sign(`koa.sess=${id}`)}`;
  });
  await pipeline.exec();
  remember(...made.slice(0, 20).map(idOf));
  return made;
}

interface Storm {
  readonly requests: number;
  readonly nudged: number;
  readonly exchanges: number;
  /** The most exchanges of one second. */
  readonly peak: number;
  /** From the first request to the last answer, in s. */
  readonly took: number;
}

/** All of them are live: each asks again and again, and exchanges as soon as it is told to. */
async function runStorm({ url }: Service): Promise<Storm> {
  const perSecond = new Map<number, number>();
  const waiting = [...cookies];
  let [requests, nudged, exchanges] = [0, 0, 0];
  const start = performance.now();
  const end = start + SECONDS * 1000;

  async function worker(): Promise<void> {
    for (let cookie = waiting.shift(); cookie !== undefined && performance.now() < end; cookie = waiting.shift()) {
      const response = await fetch(`${url}/auth/verify`, { headers: { cookie, 'x-client-id': 'android' } });
      requests += 1;
      if (!response.headers.has('auth-migration')) {
        waiting.push(cookie);
        continue;
      }
      nudged += 1;
      const form = { client_id: 'android', grant_type: TOKEN_EXCHANGE, subject_token: cookie, subject_token_type: SESSION_TYPE };
      const answer = await fetch(`${url}/auth/token`, { method: 'POST', body: new URLSearchParams(form) });
      await answer.arrayBuffer();
      expect(answer.status).toBe(200);
      exchanges += 1;
      const second = Math.floor((performance.now() - start) / 1000);
      perSecond.set(second, (perSecond.get(second) ?? 0) + 1);
    }
  }

  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return { requests, nudged, exchanges, peak: Math.max(...perSecond.values()), took: (performance.now() - start) / 1000 };
}

async function flip(nudgesPerSecond: number): Promise<Storm> {
  const service = await startService(world, (config) => ({ ...config, rollout: { ...config.rollout, nudgesPerSecond } }));
  try {
    const from = service.cli.lines.length;
    // 0 to 100 % in one flip.
    await world.setFlags({ 'auth-migration-stage': 'jwt-preferred' });
    await service.cli.logged('flags.changed', from);
    const storm = await runStorm(service);
    await world.setFlags({ 'auth-migration-stage': 'session-only' });
    return storm;
  } finally {
    await service.stop();
  }
}

it('Law 1: a flip of 10,000 live clients from 0 to 100 % does not stampede the token endpoint: nudges keep their rate', async () => {
  const without = await flip(100_000);
  const kept = await flip(RATE);
  for (const [name, { requests, exchanges, peak, took }] of Object.entries({ 'with 50 nudges a second': kept, without })) {
    process.stdout.write(
      `storm: ${CLIENTS} clients, ${name}: peak ${peak} exchanges a second, ${exchanges} of ${requests} requests, in ${took.toFixed(1)} s\n`,
    );
  }
  // As many as its seconds allow, and what may go out at once at the start.
  expect(kept.nudged).toBeLessThanOrEqual(RATE * kept.took + RATE / 10 + 1);
  expect(kept.nudged).toBeGreaterThan(0);
  expect(without.peak).toBeGreaterThan(kept.peak);
}, 60_000);
