import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import type { ConfigInput } from '../../src/config/config.js';
import { runCli } from '../support/cli.js';
import { expectError } from '../support/expect-error.js';
import type { Instance } from '../support/instance.js';
import { startCluster } from '../support/redis-cluster.js';
import { MASTER_NAME, startSentinel } from '../support/sentinel.js';
import { exchangeNative, postRefresh, readTokens, type Tokens } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import type { World } from '../support/world.js';

const open = useWorlds();
const PEOPLE = 40;

const unlimited = (config: ConfigInput): ConfigInput => ({
  ...config,
  limits: { ...config.limits, exchangePerSessionPerMinute: 1_000_000, failuresPerAddressPerMinute: 1_000_000 },
});

async function metric(at: Instance, name: string): Promise<number> {
  const lines = (await at.metrics()).split('\n').filter((line) => line.startsWith(name));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

/** How long the replica does not get what is written, and how long there are two primaries. */
const PAUSED_LINK_MS = 2000;
const SPLIT_BRAIN_MS = 1000;

async function lasts(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

/** Clients that refresh one after the other for as long as they are let, each with the newest token that it was given. */
function startClients(all: readonly Tokens[], instances: readonly Instance[]) {
  const held = all.map((tokens) => ({ tokens, refreshes: 0 }));
  const refused: string[] = [];
  let unavailable = 0;
  let stopped = false;
  const loops = held.map(async (client, n) => {
    for (let turn = n; !stopped; turn++) {
      const at = instances[turn % instances.length];
      const answer = at && (await postRefresh(at, client.tokens.refresh));
      if (answer?.status === 200) {
        client.tokens = await readTokens(answer);
        client.refreshes += 1;
        continue;
      }
      if (answer?.status === 503) unavailable += 1;
      else refused.push(`${answer?.status} ${await answer?.text()}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  });
  return {
    refused,
    get unavailable() {
      return unavailable;
    },
    /** Resolves once each client has refreshed so many times more. */
    async refreshed(times: number): Promise<void> {
      const from = held.map(({ refreshes }) => refreshes);
      await expect
        .poll(() => held.every(({ refreshes }, n) => refreshes >= (from[n] ?? 0) + times) || refused.length > 0, { timeout: 40_000 })
        .toBe(true);
    },
    async stop(): Promise<readonly Tokens[]> {
      stopped = true;
      await Promise.all(loops);
      return held.map(({ tokens }) => tokens);
    },
  };
}

/** Under load: writes get lost, then the primary that had them dies. */
async function failOver(world: World, loseWrites: () => void, kill: () => Promise<void>, what: string): Promise<void> {
  const instances = [world, await world.another()];
  const all: Tokens[] = [];
  for (let n = 0; n < PEOPLE; n++) all.push(await exchangeNative(world, await world.login(`person-${n}`)));
  const clients = startClients(all, instances);
  await clients.refreshed(1);
  loseWrites();
  await Promise.all([clients.refreshed(2), lasts(PAUSED_LINK_MS)]);
  await kill();
  await clients.refreshed(2);
  const last = await clients.stop();
  const lost = (await Promise.all(instances.map(async (at) => await metric(at, 'crossfade_lost_writes_total')))).reduce((a, b) => a + b, 0);
  process.stdout.write(`lost writes: ${what}: ${lost} families caught up, ${clients.refused.length} refused, ${clients.unavailable} times 503\n`);
  expect(clients.refused).toEqual([]);
  expect(lost).toBeGreaterThan(0);
  for (const at of instances) {
    expect(at.log.audits('family.revoked')).toEqual([]);
    expect(at.log.audits('guardrail.tripped')).toEqual([]);
    for (const { access } of last) expect((await at.call('/me', { bearer: access })).status).toBe(200);
  }
}

describe('a failover whose replica has not got the last writes', () => {
  it('Law 1: behind Sentinel no family is taken for stolen', async () => {
    const setup = await startSentinel();
    onTestFinished(async () => await setup.stop());
    const world = await open({
      configure: (config) => ({
        ...unlimited(config),
        redis: { sentinels: [{ host: '127.0.0.1', port: setup.sentinel.port }], name: MASTER_NAME, keyPrefix: config.redis.keyPrefix },
      }),
    });
    await failOver(world, setup.loseWrites, setup.primary.stop, 'Sentinel');
  }, 90_000);

  it('Law 1: of one shard of a Cluster no family is taken for stolen', async () => {
    const servers = await startCluster({ withReplica: true, args: ['--cluster-replica-validity-factor', '0'] });
    onTestFinished(async () => await servers.stop());
    const world = await open({
      configure: (config) => ({ ...unlimited(config), redis: { cluster: [...servers.nodes], keyPrefix: config.redis.keyPrefix } }),
    });
    await failOver(world, servers.loseWrites, async () => await servers.servers[0]?.stop(), 'Cluster');
  }, 90_000);
});

describe('a split brain', () => {
  it('Law 1: two primaries for a while, each with a part of the fleet: no family is taken for stolen [W5]', async () => {
    const [left, right] = [await startRedis(), await startRedis()];
    onTestFinished(async () => {
      await left.stop();
      await right.stop();
    });
    const [ofFirst, ofSecond] = [await startTcpProxy(left.url), await startTcpProxy(left.url)];
    onTestFinished(async () => {
      await ofFirst.close();
      await ofSecond.close();
    });
    const world = await open({ redisUrl: ofFirst.url, configure: unlimited });
    const second = await world.another({ configure: (config) => ({ ...config, redis: { ...config.redis, url: ofSecond.url } }) });
    const all: Tokens[] = [];
    for (let n = 0; n < PEOPLE; n++) all.push(await exchangeNative(world, await world.login(`person-${n}`)));
    // The right one is promoted, and the left one does not know: each serves one instance.
    await withRedis(right.url, async (redis) => {
      await redis.replicaof('127.0.0.1', left.port);
      await expect.poll(async () => await redis.info('replication'), { timeout: 10_000 }).toContain('master_link_status:up');
      await redis.replicaof('NO', 'ONE');
    });
    await ofSecond.cut();
    ofSecond.leadTo(right.url);
    await ofSecond.restore();
    const clients = startClients(all, [world, second]);
    await Promise.all([clients.refreshed(4), lasts(SPLIT_BRAIN_MS)]);
    // It heals: the left one and what only it knew are gone.
    await ofFirst.cut();
    ofFirst.leadTo(right.url);
    await ofFirst.restore();
    await clients.refreshed(4);
    await clients.stop();
    const lost = (await metric(world, 'crossfade_lost_writes_total')) + (await metric(second, 'crossfade_lost_writes_total'));
    process.stdout.write(
      `lost writes: split brain: ${lost} families caught up, ${clients.refused.length} refused, ${clients.unavailable} times 503\n`,
    );
    expect(clients.refused).toEqual([]);
    for (const at of [world, second]) expect(at.log.audits('family.revoked')).toEqual([]);
  }, 60_000);
});

describe('all instances restarted on an old copy', () => {
  it('Law 1: families of the copy go on, newer ones are lost and counted, and no cohort is held', async () => {
    const files = mkdtempSync(join(tmpdir(), 'crossfade-old-copy-'));
    onTestFinished(() => rmSync(files, { recursive: true, force: true }));
    let own = await startRedis({ args: ['--dir', files] });
    onTestFinished(async () => await own.stop());
    const world = await open({ redisUrl: own.url, configure: unlimited });
    const cookies: string[] = [];
    for (let n = 0; n < PEOPLE; n++) cookies.push(await world.login(`person-${n}`));
    const half = PEOPLE / 2;
    const before = await Promise.all(cookies.slice(0, half).map(async (cookie) => await exchangeNative(world, cookie)));
    await withRedis(own.url, async (redis) => await redis.save());
    const newest = await Promise.all(before.map(async ({ refresh }) => await readTokens(await postRefresh(world, refresh))));
    const after = await Promise.all(cookies.slice(half).map(async (cookie) => await exchangeNative(world, cookie)));
    await world.bridge.close();
    const { port } = own;
    await own.stop();
    own = await startRedis({ port, args: ['--dir', files] });
    const fresh = await world.another();
    for (const { refresh } of newest) expect((await postRefresh(fresh, refresh)).status).toBe(200);
    for (const { refresh } of after) await expectError(await postRefresh(fresh, refresh), 400, 'invalid_grant');
    for (const { access } of [...newest, ...after]) expect((await fresh.call('/me', { bearer: access })).status).toBe(200);
    for (const cookie of cookies) expect((await fresh.call('/me', { cookie })).status).toBe(200);
    expect((await exchangeNative(fresh, cookies.at(-1) ?? '')).access).not.toBe('');
    expect([await metric(fresh, 'crossfade_lost_writes_total'), await metric(fresh, 'crossfade_families_lost_total')]).toEqual([half, half]);
    for (const event of ['family.revoked', 'guardrail.tripped', 'stage.clamped']) expect(fresh.log.audits(event)).toEqual([]);
  }, 60_000);
});

describe('a Redis that was put back to an earlier copy', () => {
  it('Law 6: what has ended has ended there again, and all instances hold it meanwhile [W4]', async () => {
    const files = mkdtempSync(join(tmpdir(), 'crossfade-snapshot-'));
    onTestFinished(() => rmSync(files, { recursive: true, force: true }));
    let own = await startRedis({ args: ['--dir', files] });
    onTestFinished(async () => await own.stop());
    const world = await open({ redisUrl: own.url, configure: unlimited });
    const other = await world.another();
    const people = new Map<string, Tokens>();
    for (const name of ['alice', 'bob', 'carol', 'person-1']) people.set(name, await exchangeNative(world, await world.login(name)));
    const of = (name: string): Tokens => {
      const tokens = people.get(name);
      if (!tokens) throw new Error(name);
      return tokens;
    };
    const path = join(world.directory, 'crossfade.json');
    writeFileSync(path, JSON.stringify(world.config));
    await withRedis(own.url, async (redis) => await redis.save());

    // What Redis forgets: a logout, a revoked family, the end of a person, a clamp.
    expect((await world.post('/auth/logout', {}, { bearer: of('alice').access })).status).toBe(204);
    expect((await world.post('/auth/revoke', { token: of('bob').refresh, client_id: 'android' })).status).toBe(200);
    await world.bridge.endSubject('u-carol', { why: 'a test' });
    expect((await runCli(['clamp', 'session-only', '--client', 'web', '--why', 'a test', '--config', path])).status).toBe(0);
    const others = await readTokens(await postRefresh(world, of('person-1').refresh));

    const { port } = own;
    await own.stop();
    own = await startRedis({ port, args: ['--dir', files] });
    for (const at of [world, other]) {
      for (const name of ['alice', 'bob', 'carol'])
        await expect.poll(async () => (await at.call('/me', { bearer: of(name).access })).status, { timeout: 15_000 }).toBe(401);
    }
    // No one has shown a token of them: the instances write it by themselves.
    await withRedis(own.url, async (redis) => {
      const mark = async (name: string) => (await redis.get(`${world.prefix}{${of(name).sid}}:ended`)) ?? '';
      const familyOf = (name: string) => `${world.prefix}{${of(name).sid}}:family:${of(name).family}`;
      await expect.poll(async () => await mark('alice'), { timeout: 15_000 }).toContain('logout');
      await expect.poll(async () => await redis.hget(familyOf('bob'), 'ended'), { timeout: 15_000 }).toBe('revoked');
      await expect.poll(async () => await redis.hget(familyOf('carol'), 'ended'), { timeout: 15_000 }).not.toBeNull();
      await expect.poll(async () => (await redis.get(`${world.prefix}clamps`)) ?? '', { timeout: 15_000 }).toContain('a test');
      await expect.poll(async () => await redis.zcard(`${world.prefix}persons-ended`), { timeout: 15_000 }).toBe(1);
    });
    for (const name of ['alice', 'bob', 'carol']) await expectError(await postRefresh(other, of(name).refresh), 400, 'invalid_grant');
    expect((await postRefresh(world, others.refresh)).status).toBe(200);
    // An instance that starts now knows it all from Redis alone.
    const late = await world.another();
    for (const name of ['alice', 'bob', 'carol']) await expectError(await late.call('/me', { bearer: of(name).access }), 401, 'invalid_token');
    // One of the two has written it.
    await expect.poll(() => [world, other].flatMap(({ log }) => log.audits('ends.rewritten')).length, { timeout: 15_000 }).toBeGreaterThan(0);
  }, 60_000);
});

async function withRedis<T>(url: string, work: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url);
  try {
    return await work(redis);
  } finally {
    redis.disconnect();
  }
}
