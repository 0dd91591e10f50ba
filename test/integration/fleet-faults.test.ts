import { randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { decodeProtectedHeader } from 'jose';
import { describe, expect, it } from 'vitest';
import { startLaunchDarkly } from '../../scripts/lib/launchdarkly-server.js';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import type { ConfigInput } from '../../src/config/config.js';
import { runCli } from '../support/cli.js';
import { expectError } from '../support/expect-error.js';
import type { Instance } from '../support/instance.js';
import { writeKey } from '../support/keys.js';
import { exchangeNative, postExchange, refreshNative } from '../support/tokens.js';
import { remember } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, sharedRedisUrl, type World, type WorldOptions } from '../support/world.js';

const open = useWorlds();

/** So that a key signs two seconds after it was first seen. */
const quick = (config: ConfigInput): ConfigInput => ({
  ...config,
  keys: { ...config.keys, selfTestSeconds: 1, publishSeconds: 2 },
  limits: { ...config.limits, exchangePerSessionPerMinute: 1_000_000 },
});
const fast: WorldOptions = { configure: quick };

async function me(at: Instance, bearer: string): Promise<number> {
  return (await at.call('/me', { bearer })).status;
}

/** `crossfade COMMAND` on the configuration of a world, as written to a file. */
async function crossfade(world: World, args: readonly string[], change: (config: ConfigInput) => ConfigInput = (config) => config) {
  const file = join(world.directory, 'cli.json');
  writeFileSync(file, JSON.stringify(change(world.config)));
  return await runCli([...args, '--config', file]);
}

async function kidOf(at: Instance, world: World): Promise<string | undefined> {
  const response = await postExchange(at, await world.login('alice'));
  if (response.status !== 200) return undefined;
  const body: unknown = await response.json();
  const token = body !== null && typeof body === 'object' && 'access_token' in body ? String(body.access_token) : '';
  remember(token);
  return decodeProtectedHeader(token).kid;
}

/** Another clock, as of a machine whose time nobody has set. */
const ahead = (ms: number) => ({ bridge: { clock: { now: () => Date.now() + ms } } });

describe('clamps', () => {
  async function withOwnRedis(work: (world: World, redis: PrivateRedis) => Promise<void>): Promise<void> {
    const redis = await startRedis();
    const world = await createWorld({ redisUrl: redis.url });
    try {
      await work(world, redis);
    } finally {
      await world.close();
      await redis.stop();
    }
  }

  it('one that is set after Redis came back empty is in force on instances that remember others', async () => {
    await withOwnRedis(async (world, redis) => {
      const cookie = await world.login('alice');
      for (const args of [
        ['clamp', 'session-only', '--client', 'android', '--why', 'first'],
        ['release', '--client', 'android'],
      ])
        expect((await crossfade(world, args)).status).toBe(0);
      await world.bridge.reloadKeys();
      const admin = new Redis(redis.url);
      await admin.flushall();
      admin.disconnect();
      const again = await crossfade(world, ['clamp', 'session-only', '--client', 'android', '--why', 'again']);
      if (again.status === 0) expect(await (await postExchange(world, cookie)).json()).toMatchObject({ reason: 'operator' });
      // In the same moment the instance may have written what it knew: then it says so, and the next one holds.
      else {
        expect(again.stderr).toContain('run the same again');
        expect((await crossfade(world, ['clamp', 'session-only', '--client', 'android', '--why', 'again'])).status).toBe(0);
      }
      expect(await (await postExchange(world, cookie)).json()).toMatchObject({ reason: 'operator' });
    });
  }, 40_000);

  it('K8: an old list that is put back binds nobody: not those that know better, nor whoever starts then', async () => {
    const world = await open();
    const { redis } = world.legacy;
    await crossfade(world, ['clamp', 'session-only', '--client', 'android', '--why', 'old']);
    const old = (await redis.get(`${world.prefix}clamps`)) ?? '';
    await crossfade(world, ['release', '--client', 'android']);
    await redis.set(`${world.prefix}clamps`, old);
    await world.log.until((line) => line['audit'] === 'value.refused' && line['key'] === 'clamps');
    await expect.poll(async () => await redis.get(`${world.prefix}clamps`)).not.toBe(old);
    const late = await world.another();
    for (const at of [world, late]) expect((await postExchange(at, await world.login('alice'))).status).toBe(200);
  }, 30_000);

  it('one with a time is not ended by an instance whose clock is ahead, nor by whoever looks', async () => {
    const world = await open();
    const other = await world.another(ahead(3_600_000));
    const set = await crossfade(world, ['clamp', 'session-only', '--client', 'android', '--for', '30m', '--why', 'for a while']);
    expect([set.status, set.stdout]).toEqual([0, expect.stringContaining('on all 2 live instances')]);
    await other.bridge.reloadKeys();
    expect((await crossfade(world, ['status'])).stdout).toContain('client android at most session-only');
    for (const at of [world, other]) expect(await (await postExchange(at, await world.login('alice'))).json()).toMatchObject({ reason: 'operator' });
  }, 30_000);
});

describe('Law 1, Law 9: an issuer that is changed on purpose', () => {
  it('instance by instance: nobody is refused a token that was issued, and none signs under it before all accept it', async () => {
    const world = await open(fast);
    const changed = (config: ConfigInput): ConfigInput => ({ ...config, issuer: 'https://new.example.com' });
    const cookie = await world.login('alice');
    const live = new Set<Instance>([world]);
    const tokens = [(await exchangeNative(world, cookie)).access];
    const expectAll = async () => {
      for (const at of live) {
        for (const token of tokens) expect(await me(at, token)).toBe(200);
        const response = await postExchange(at, cookie);
        if (response.status !== 200) expect(response.status).toBe(503);
        else {
          const body: unknown = await response.json();
          const token = body !== null && typeof body === 'object' && 'access_token' in body ? String(body.access_token) : '';
          remember(token);
          tokens.push(token);
        }
      }
    };
    const old = await world.another();
    live.add(old);
    await expectAll();
    const [one, two] = [await world.another({ configure: changed }), await world.another({ configure: changed })];
    for (const at of [one, two]) live.add(at);
    await expectAll();
    live.delete(old);
    await old.close();
    // The majority is now of the new issuer: it signs once the last of the old ones accepts it.
    for (let round = 0; round < 30; round++) {
      await expectAll();
      await new Promise((resolve) => setImmediate(resolve));
    }
    await expect.poll(async () => (await postExchange(one, cookie)).status, { timeout: 20_000, interval: 250 }).toBe(200);
    await expectAll();
    expect(new Set(tokens.map((token) => JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()).iss)).size).toBe(2);
  }, 60_000);
});

describe('K4, L2, Law 7: a boot with broken keys, LaunchDarkly away and Redis away, all at once', () => {
  it('serves sessions, answers bearers 503, takes nothing back, and is whole again as soon as what it needs is there', async () => {
    const before = await open();
    const cookie = await before.login('alice');
    const { access } = await exchangeNative(before, cookie);
    const [own, launchDarkly] = [await startTcpProxy(sharedRedisUrl()), await startLaunchDarkly()];
    launchDarkly.set('auth-migration-stage', 'dual');
    await launchDarkly.stop();
    await own.cut();
    writeFileSync(join(before.directory, 'sdk-key'), 'sdk-the-key-of-these-tests');
    mkdirSync(join(before.directory, 'broken-keys'));
    writeKey(join(before.directory, 'broken-keys'), 'first.pem', 'not a key');
    const { url } = launchDarkly;
    const after = await before.another({
      configure: (config) => ({
        ...config,
        redis: { ...config.redis, url: own.url },
        keys: { ...config.keys, directory: 'broken-keys' },
        rollout: { flags: { launchdarkly: { sdkKeyFile: 'sdk-key', streamUri: url, baseUri: url, eventsUri: url } } },
      }),
    });
    expect((await after.call('/me', { cookie })).status).toBe(200);
    const refused = await after.call('/me', { bearer: access });
    expect(refused.headers.get('retry-after')).toMatch(/^([1-9]|10)$/);
    await expectError(refused, 503, 'temporarily_unavailable');
    const waits = await Promise.all(Array.from({ length: 20 }, async () => (await after.call('/me', { bearer: access })).headers.get('retry-after')));
    expect(new Set(waits).size, 'spread, so that they do not come back together').toBeGreaterThan(1);
    expect((await after.call('/me', { cookie, bearer: access })).status, 'the cookie of the same session answers').toBe(200);
    expect(await after.bridge.readiness()).toMatchObject({
      ready: true,
      canIssue: false,
      parts: { redis: 'away', signing: 'broken', flags: 'none', events: 'unread' },
    });
    await own.restore();
    await expect.poll(async () => await me(after, access), { timeout: 20_000 }).toBe(200);
    await launchDarkly.start();
    writeFileSync(join(before.directory, 'broken-keys', 'first.pem'), before.readFile('keys/first.pem'));
    await expect.poll(async () => (await postExchange(after, cookie)).status, { timeout: 20_000 }).toBe(200);
    await launchDarkly.stop();
    await own.close();
  }, 60_000);
});

describe('Law 1: an instance that is cut off from Redis', () => {
  it('does not refuse a token whose key the others began with meanwhile: it cannot know', async () => {
    const world = await open(fast);
    const proxy = await startTcpProxy(sharedRedisUrl());
    const cut = await world.another({ configure: (config) => ({ ...config, redis: { ...config.redis, url: proxy.url } }) });
    const first = await kidOf(world, world);
    await proxy.cut();
    // Its own directory is the same, so the new key is given to the other alone, by another directory.
    const keys = join(world.directory, 'other-keys');
    cpSync(join(world.directory, 'keys'), keys, { recursive: true });
    writeKey(keys, `${new Date(Date.now() + 1000).toISOString().replaceAll(/[-:]|\.\d+/g, '')}-next.pem`);
    const ahead = await world.another({ configure: (config) => ({ ...config, keys: { ...config.keys, directory: 'other-keys' } }) });
    await expect.poll(async () => await kidOf(ahead, world), { timeout: 40_000, interval: 500 }).not.toBe(first);
    const { access } = await exchangeNative(ahead, await world.login('alice'));
    expect(await expectError(await cut.call('/me', { bearer: access }), 503, 'temporarily_unavailable')).toMatchObject({ reason: 'keys' });
    await proxy.restore();
    await expect.poll(async () => await me(cut, access), { timeout: 20_000 }).toBe(200);
    await proxy.close();
  }, 90_000);
});

describe('Law 1: clocks that are off by more than the skew', () => {
  it.each([120_000, -120_000])('by %i ms: named, and neither side refuses what the other signs', async (ms) => {
    const world = await open();
    const third = await world.another();
    const off = await world.another(ahead(ms));
    const cookie = await world.login('alice');
    const [right, wrong] = [(await exchangeNative(world, cookie)).access, (await exchangeNative(off, cookie)).access];
    for (const at of [world, third, off]) for (const token of [right, wrong]) expect(await me(at, token)).toBe(200);
    await off.bridge.reloadKeys();
    expect(off.bridge.signing().problems).toEqual([
      `the clock here is 120 s ${ms > 0 ? 'ahead of' : 'behind'} those of Redis and the others: set it`,
    ]);
    expect(await off.metrics()).toMatch(/crossfade_clock_offset_seconds -?1(19|20)\.?/);
  });
});

describe('Law 1: a clock that was off while an instance was alone', () => {
  it('costs nobody a token for good once others join: what seems to come from the future is 503, not 401', async () => {
    const world = await open(ahead(120_000));
    const cookie = await world.login('alice');
    const { access } = await exchangeNative(world, cookie);
    expect(await me(world, access)).toBe(200);
    const joined = await world.another({ bridge: {} });
    for (const at of [joined, world]) expect([200, 503]).toContain(await me(at, access));
    // From its next heartbeat on it goes by the time of the others.
    await expect.poll(async () => await me(joined, (await exchangeNative(world, cookie)).access), { timeout: 15_000, interval: 500 }).toBe(200);
    expect(world.log.audits('guardrail.tripped')).toEqual([]);
  }, 30_000);
});

describe('Law 2: an audience that has become a service of its own', () => {
  it('is accepted by the bridge for tokens of before the change alone', async () => {
    const service = 'https://billing.example.com';
    const world = await open({ configure: (config) => ({ ...config, audience: [...config.audience, service] }) });
    const cookie = await world.login('alice');
    const before = await exchangeNative(world, cookie, { audience: service });
    expect(await me(world, before.access)).toBe(200);
    const [first = ''] = world.config.audience;
    const after = await world.another({
      configure: (config) => ({ ...config, audience: [first], services: [{ id: 'billing', audience: service }] }),
    });
    expect(await me(after, before.access)).toBe(200);
  });
});

describe('Law 7: a Redis that takes no writes', () => {
  it('lets an instance that starts then verify what was issued; it only does not sign', async () => {
    const redis = await startRedis();
    const world = await createWorld({ redisUrl: redis.url });
    const admin = new Redis(redis.url);
    try {
      const { access } = await exchangeNative(world, await world.login('alice'));
      await admin.config('SET', 'maxmemory', '1');
      const late = await world.another();
      expect(await me(late, access)).toBe(200);
      await admin.config('SET', 'maxmemory', '0');
      await expect.poll(async () => (await postExchange(late, await world.login('alice'))).status, { timeout: 15_000 }).toBe(200);
    } finally {
      admin.disconnect();
      await world.close();
      await redis.stop();
    }
  }, 30_000);
});

describe('a key that has leaked', () => {
  it('right after a rotation: its holders refresh with the one that was next, though it was never published long enough', async () => {
    const world = await open({ configure: (config) => ({ ...config, keys: { ...config.keys, selfTestSeconds: 1, publishSeconds: 900 } }) });
    const cookie = await world.login('alice');
    const held = await exchangeNative(world, cookie);
    const leaked = decodeProtectedHeader(held.access).kid ?? '';
    writeKey(join(world.directory, 'keys'), 'next.pem');
    await world.log.until((line) => line['audit'] === 'key.accepted' && line['file'] === 'next.pem');
    const revoked = await crossfade(world, ['keys', 'revoke', leaked, '--why', 'leaked']);
    expect([revoked.status, revoked.stdout]).toEqual([0, expect.stringContaining('Remove first.pem')]);
    expect(await me(world, held.access)).toBe(401);
    await expect.poll(() => world.bridge.signing().canSign, { timeout: 10_000 }).toBe(true);
    const renewed = await refreshNative(world, held.refresh);
    expect(decodeProtectedHeader(renewed.access).kid).not.toBe(leaked);
    expect(await me(world, renewed.access)).toBe(200);
  }, 30_000);

  it('with a key that is planned for later: that one signs at once, and a rotation is not refused for its sake', async () => {
    const world = await open({ configure: (config) => ({ ...config, keys: { ...config.keys, selfTestSeconds: 1, publishSeconds: 900 } }) });
    const leaked = (await kidOf(world, world)) ?? '';
    writeKey(join(world.directory, 'keys'), '20991231T000000Z-planned.pem');
    await world.log.until((line) => line['audit'] === 'key.accepted' && String(line['file']).endsWith('planned.pem'));
    await world.bridge.reloadKeys();
    expect(await kidOf(world, world)).toBe(leaked);
    expect((await crossfade(world, ['keys', 'revoke', leaked, '--why', 'leaked'])).status).toBe(0);
    await expect.poll(async () => await kidOf(world, world), { timeout: 10_000 }).toBeDefined();
    const rotated = await crossfade(world, ['keys', 'rotate']);
    const [, path = ''] = /^wrote (\S+)$/m.exec(rotated.stdout) ?? [];
    expect([rotated.status, rotated.stdout.replaceAll(/\s+/g, ' ')]).toEqual([
      0,
      expect.stringContaining('is published for keys.publishSeconds (900) first'),
    ]);
    remember(
      ...readFileSync(path, 'utf8')
        .split('\n')
        .filter((line) => line !== '' && !line.startsWith('-----')),
    );
  }, 40_000);
});

describe('Law 10: strangers among the instances', () => {
  it('another fleet secret on the same keys is named by status, readiness and check', async () => {
    const world = await open();
    const secret = randomBytes(32).toString('base64url');
    remember(secret);
    writeFileSync(join(world.directory, 'other-secret'), `${secret}\n`);
    const other = await world.another({ configure: (config) => ({ ...config, fleetSecretFile: 'other-secret' }) });
    const problem = 'announcements under these keys in Redis carry another MAC';
    await world.bridge.reloadKeys();
    await expect
      .poll(async () => (await crossfade(world, ['status'])).stdout.replaceAll(/\s+/g, ' '), { timeout: 20_000, interval: 500 })
      .toContain(problem);
    expect((await crossfade(world, ['check'])).stdout).toContain(`fleetSecretFile: 1 ${problem}`);
    await other.close();
  }, 40_000);

  it('ids that somebody puts on the list by hand cost little, and are gone at the next heartbeat', async () => {
    const world = await open();
    const { redis } = world.legacy;
    const forged = Array.from({ length: 3000 }, (_, n) => ['inf', `forged-${n}`]).flat();
    await redis.zadd(`${world.prefix}fleet`, ...forged);
    const late = await world.another();
    await expect.poll(async () => await redis.zcard(`${world.prefix}fleet`)).toBe(2);
    expect((await postExchange(late, await world.login('alice'))).status).toBe(200);
    expect(world.log.audits('value.refused')).toEqual([]);
  });
});

describe('announcements that nobody can open', () => {
  it('stop a fleet that they outnumber, which says why once; when they are fewer it signs again with the key it had', async () => {
    const world = await open(fast);
    const other = await world.another();
    const kid = await kidOf(world, world);
    const { redis } = world.legacy;
    const [seconds] = await redis.time();
    const strangers = ['one', 'two', 'three'].map((name) => `stranger-${name}`);
    for (const name of strangers) {
      await redis.zadd(`${world.prefix}fleet`, Number(seconds) * 1000 + 14_000, name);
      await redis.hset(`${world.prefix}fleet:${name}`, 'announcement', 'deadbeef:x');
    }
    const met = (at: Instance) => at.log.audits('value.refused').filter(({ key }) => key === 'fleet').length;
    for (const at of [world, other]) await expect.poll(() => met(at), { timeout: 15_000 }).toBe(strangers.length);
    await redis.set(`${world.prefix}jwks`, 'deadbeef:{"version":1,"payload":"{}","mac":"x"}');
    for (const at of [world, other]) {
      await expect.poll(async () => (await at.bridge.readiness()).canIssue, { timeout: 15_000 }).toBe(false);
      await expectError(await postExchange(at, await world.login('alice')), 503, 'temporarily_unavailable');
      const { problems } = await at.bridge.readiness();
      expect(problems.filter((problem) => problem.includes('jwks in Redis was written with'))).toEqual([
        expect.stringMatching(/: this instance signs nothing$/),
      ]);
    }

    await redis.zrem(`${world.prefix}fleet`, ...strangers.slice(1));
    for (const at of [world, other]) await expect.poll(async () => await kidOf(at, world), { timeout: 15_000 }).toBe(kid);
  }, 60_000);
});
