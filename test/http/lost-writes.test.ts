import { randomBytes } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { createRandom } from '../../scripts/rehearsal/random.js';
import { expectError } from '../support/expect-error.js';
import type { Instance } from '../support/instance.js';
import { exchangeNative, postAsBrowser, postRefresh, readTokens, refreshCookie, refreshNative, type Tokens } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, sharedRedisUrl, type World } from '../support/world.js';

const open = useWorlds();
const ORDERS = 1000;
/** How often a token is used after it was copied, at most. */
const TURNS = 12;

let world: World;
beforeAll(async () => {
  world = await createWorld({ configure: (config) => ({ ...config, limits: { ...config.limits, exchangePerSessionPerMinute: 1_000_000 } }) });
});
afterAll(async () => await world.close());

async function metric(at: Instance, line: RegExp): Promise<number> {
  return Number(line.exec(await at.metrics())?.[1] ?? 0);
}
const lostWrites = async (at: Instance) => await metric(at, /^crossfade_lost_writes_total\{redis="changed"\} (\d+)/m);

/** What Redis holds of a session, to be put back as a failover or a restore does. */
async function copyOf(at: World, sid: string): Promise<() => Promise<void>> {
  const { redis } = at.legacy;
  const keys = await redis.keys(`${at.prefix}{${sid}}:*`);
  const copies = await Promise.all(keys.map(async (key) => ({ key, ttl: await redis.pttl(key), dump: await redis.dumpBuffer(key) })));
  return async () => {
    const now = await redis.keys(`${at.prefix}{${sid}}:*`);
    if (now.length > 0) await redis.del(...now);
    for (const { key, ttl, dump } of copies) await redis.restore(key, Math.max(ttl, 0), dump);
  };
}

/** Refreshes in a row: the tokens in their order, and how to put Redis back to what it was after each of them. */
async function rotate(at: World, times: number): Promise<{ tokens: Tokens[]; putBack: (() => Promise<void>)[] }> {
  const tokens = [await exchangeNative(at, await at.login('alice'))];
  const { sid } = tokens[0] ?? { sid: '' };
  const putBack = [await copyOf(at, sid)];
  for (let n = 0; n < times; n++) {
    tokens.push(await refreshNative(at, tokens.at(-1)?.refresh ?? ''));
    putBack.push(await copyOf(at, sid));
  }
  return { tokens, putBack };
}

function at<T>(list: readonly T[], index: number): T {
  const found = list[index];
  if (found === undefined) throw new Error(`nothing at ${index}`);
  return found;
}

/** Waits until the grace of an adoption is over, by Redis' clock. */
async function skipGrace(of: World, { sid, family }: Tokens): Promise<void> {
  const key = `${of.prefix}{${sid}}:family:${family}`;
  const adopted = await of.legacy.redis.hget(key, 'adopted');
  if (adopted !== null) await of.legacy.redis.hset(key, 'adopted', adopted.replace(/^\d+/, '1'));
  const older: [string, string, number][] = JSON.parse((await of.legacy.redis.hget(key, 'older')) ?? '[]');
  await of.legacy.redis.hset(key, 'older', JSON.stringify(older.map(([hash, sealed, until]) => [hash, sealed, until === 0 ? 0 : 1])));
}

describe('a refresh token that is newer than what Redis knows', () => {
  it.each([1, 2, 3])('goes on, is counted, and is no reuse, after %i lost rotations [W1]', async (lost) => {
    const { tokens, putBack } = await rotate(world, lost);
    const before = await lostWrites(world);
    await at(putBack, 0)();
    const next = await refreshNative(world, at(tokens, lost).refresh);
    expect(next.family).toBe(at(tokens, 0).family);
    expect(await lostWrites(world)).toBe(before + 1);
    expect(world.log.audits('family.caught-up').at(-1)).toMatchObject({ family: next.family, lost });
    for (const { access } of [...tokens, next]) expect((await world.call('/me', { bearer: access })).status).toBe(200);
    expect((await refreshNative(world, next.refresh)).family).toBe(next.family);
    expect(world.log.audits('family.revoked').filter(({ family }) => family === next.family)).toEqual([]);
  });

  it('goes on in a browser too, whose cookie is kept', async () => {
    const cookie = await world.login('bob');
    const first = refreshCookie(await world.exchange(cookie)) ?? '';
    const sid = first.split('.')[1] ?? '';
    const putBack = await copyOf(world, sid);
    const second = refreshCookie(await postAsBrowser(world, '/auth/token', first, { grant_type: 'refresh_token' })) ?? '';
    await putBack();
    const answer = await postAsBrowser(world, '/auth/token', second, { grant_type: 'refresh_token' });
    expect(answer.status).toBe(200);
    expect(refreshCookie(answer)).not.toContain('Expires=Thu, 01 Jan 1970');
  });

  it('of two cookies the newer one counts', async () => {
    const cookie = await world.login('bob');
    const first = refreshCookie(await world.exchange(cookie)) ?? '';
    const putBack = await copyOf(world, first.split('.')[1] ?? '');
    const second = refreshCookie(await postAsBrowser(world, '/auth/token', first, { grant_type: 'refresh_token' })) ?? '';
    await putBack();
    const before = await lostWrites(world);
    expect((await postAsBrowser(world, '/auth/token', `${first}; ${second}`, { grant_type: 'refresh_token' })).status).toBe(200);
    expect(await lostWrites(world)).toBe(before + 1);
  });

  it('is active at introspection, and its family is revoked by it', async () => {
    const { tokens, putBack } = await rotate(world, 1);
    await at(putBack, 0)();
    const { access, refresh } = at(tokens, 1);
    expect((await world.post('/auth/revoke', { token: refresh, client_id: 'android' })).status).toBe(200);
    await expectError(await world.call('/me', { bearer: access }), 401, 'invalid_token');
  });
});

describe('what is no lost write', () => {
  it('an older part after the grace is reuse, before and after an adoption [W2]', async () => {
    const { tokens, putBack } = await rotate(world, 3);
    await at(putBack, 1)();
    await refreshNative(world, at(tokens, 3).refresh);
    await skipGrace(world, at(tokens, 0));
    await expectError(await postRefresh(world, at(tokens, 1).refresh), 400, 'invalid_grant');
    await expectError(await world.call('/me', { bearer: at(tokens, 3).access }), 401, 'invalid_token');
  });

  it('a counter that its client has raised ends the family [W3]', async () => {
    const { tokens } = await rotate(world, 1);
    const { refresh, access } = at(tokens, 1);
    const words = refresh.split('.');
    const part = Buffer.from(words[4] ?? '', 'base64url');
    part.writeUInt32BE(part.readUInt32BE() + 1);
    await expectError(await postRefresh(world, [...words.slice(0, 4), part.toString('base64url')].join('.')), 400, 'invalid_grant');
    await expectError(await world.call('/me', { bearer: access }), 401, 'invalid_token');
    expect(world.log.audits('family.revoked').at(-1)).toMatchObject({ reason: 'reused', family: at(tokens, 1).family });
  });

  it('an earlier release has rotated since: a dead part with the stored counter is reuse [W7]', async () => {
    const { tokens } = await rotate(world, 4);
    const { sid, family, refresh, access } = at(tokens, 4);
    const key = `${world.prefix}{${sid}}:family:${family}`;
    // The release before knows no counter: it replaces `current` by the hash of a random part.
    await world.legacy.redis.hset(key, 'current', randomBytes(32).toString('base64url'), 'older', '[]');
    await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
    await expectError(await world.call('/me', { bearer: access }), 401, 'invalid_token');
  });
});

describe('an earlier release has rotated after Redis was put back', () => {
  it('a part ahead of the stored counter is of a dead branch: reuse [W7]', async () => {
    const { tokens, putBack } = await rotate(world, 4);
    await at(putBack, 3)();
    const { sid, family, refresh, access } = at(tokens, 4);
    const key = `${world.prefix}{${sid}}:family:${family}`;
    await world.legacy.redis.hset(key, 'current', randomBytes(32).toString('base64url'), 'older', '[]');
    await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
    await expectError(await world.call('/me', { bearer: access }), 401, 'invalid_token');
    expect(await world.legacy.redis.hget(key, 'ended')).toBe('reused');
  });
});

describe('a family that somebody has tampered with in Redis', () => {
  it.each([
    ['a counter as large as can be', ['counter', '4294967295.x', 'current', 'x'.repeat(43)]],
    ['neither a part nor a counter', undefined],
  ])('%s: 400, and never 500', async (_, fields) => {
    const { tokens } = await rotate(world, 1);
    const { sid, family, refresh } = at(tokens, 1);
    const key = `${world.prefix}{${sid}}:family:${family}`;
    if (fields) await world.legacy.redis.hset(key, ...fields);
    else await world.legacy.redis.hdel(key, 'current', 'counter', 'older');
    await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
  });
});

describe('several tokens of one family about', () => {
  it('two tabs on either side of a split brain get the same successor, and either cookie is kept [W5]', async () => {
    const { tokens, putBack } = await rotate(world, 1);
    const sideA = await refreshNative(world, at(tokens, 1).refresh);
    await at(putBack, 1)();
    const sideB = await refreshNative(world, at(tokens, 1).refresh);
    expect(sideB.refresh).toBe(sideA.refresh);
    const aheadOnA = await refreshNative(world, sideA.refresh);
    await at(putBack, 1)();
    await refreshNative(world, at(tokens, 1).refresh);
    expect((await postRefresh(world, aheadOnA.refresh)).status).toBe(200);
    expect((await postRefresh(world, sideB.refresh)).status).toBe(200);
  });

  it('earlier ones that are under way during an adoption get the successors that they had, and nothing ends [W6]', async () => {
    const { tokens, putBack } = await rotate(world, 3);
    await at(putBack, 1)();
    const adopted = await refreshNative(world, at(tokens, 3).refresh);
    expect((await refreshNative(world, at(tokens, 1).refresh)).refresh).toBe(at(tokens, 2).refresh);
    expect((await refreshNative(world, at(tokens, 2).refresh)).refresh).toBe(at(tokens, 3).refresh);
    expect((await refreshNative(world, at(tokens, 3).refresh)).refresh).toBe(adopted.refresh);
    expect((await postRefresh(world, adopted.refresh)).status).toBe(200);
  });

  it('one that was good before the adoption stays so within its grace: used on the state that Redis went back to, or good there', async () => {
    const used = await rotate(world, 2);
    await at(used.putBack, 0)();
    const first = await refreshNative(world, at(used.tokens, 0).refresh);
    await refreshNative(world, at(used.tokens, 2).refresh);
    expect((await refreshNative(world, at(used.tokens, 0).refresh)).refresh).toBe(first.refresh);

    const there = await rotate(world, 2);
    await at(there.putBack, 1)();
    const adopted = await refreshNative(world, at(there.tokens, 2).refresh);
    expect((await refreshNative(world, at(there.tokens, 0).refresh)).refresh).toBe(at(there.tokens, 1).refresh);
    await skipGrace(world, adopted);
    await expectError(await postRefresh(world, at(there.tokens, 0).refresh), 400, 'invalid_grant');
  });

  it('three tabs at once after two lost rotations, old and new parts in any order, on two instances: nothing ends', async () => {
    const other = await world.another();
    const random = createRandom(7);
    for (let round = 0; round < 20; round++) {
      const { tokens, putBack } = await rotate(world, 2);
      await at(putBack, 0)();
      const order = [0, 0, 1, 1, 2, 2].map((n) => ({ n, key: random.next() })).sort((one, another) => one.key - another.key);
      const answers = await Promise.all(order.map(async ({ n }, turn) => await postRefresh(turn % 2 === 0 ? world : other, at(tokens, n).refresh)));
      expect(
        answers.map(({ status }) => status),
        order.map(({ n }) => `R${n + 1}`).join(' '),
      ).toEqual(order.map(() => 200));
    }
  });

  it('50 at once after a loss get one successor', async () => {
    const { tokens, putBack } = await rotate(world, 2);
    await at(putBack, 0)();
    const answers = await Promise.all(Array.from({ length: 50 }, async () => (await refreshNative(world, at(tokens, 2).refresh)).refresh));
    expect(new Set(answers).size).toBe(1);
  });

  it('a thief and the client use the family in turn after a restore: it ends [W8]', async () => {
    const { tokens, putBack } = await rotate(world, 2);
    await at(putBack, 0)();
    const thief = await refreshNative(world, at(tokens, 0).refresh);
    const client = await refreshNative(world, at(tokens, 2).refresh);
    await skipGrace(world, client);
    await expectError(await postRefresh(world, at(tokens, 0).refresh), 400, 'invalid_grant');
    for (const { access } of [thief, client]) await expectError(await world.call('/me', { bearer: access }), 401, 'invalid_token');
  });
});

describe('a thief who has copied a refresh token', () => {
  it('is detected in each of 1,000 random orders, before and after Redis was put back, unless both refresh exactly in step', async () => {
    const open1000 = await open({
      configure: (config) => ({
        ...config,
        // Thousands of requests at once on a busy machine are no outage of Redis.
        redis: { ...config.redis, commandTimeoutMs: 10_000 },
        tokens: { ...config.tokens, reuseGraceSeconds: 0 },
        limits: { ...config.limits, exchangePerSessionPerMinute: 1_000_000 },
      }),
    });
    const random = createRandom(15);
    const numbers = Array.from({ length: ORDERS }, () => random.fork());
    const outcomes = { detected: 0, inStep: 0, later: 0, missed: 0 };
    const cookies = await Promise.all(Array.from({ length: 20 }, async (_, n) => await open1000.login(`person-${n}`)));

    async function play({ next }: { next(): number }, cookie: string): Promise<void> {
      let client = (await exchangeNative(open1000, cookie)).refresh;
      const past = [await copyOfFamily(open1000, client)];
      for (let n = Math.floor(next() * 3); n > 0; n--) {
        client = (await refreshNative(open1000, client)).refresh;
        past.push(await copyOfFamily(open1000, client));
      }
      const held = { client, thief: client };
      async function isRefused(who: 'client' | 'thief'): Promise<boolean> {
        const answer = await postRefresh(open1000, held[who]);
        if (answer.status === 400) return true;
        held[who] = (await readTokens(answer)).refresh;
        return false;
      }
      // In half of the orders Redis is put back once, to a state that it had.
      const putBackAt = Math.floor(next() * TURNS * 2);
      for (let turn = 0; turn < TURNS + 2; turn++) {
        if (turn === putBackAt) await past[Math.floor(next() * past.length)]?.();
        // In the end each of them uses what it holds.
        const who = turn === TURNS ? 'client' : turn > TURNS ? 'thief' : next() < 0.5 ? 'client' : 'thief';
        if (await isRefused(who)) {
          outcomes.detected += 1;
          return;
        }
      }
      // Two tabs of one browser look like that: neither was ever two uses ahead.
      if (Math.abs(counterOf(held.client) - counterOf(held.thief)) <= 1) {
        outcomes.inStep += 1;
        return;
      }
      // Redis was put back at the very end: both go on.
      outcomes.later += 1;
      for (const who of ['client', 'thief', 'client', 'thief'] as const) if (await isRefused(who)) return;
      outcomes.missed += 1;
    }

    const work = numbers.map((one, n) => ({ one, cookie: at(cookies, n % cookies.length) }));
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (let task = work.pop(); task; task = work.pop()) await play(task.one, task.cookie);
      }),
    );
    process.stdout.write(`thief: ${JSON.stringify(outcomes)}\n`);
    expect(outcomes.missed).toBe(0);
    expect(outcomes.detected + outcomes.inStep + outcomes.later).toBe(ORDERS);
  }, 120_000);
});

function counterOf(refresh: string): number {
  return Buffer.from(refresh.split('.')[4] ?? '', 'base64url').readUInt32BE();
}

async function copyOfFamily(of: World, refresh: string): Promise<() => Promise<void>> {
  const [, sid = '', family = ''] = refresh.split('.');
  const key = `${of.prefix}{${sid}}:family:${family}`;
  const dump = await of.legacy.redis.dumpBuffer(key);
  return async () => void (await of.legacy.redis.restore(key, 3_600_000, dump, 'REPLACE'));
}

describe('a reuse whose news was lost', () => {
  it('is published with the next try, on whichever instance', async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    onTestFinished(async () => await own.close());
    const first = await open({ redisUrl: own.url });
    const second = await first.another({ configure: (config) => ({ ...config, redis: { ...config.redis, url: sharedRedisUrl() } }) });
    const start = await exchangeNative(second, await first.login('alice'));
    const next = await refreshNative(second, start.refresh);
    const last = await refreshNative(second, next.refresh);
    await skipGrace(first, start);
    own.swallowAnswerTo((command) => command.includes('reused'));
    await expectError(await postRefresh(first, start.refresh), 503, 'temporarily_unavailable');
    const key = `${first.prefix}{${start.sid}}:family:${start.family}`;
    expect(await first.legacy.redis.hget(key, 'ended')).toBe('reused');
    expect((await second.call('/me', { bearer: last.access })).status).toBe(200);
    await expectError(await postRefresh(second, start.refresh), 400, 'invalid_grant');
    await expectError(await second.call('/me', { bearer: last.access }), 401, 'invalid_token');
    await own.restore();
    await expect.poll(async () => (await first.call('/me', { bearer: last.access })).status).toBe(401);
    expect(await first.legacy.redis.hget(key, 'untold')).toBeNull();
  });
});

describe('what this instance knows and Redis has forgotten', () => {
  it('a family that has ended: 400, and it has ended in Redis again [W9]', async () => {
    const { tokens, putBack } = await rotate(world, 1);
    const { sid, family, refresh, access } = at(tokens, 1);
    expect((await world.post('/auth/revoke', { token: refresh, client_id: 'android' })).status).toBe(200);
    await at(putBack, 1)();
    const key = `${world.prefix}{${sid}}:family:${family}`;
    expect(await world.legacy.redis.hexists(key, 'ended')).toBe(0);
    await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
    expect(await world.legacy.redis.hget(key, 'ended')).toBe('revoked');
    await expectError(await world.call('/me', { bearer: access }), 401, 'invalid_token');
  });

  it('a family that has ended, in a Redis that takes no writes: 400 from memory [W9, F9]', async () => {
    const own = await startRedis();
    onTestFinished(async () => await own.stop());
    const full = await open({ redisUrl: own.url });
    const admin = new Redis(own.url);
    onTestFinished(() => admin.disconnect());
    const { sid, family, refresh } = await exchangeNative(full, await full.login('alice'));
    const key = `${full.prefix}{${sid}}:family:${family}`;
    const before = await admin.dumpBuffer(key);
    expect((await full.post('/auth/revoke', { token: refresh, client_id: 'android' })).status).toBe(200);
    await admin.restore(key, 3_600_000, before, 'REPLACE');
    await admin.config('SET', 'maxmemory', '1');
    await expectError(await postRefresh(full, refresh), 400, 'invalid_grant');
    await admin.config('SET', 'maxmemory', '0');
    await expect.poll(async () => (await full.bridge.readiness()).canIssue).toBe(true);
    await expectError(await postRefresh(full, refresh), 400, 'invalid_grant');
    expect(await admin.hget(key, 'ended')).toBe('revoked');
  });

  it('the end of a person, whose family shows it: the person has ended in Redis again [W9]', async () => {
    const { redis } = world.legacy;
    const { tokens, putBack } = await rotate(world, 1);
    const { refresh } = at(tokens, 1);
    const copies = new Map<string, Buffer>();
    for (const key of await redis.keys(`${world.prefix}subject:*`)) copies.set(key, await redis.dumpBuffer(key));
    await world.bridge.endSubject('u-alice', { why: 'a test' });
    let key = '';
    for (const [one, before] of copies) {
      if ((await redis.hexists(one, 'not-before')) === 0) continue;
      key = one;
      await redis.restore(one, 3_600_000, before, 'REPLACE');
    }
    await at(putBack, 1)();
    expect(await redis.hexists(key, 'not-before')).toBe(0);
    await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
    expect(await redis.hget(key, 'not-before')).toContain('"subject":"u-alice"');
    await world.legacy.redis.del(key, `${world.prefix}persons-ended`);
  });

  it('a logout: 400 and never adopted, and the tombstone stands again [W9]', async () => {
    const { tokens, putBack } = await rotate(world, 2);
    const { sid, family, refresh, access } = at(tokens, 2);
    expect((await world.post('/auth/logout', {}, { bearer: access })).status).toBe(204);
    await at(putBack, 0)();
    const before = await lostWrites(world);
    await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
    expect(await lostWrites(world)).toBe(before);
    expect(await world.legacy.redis.hget(`${world.prefix}{${sid}}:family:${family}`, 'ended')).toBe('logout');
    expect(await world.legacy.redis.get(`${world.prefix}{${sid}}:ended`)).toContain('"reason":"logout"');
  });
});

describe('a family that Redis has lost altogether', () => {
  it('is 400, counted, and no fault of the bridge: no cohort is held', async () => {
    const lonely = await open({ configure: (config) => ({ ...config, limits: { ...config.limits, exchangePerSessionPerMinute: 1_000_000 } }) });
    const all: Tokens[] = [];
    for (let n = 0; n < 30; n++) all.push(await exchangeNative(lonely, await lonely.login(`person-${n}`)));
    const keys = await lonely.legacy.redis.keys(`${lonely.prefix}{*}:*`);
    await lonely.legacy.redis.del(...keys);
    for (const { refresh } of all) await expectError(await postRefresh(lonely, refresh), 400, 'invalid_grant');
    expect(await metric(lonely, /^crossfade_families_lost_total (\d+)/m)).toBe(30);
    expect(lonely.log.audits('guardrail.tripped')).toEqual([]);
    expect((await exchangeNative(lonely, await lonely.login('alice'))).access).not.toBe('');
  });

  it('names one family, whatever time its token is given: a stranger fills nothing', async () => {
    const lonely = await open();
    const { sid, refresh } = await exchangeNative(lonely, await lonely.login('alice'));
    await lonely.legacy.redis.del(...(await lonely.legacy.redis.keys(`${lonely.prefix}{${sid}}:*`)));
    const words = refresh.split('.');
    const before = await lonely.legacy.redis.xlen(`${lonely.prefix}events`);
    for (let n = 0; n < 20; n++) {
      const family = `${Number((words[2] ?? '').slice(0, 13)) - n}${(words[2] ?? '').slice(13)}`;
      const token = [words[0], words[1], family, ...words.slice(3)].join('.');
      expect((await lonely.post('/auth/revoke', { token, client_id: 'ios' })).status).toBe(200);
      expect((await lonely.post('/auth/logout', { refresh_token: token, client_id: 'ios' })).status).toBe(204);
    }
    expect((await lonely.legacy.redis.xlen(`${lonely.prefix}events`)) - before).toBeLessThanOrEqual(2);
  });

  it('logs out no other person who has its id by now [G5]', async () => {
    const reused = await open();
    const { refresh } = await exchangeNative(reused, await reused.login('alice'));
    const key = reused.legacy.keys.at(-1) ?? '';
    const bobs = await reused.login('bob');
    const record = (await reused.legacy.redis.get(reused.legacy.keys.at(-1) ?? '')) ?? '';
    await reused.legacy.redis.del(...(await reused.legacy.redis.keys(`${reused.prefix}{*}:*`)));
    await reused.legacy.redis.set(key, record, 'PX', 60_000);
    expect((await reused.post('/auth/logout', { refresh_token: refresh, client_id: 'android' })).status).toBe(204);
    expect(await reused.legacy.redis.exists(key)).toBe(1);
    expect((await reused.call('/me', { cookie: bobs })).status).toBe(200);
  });

  it('is not counted where the token was made up', async () => {
    const { tokens } = await rotate(world, 0);
    const before = await metric(world, /^crossfade_families_lost_total (\d+)/m);
    const words = at(tokens, 0).refresh.split('.');
    const made = [...words.slice(0, 2), `${Date.now()}${'a'.repeat(16)}`, ...words.slice(3)].join('.');
    await expectError(await postRefresh(world, made), 400, 'invalid_grant');
    expect(await metric(world, /^crossfade_families_lost_total (\d+)/m)).toBe(before);
  });
});
