import { randomBytes } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterEach, describe, expect, it } from 'vitest';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { systemClock } from '../../src/clock.js';
import { followFiles } from '../../src/compose/files.js';
import { createLifecycle } from '../../src/compose/lifecycle.js';
import { resolveConfig } from '../../src/config/load.js';
import { systemRandom } from '../../src/random.js';
import { Connections } from '../../src/redis/connections.js';
import { FleetSecrets } from '../../src/redis/fleet-keyring.js';
import { createAudit } from '../../src/telemetry/audit.js';
import { createLog } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { LogLines } from '../support/log-lines.js';
import { exchangeNative, postRefresh, refreshNative, type Tokens } from '../support/tokens.js';
import { createWorld, sharedRedisUrl, type World } from '../support/world.js';

let closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.reverse()) await close();
  closing = [];
});

/** A world whose records are in a Redis of their own, so that this may lose them. */
async function open(args: readonly string[] = []): Promise<{ world: World; records: PrivateRedis; admin: Redis }> {
  const records = await startRedis({ args });
  closing.push(async () => await records.stop());
  const world = await createWorld({ legacy: { redisUrl: records.url } });
  closing.push(async () => await world.close());
  const admin = new Redis(records.url);
  closing.push(async () => admin.disconnect());
  return { world, records, admin };
}

async function exchangeMany(world: World, count: number): Promise<Tokens[]> {
  const all: Tokens[] = [];
  for (let person = 0; person < count; person++) all.push(await exchangeNative(world, await world.login(`person-${person}`)));
  return all;
}

async function metric(world: World, name: string): Promise<number> {
  return Number(new RegExp(`^${name}(?:{[^}]*})? (\\d+)`, 'm').exec(await world.metrics())?.[1] ?? 0);
}

async function news(world: World, fate: string): Promise<number> {
  return Number(new RegExp(`^crossfade_record_news_total{fate="${fate}"} (\\d+)`, 'm').exec(await world.metrics())?.[1] ?? 0);
}

/** Nobody was logged out: every token opens, and every family goes on. */
async function expectNobodyOut(world: World, all: readonly Tokens[]): Promise<void> {
  expect(world.log.audits('session.ended')).toEqual([]);
  for (const { access, refresh } of all) {
    expect((await world.call('/me', { bearer: access })).status).toBe(200);
    expect((await postRefresh(world, refresh)).status).toBe(200);
  }
}

describe('Law 6: what only looks like a logout logs nobody out', () => {
  it('G1: Redis evicts 370 records: nobody’s tokens end; it is counted and alerted', async () => {
    const { world, admin } = await open();
    const all = await exchangeMany(world, 400);
    await admin.config('SET', 'maxmemory-policy', 'allkeys-random');
    const used = Number(/used_memory:(\d+)/.exec(await admin.info('memory'))?.[1]);
    await admin.config('SET', 'maxmemory', String(used + 100_000));
    const evicted = async () => Number(/evicted_keys:(\d+)/.exec(await admin.info('stats'))?.[1]);
    const left = async () => (await Promise.all(world.legacy.keys.map(async (key) => await admin.exists(key)))).reduce((sum, one) => sum + one, 0);
    for (let filler = 0; (await left()) > 30; filler++)
      await admin.set(`filler-${filler}`, randomBytes(40_000).toString('base64')).catch(() => undefined);
    expect(await evicted()).toBeGreaterThanOrEqual(370);
    const gone = 400 - (await left());
    expect(gone).toBeGreaterThanOrEqual(370);
    await expect.poll(async () => await metric(world, 'crossfade_sessions_vanished_total')).toBeGreaterThanOrEqual(gone);
    await world.log.until((line) => line['audit'] === 'session.vanished');
    await expectNobodyOut(world, all);
  }, 60_000);

  it('G1: one record that is evicted, and a Redis that is another, are no logouts either', async () => {
    const { world, admin } = await open();
    const gone = await world.another();
    const tokens = await exchangeNative(gone, await world.login('alice'));
    await gone.close();
    await admin.config('SET', 'maxmemory-policy', 'allkeys-random');
    const used = Number(/used_memory:(\d+)/.exec(await admin.info('memory'))?.[1]);
    await admin.config('SET', 'maxmemory', String(used + 20_000));
    const key = world.legacy.keys.at(-1) ?? '';
    for (let filler = 0; (await admin.exists(key)) > 0; filler++) {
      await admin.set(`filler-${filler}`, randomBytes(15_000).toString('base64')).catch(() => undefined);
    }
    await admin.config('SET', 'maxmemory', '0');
    await expectNobodyOut(world, [tokens]);
  });

  it('G2: 3,000 tracked keys over a small tracking table: news of living keys is read again, nothing ends', async () => {
    const { world, admin } = await open(['--tracking-table-max-keys', '100']);
    const log = new LogLines();
    const [logger, metrics] = [createLog({ destination: log }), createMetrics()];
    const config = resolveConfig(world.config, { baseDir: world.directory });
    const audit = createAudit(logger);
    const files = followFiles({ log: logger, audit });
    const connections = new Connections(config, files, logger, metrics);
    await connections.ready(5000);
    const lifecycle = createLifecycle({
      config,
      connections,
      files,
      secrets: new FleetSecrets(config.fleetSecret.current),
      belonging: { isStranger: () => false, isUnheard: () => false, isInTouch: () => true },
      random: systemRandom,
      clock: systemClock,
      log: logger,
      audit,
      metrics,
    });
    closing.push(async () => {
      lifecycle.close();
      connections.close();
      files.close();
    });
    await expect.poll(async () => await metrics.registry.metrics()).toContain('crossfade_tracking_up{connection="web"} 1');
    const expire = Date.now() + 3_600_000;
    const keys = Array.from({ length: 3000 }, (_, n) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`);
    for (const key of keys) {
      await admin.set(key, JSON.stringify({ user: { id: key }, _expire: expire, _maxAge: 3_600_000 }), 'PX', 3_600_000);
      const reading = await lifecycle.sessions.readKnown('web', key);
      if (reading.kind !== 'session') throw new Error(reading.reason);
      await lifecycle.watch.watch(reading.session);
    }
    expect((await metrics.watchedRecords.get()).values[0]?.value).toBe(3000);
    expect(Number(/tracking_total_keys:(\d+)/.exec(await admin.info('stats'))?.[1])).toBeLessThanOrEqual(100);
    // Each was read again when its news came, and then left alone: Redis is not kept busy with it.
    const calls = async () => Number(/total_commands_processed:(\d+)/.exec(await admin.info('stats'))?.[1]);
    await expect.poll(async () => -(await calls()) + (await new Promise((resolve) => setTimeout(resolve, 500)).then(calls))).toBeLessThan(3000);
    expect(log.audits('session.ended')).toEqual([]);
    expect(log.audits('session.vanished')).toEqual([]);
    expect((await metrics.sessionsEnded.get()).values).toEqual([]);
  }, 60_000);

  it.each<[string, boolean, (admin: Redis) => Promise<unknown>]>([
    ['FLUSHDB', true, async (admin) => await admin.flushdb()],
    ['FLUSHALL ASYNC', true, async (admin) => await admin.flushall('ASYNC')],
    // Of this one Redis tells nothing; the next refresh finds it.
    ['SWAPDB', false, async (admin) => await admin.call('SWAPDB', '0', '1')],
    [
      'very many deletions at once',
      true,
      async (admin) => {
        const pipeline = admin.pipeline();
        for (const key of await admin.keys('*')) pipeline.del(key);
        await pipeline.exec();
      },
    ],
  ])(
    '%s takes all records: everybody’s tokens go on, now and at the next refresh',
    async (_, isTold, lose) => {
      const { world, admin } = await open();
      const all = await exchangeMany(world, 130);
      await lose(admin);
      if (isTold) await expect.poll(async () => await metric(world, 'crossfade_sessions_vanished_total')).toBeGreaterThanOrEqual(130);
      await expectNobodyOut(world, all);
      // And it is no logout for an instance that has seen nothing of it.
      const late = await world.another();
      for (const { refresh } of all.slice(0, 20)) expect((await postRefresh(late, refresh)).status).toBe(200);
    },
    60_000,
  );

  it('the records’ Redis is restarted with empty memory: tokens go on, sessions are gone as they would be without us', async () => {
    const { world, records } = await open();
    const cookie = await world.login('alice');
    const tokens = await exchangeNative(world, cookie);
    await records.stop();
    expect((await world.call('/me', { bearer: tokens.access })).status).toBe(200);
    const again = await startRedis({ port: records.port });
    closing.unshift(async () => await again.stop());
    await expect.poll(async () => (await world.call('/', { cookie })).status).toBe(200);
    expect((await world.call('/me', { cookie })).status).toBe(401);
    await expectNobodyOut(world, [tokens]);
  });

  it('a record that is only touched is still watched: the logout after it is noticed at once', async () => {
    const { world, admin } = await open();
    const touched = await exchangeOne(world);
    for (let time = 1; time <= 8; time++) {
      const before = await news(world, 'lives');
      await admin.pexpire(touched.key, 86_400_000 + time * 60_000);
      await expect.poll(async () => await news(world, 'lives')).toBeGreaterThan(before);
    }
    await admin.del(touched.key);
    await expect.poll(async () => (await world.call('/me', { bearer: touched.tokens.access })).status, { timeout: 900 }).toBe(401);
  });

  it('a flush that is looked into late is none either: the Redis of the bridge, or the news, was away meanwhile', async () => {
    const records = await startRedis();
    closing.push(async () => await records.stop());
    const own = await startTcpProxy(sharedRedisUrl());
    closing.push(async () => await own.close());
    const world = await createWorld({ legacy: { redisUrl: records.url }, redisUrl: own.url });
    closing.push(async () => await world.close());
    const tokens = await exchangeNative(world, await world.login('alice'));
    await own.cut();
    await world.legacy.redis.flushdb();
    // Tried again once a second, and each time a second has passed since the flush.
    for (let time = 0; time < 3; time++) {
      await world.log.until(({ msg }) => String(msg).startsWith('a watched record could not be looked at'), world.log.all.length);
    }
    await own.restore();
    await expect.poll(async () => await metric(world, 'crossfade_sessions_vanished_total')).toBe(1);
    await expect.poll(async () => (await postRefresh(world, tokens.refresh)).status).toBe(200);
    expect(world.log.audits('session.ended')).toEqual([]);
  }, 30_000);

  it.each(['run_id', 'evicted_keys', 'total_commands_processed'])(
    'a Redis that keeps %s back takes no deletion for a logout, and says so once',
    async (field) => {
      const records = await startRedis();
      closing.push(async () => await records.stop());
      const managed = await startTcpProxy(records.url, { hides: [field] });
      closing.push(async () => await managed.close());
      const world = await createWorld({ legacy: { redisUrl: managed.url } });
      closing.push(async () => await world.close());
      const { key, tokens } = await exchangeOne(world);
      const refreshed = await refreshNative(world, tokens.refresh);
      await world.legacy.redis.del(key);
      await expect.poll(async () => await metric(world, 'crossfade_sessions_vanished_total')).toBe(1);
      await expectNobodyOut(world, [refreshed]);
      expect(world.log.all.filter(({ msg }) => String(msg).includes('the INFO of this Redis lacks'))).toHaveLength(1);
    },
  );

  it('a logout is noticed although INFO failed when it happened; CONFIG RESETSTAT makes no logout of a flush', async () => {
    const { world, admin } = await open();
    const out = await exchangeOne(world);
    await admin.call('ACL', 'SETUSER', 'default', '-info');
    await admin.del(out.key);
    await expect.poll(async () => await news(world, 'unknown')).toBeGreaterThan(0);
    await admin.call('ACL', 'SETUSER', 'default', '+info');
    await expect.poll(async () => (await world.call('/me', { bearer: out.tokens.access })).status).toBe(401);

    const gone = await world.another();
    await world.login('alice');
    const { refresh } = await exchangeNative(gone, await world.login('alice'));
    await gone.close();
    await admin.flushall();
    await admin.config('RESETSTAT');
    expect((await postRefresh(world, refresh)).status).toBe(200);
  }, 30_000);

  it('one client whose record is gone, however often it comes, does not hide the logouts of others', async () => {
    const { world, admin } = await open();
    const gone = await exchangeOne(world);
    await admin.flushdb();
    let { refresh } = gone.tokens;
    for (let time = 0; time < 25; time++) ({ refresh } = await refreshNative(world, refresh));
    await Promise.all(Array.from({ length: 150 }, async () => await postRefresh(world, refresh)));
    const alice = await exchangeOne(world);
    await admin.del(alice.key);
    await expect.poll(async () => (await world.call('/me', { bearer: alice.tokens.access })).status).toBe(401);
    expect(await metric(world, 'crossfade_sessions_vanished_total')).toBe(1);
  });

  it('a record that ends by itself, or is prolonged, or written again by its own person, ends nothing', async () => {
    const { world, admin } = await open();
    const [ending, renewed] = [await exchangeOne(world), await exchangeOne(world)];
    await admin.expire(renewed.key, 7200);
    const record = JSON.parse((await admin.get(renewed.key)) ?? '');
    await admin.set(renewed.key, JSON.stringify({ ...record, views: 1 }), 'KEEPTTL');
    expect((await refreshNative(world, renewed.tokens.refresh)).family).toBe(renewed.tokens.family);
    await admin.pexpire(ending.key, 1000);
    await refreshNative(world, ending.tokens.refresh);
    await expect.poll(async () => await admin.exists(ending.key)).toBe(0);
    await expectNobodyOut(world, [ending.tokens, renewed.tokens]);
  });
});

async function exchangeOne(world: World): Promise<{ key: string; tokens: Tokens }> {
  const cookie = await world.login('alice');
  return { key: world.legacy.keys.at(-1) ?? '', tokens: await exchangeNative(world, cookie) };
}
