import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startTcpProxy, type TcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { createProgress, type Progress, readLastSessions, readPeople, readProgress } from '../../src/rollout/progress.js';
import { sharedRedisUrl } from '../support/world.js';

const NOON = Date.parse('2026-11-22T12:00:00Z');
const MINUTE = 60_000;
const CLUSTER_TAG = '{counts}';

let prefix: string;
let proxy: TcpProxy;
let client: Redis;
let redis: Redis;
let nowMs: number;
let progress: Progress;

beforeEach(async () => {
  prefix = `crossfade-test-${randomUUID()}:v1:`;
  proxy = await startTcpProxy(sharedRedisUrl());
  client = new Redis(proxy.url, { enableOfflineQueue: false, maxRetriesPerRequest: 0, commandTimeout: 250, retryStrategy: () => 25 });
  client.on('error', () => undefined);
  redis = new Redis(sharedRedisUrl());
  await new Promise((resolve) => client.once('ready', resolve));
  nowMs = NOON;
  progress = createProgress({ client, prefix, clock: { now: () => nowMs } });
});
afterEach(async () => {
  const keys = await redis.keys(`${prefix}*`);
  // Of one slot, as one transaction on a Cluster needs it.
  expect(keys.filter((key) => !key.includes(CLUSTER_TAG))).toEqual([]);
  if (keys.length > 0) await redis.del(...keys);
  client.disconnect();
  redis.disconnect();
  await proxy.close();
});

const timesOf = async (span: 'minute' | 'hour' | 'day', size: number) =>
  (await readProgress(redis, prefix, span, size, nowMs)).map(({ counts }) => counts.reduce((sum, { times }) => sum + times, 0));

describe('progress', () => {
  it('is counted by minute, hour and day, of all instances together, and kept for a while', async () => {
    const other = createProgress({ client, prefix, clock: { now: () => nowMs } });
    progress.count('requests', 'session', 'web', 3);
    other.count('requests', 'session', 'web', 4);
    other.count('exchange', 'granted', 'a cohort with spaces');
    await Promise.all([progress.flush(), other.flush()]);
    expect((await readProgress(redis, prefix, 'minute', 1, nowMs))[0]?.counts).toEqual(
      expect.arrayContaining([
        { what: 'requests', outcome: 'session', cohort: 'web', times: 7 },
        { what: 'exchange', outcome: 'granted', cohort: 'a cohort with spaces', times: 1 },
      ]),
    );
    for (const span of ['hour', 'day'] as const) expect(await timesOf(span, 1)).toEqual([8]);
    for (const key of await redis.keys(`${prefix}*`)) expect(await redis.pttl(key)).toBeGreaterThan(3_600_000);
  });

  it('what came while Redis was away is written when it is back, as of when it came', async () => {
    progress.count('refused', '503:redis', 'unknown', 5);
    await proxy.cut();
    await expect.poll(() => client.status).not.toBe('ready');
    await progress.flush();
    nowMs += 3 * MINUTE;
    progress.count('refused', '503:redis', 'unknown', 2);
    await progress.flush();
    await proxy.restore();
    await expect.poll(() => client.status).toBe('ready');
    await progress.flush();
    expect(await timesOf('minute', 4)).toEqual([5, 0, 0, 2]);
  });

  it('nothing is counted twice where Redis did it and nobody heard', async () => {
    progress.count('requests', 'jwt', 'web', 100);
    proxy.swallowAnswerTo((command) => command.includes('exec'));
    await progress.flush();
    await proxy.restore();
    await expect.poll(() => client.status).toBe('ready');
    for (let at = 0; at < 3; at++) await progress.flush();
    expect(await timesOf('minute', 1)).toEqual([100]);
  });

  it('people are counted once, whatever they came with', async () => {
    progress.came('web', 'session', ['a', 'b', 'c']);
    progress.came('web', 'jwt', ['b', 'c', 'd']);
    progress.came('pilot', 'jwt', ['a']);
    await progress.flush();
    expect(await readPeople(redis, prefix, ['web'], nowMs)).toEqual({ session: 3, jwt: 3, all: 4 });
    expect(await readPeople(redis, prefix, ['web', 'pilot'], nowMs)).toEqual({ session: 3, jwt: 4, all: 4 });
    expect(await readPeople(redis, prefix, [], nowMs)).toEqual({ session: 0, jwt: 0, all: 0 });
  });

  it('names versions made of digits and dots, so many of them a day, and nothing else that a request says', async () => {
    for (let at = 0; at < 80; at++) progress.sawSession('web', `1.${at}`, nowMs);
    for (const version of ['<script>', '1.2 web', 'x'.repeat(64), undefined]) progress.sawSession('web', version, nowMs);
    await progress.flush();
    const versions = (await readLastSessions(redis, prefix, nowMs)).map(({ version }) => version);
    expect(versions).toHaveLength(52);
    expect(versions).toEqual(expect.arrayContaining(['1.0', '1.49', 'other', '-']));
    nowMs += 24 * 60 * MINUTE;
    await progress.flush();
    progress.sawSession('web', '9.9', nowMs);
    await progress.flush();
    expect(await readLastSessions(redis, prefix, nowMs)).toContainEqual({ client: 'web', version: '9.9', at: nowMs });
  });

  it('what somebody else has put there counts as nothing', async () => {
    progress.count('requests', 'jwt', 'web', 1);
    progress.came('web', 'jwt', ['a']);
    await progress.flush();
    for (const key of await redis.keys(`${prefix}*`)) {
      const ttl = await redis.pttl(key);
      await redis.del(key);
      await redis.set(key, 'foreign', 'PX', ttl);
    }
    expect(await timesOf('minute', 1)).toEqual([0]);
    expect(await readPeople(redis, prefix, ['web'], nowMs)).toEqual({ session: 0, jwt: 0, all: 0 });
    expect(await readLastSessions(redis, prefix, nowMs)).toEqual([]);
  });
});
