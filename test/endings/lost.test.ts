import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import type { ConfigInput } from '../../src/config/config.js';
import { runCli } from '../support/cli.js';
import { expectError } from '../support/expect-error.js';
import { startCluster } from '../support/redis-cluster.js';
import { exchangeNative, postExchange, postRefresh } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import type { World } from '../support/world.js';

let own: PrivateRedis;
let admin: Redis;
beforeAll(async () => {
  own = await startRedis();
  admin = new Redis(own.url);
});
const open = useWorlds();
afterAll(async () => {
  admin.disconnect();
  await own.stop();
});

const lastKey = (world: World) => world.legacy.keys.at(-1) ?? '';

describe('a logout by token after the own Redis was flushed, with the records in another one', () => {
  it.each([true, false])('Law 6: deletes the record, where this instance knows it, and where only another one does (%s)', async (isElsewhere) => {
    const world = await open({ redisUrl: own.url });
    const other = await world.another();
    const cookie = await world.login('alice');
    const key = lastKey(world);
    const { access } = await exchangeNative(world, cookie);
    await admin.flushall();
    const at = isElsewhere ? other : world;
    expect((await at.post('/auth/logout', {}, { bearer: access })).status).toBe(204);
    expect(await world.legacy.redis.exists(key)).toBe(0);
    for (const one of [world, other]) {
      await expect.poll(async () => (await one.call('/me', { cookie })).status).toBe(401);
      await expect.poll(async () => (await one.call('/me', { bearer: access })).status).toBe(401);
    }
    expect(await at.metrics()).toContain('crossfade_logouts_incomplete_total 0');
  });

  it('Law 6: where nobody knows it, it is counted, and its cookie deletes it, also after resurrectionSeconds', async () => {
    const world = await open({ redisUrl: own.url, configure: (config) => ({ ...config, tokens: { ...config.tokens, resurrectionSeconds: 1 } }) });
    const cookie = await world.login('alice');
    const key = lastKey(world);
    const { access } = await exchangeNative(world, cookie);
    await admin.flushall();
    await world.bridge.close();
    const fresh = await world.another();
    await expect.poll(async () => (await fresh.call('/me', { bearer: access })).status).toBe(200);
    expect((await fresh.post('/auth/logout', {}, { bearer: access })).status).toBe(204);
    expect(await world.legacy.redis.exists(key)).toBe(1);
    expect(await fresh.metrics()).toContain('crossfade_logouts_incomplete_total 1');
    expect(fresh.log.audits('logout.incomplete')).toHaveLength(1);
    // Longer than resurrectionSeconds, by Redis' own clock.
    const [from = 0] = (await admin.time()).map(Number);
    await expect.poll(async () => Number((await admin.time())[0]) - from, { timeout: 5000 }).toBeGreaterThan(2);
    await expectError(await postExchange(fresh, cookie), 400, 'invalid_request');
    await expect.poll(async () => await world.legacy.redis.exists(key)).toBe(0);
    expect((await fresh.call('/me', { cookie })).status).toBe(401);
  });

  it('Law 6: the end of a person finds the sessions that an instance knows', async () => {
    const world = await open({
      redisUrl: own.url,
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, principal: { subject: 'user.id' } })) }),
    });
    const cookie = await world.login('alice');
    await exchangeNative(world, cookie);
    await admin.flushall();
    expect(await world.bridge.endSubject('u-alice', { why: 'a test' })).toBe(1);
    expect(await world.legacy.redis.exists(lastKey(world))).toBe(0);
    expect((await world.call('/me', { cookie })).status).toBe(401);
  });
});

describe('an end that is asked of an instance which knows nothing', () => {
  const untimed = (config: ConfigInput): ConfigInput => ({
    ...config,
    sessions: (config.sessions ?? []).map((session) => ({ ...session, principal: { subject: 'user.id' } })),
  });

  it.each(['another instance', 'the command line'])('Law 6: of a person, by %s: the instances that know a session end it', async (by) => {
    const world = await open({ redisUrl: own.url, configure: untimed });
    const other = await world.another();
    const cookie = await world.login('alice');
    await exchangeNative(world, cookie);
    await admin.flushall();
    if (by === 'another instance') await other.bridge.endSubject('u-alice', { why: 'a test' });
    else {
      const config = join(world.directory, 'crossfade.json');
      writeFileSync(config, JSON.stringify(world.config));
      // Redis knows nobody of that name any more; the instances do.
      expect((await runCli(['end', '--subject', 'u-alice', '--why', 'a test', '--config', config])).status).toBe(4);
    }
    await expect.poll(async () => await world.legacy.redis.exists(lastKey(world))).toBe(0);
    for (const at of [world, other]) expect((await at.call('/me', { cookie })).status).toBe(401);
  });

  it('Law 6: by a refresh token alone: record and bearer end, on whichever instance it is asked', async () => {
    const world = await open({ redisUrl: own.url });
    const other = await world.another();
    const known = await exchangeNative(world, await world.login('alice'));
    const key = lastKey(world);
    await admin.flushall();
    expect((await world.post('/auth/logout', { client_id: 'android', refresh_token: known.refresh })).status).toBe(204);
    expect(await world.legacy.redis.exists(key)).toBe(0);
    for (const at of [world, other]) await expect.poll(async () => (await at.call('/me', { bearer: known.access })).status).toBe(401);

    const unknown = await exchangeNative(world, await world.login('bob'));
    await admin.flushall();
    const fresh = await world.another();
    expect((await fresh.post('/auth/logout', { client_id: 'android', refresh_token: unknown.refresh })).status).toBe(204);
    await expect.poll(async () => await world.legacy.redis.exists(lastKey(world))).toBe(0);
    for (const at of [world, fresh]) await expect.poll(async () => (await at.call('/me', { bearer: unknown.access })).status).toBe(401);
  });

  it('Law 6: by a refresh token alone, where no instance knows whose it was: the cookie opens nothing, and its record goes', async () => {
    const world = await open({ redisUrl: own.url });
    const cookie = await world.login('bob');
    const key = lastKey(world);
    const { refresh } = await exchangeNative(world, cookie);
    await world.bridge.close();
    await admin.flushall();
    const fresh = await world.another();
    expect((await fresh.post('/auth/logout', { client_id: 'android', refresh_token: refresh })).status).toBe(204);
    expect(await fresh.metrics()).toMatch(/^crossfade_logouts_incomplete_total 1$/m);
    expect(fresh.log.audits('logout.incomplete')).toHaveLength(1);
    const shown = await fresh.call('/me', { cookie });
    expect(shown.status).toBe(401);
    await expect.poll(async () => await world.legacy.redis.exists(key)).toBe(0);
    await expectError(await postExchange(fresh, cookie), 400, 'invalid_request');
    // A new login of anybody is another session.
    expect((await fresh.call('/me', { cookie: await world.login('bob') })).status).toBe(200);
  });
});

describe('Redis that is slow', () => {
  it('Law 7: a master of a Cluster that says nothing: all is answered before it speaks again, and nothing is left unheard', async () => {
    const servers = await startCluster({ args: ['--cluster-require-full-coverage', 'no', '--busy-reply-threshold', '60000'] });
    const world = await open({ configure: (config) => ({ ...config, redis: { cluster: [...servers.nodes], keyPrefix: config.redis.keyPrefix } }) });
    const people: { cookie: string; refresh: string }[] = [];
    for (let n = 0; n < 12; n++) {
      const cookie = await world.login(`person-${n}`);
      people.push({ cookie, refresh: (await exchangeNative(world, cookie)).refresh });
    }
    const hog = new Redis({ host: '127.0.0.1', port: servers.servers[2]?.port ?? 0 });
    let isSilent = true;
    const silence = hog.eval('local from = redis.call("TIME")[1]; while redis.call("TIME")[1] - from < 6 do end', 0).finally(() => {
      isSilent = false;
    });
    const seen = new Map<number, number>();
    for (let round = 0; round < 2; round++) {
      const answers = people.flatMap(({ cookie, refresh }) => [
        world.call('/me', { cookie }),
        postExchange(world, cookie),
        postRefresh(world, refresh),
      ]);
      for (const { status } of await Promise.all(answers)) seen.set(status, (seen.get(status) ?? 0) + 1);
    }
    expect(isSilent).toBe(true);
    expect([...seen.keys()].sort()).toEqual([200, 503]);
    await silence;
    hog.disconnect();
    await expect.poll(async () => (await world.bridge.readiness()).problems, { timeout: 15_000 }).toEqual([]);
    await world.bridge.close();
    await servers.stop();
  });

  it('a command of an operator waits for longer than a request may', async () => {
    const world = await open({ redisUrl: own.url });
    const config = join(world.directory, 'crossfade.json');
    writeFileSync(config, JSON.stringify({ ...world.config, redis: { ...world.config.redis, commandTimeoutMs: 50 } }));
    await admin.call('CLIENT', 'PAUSE', '3000', 'ALL');
    const clamped = await runCli(['clamp', 'session-only', '--all', '--why', 'a test', '--config', config]);
    expect(clamped.status).toBe(0);
    expect(clamped.stdout).toContain('In force');
  });
});

it('commands of an operator go on where each answer of Redis takes longer than a request may wait', async () => {
  const own = await startRedis();
  const slow = await startTcpProxy(own.url, { delayMs: 400 });
  const world = await open({ redisUrl: own.url });
  const config = join(world.directory, 'crossfade.json');
  writeFileSync(config, JSON.stringify({ ...world.config, redis: { ...world.config.redis, url: slow.url } }));
  try {
    for (const args of [
      ['keys', 'rotate'],
      ['clamp', 'session-only', '--client', 'web', '--why', 'a test'],
    ]) {
      const { status, stderr } = await runCli([...args, '--config', config]);
      expect({ args, status, isTimeout: stderr.includes('timed out') }).toEqual({ args, status: 0, isTimeout: false });
    }
  } finally {
    await world.bridge.close();
    await slow.close();
    await own.stop();
  }
}, 60_000);

it('/readyz waits for the revocations after a start, while Redis answers', async () => {
  const redis = await startRedis();
  const root = new Redis(redis.url);
  const world = await open();
  const { access } = await exchangeNative(world, await world.login('alice'));
  await root.call('ACL', 'SETUSER', 'default', '-xrange');
  const starting = await world.another({ configure: (config) => ({ ...config, redis: { ...config.redis, url: redis.url } }) });
  expect(await starting.bridge.readiness()).toMatchObject({
    ready: false,
    canIssue: false,
    parts: { redis: 'NOPERM', events: expect.not.stringMatching(/^read$/) },
  });
  await expectError(await starting.call('/me', { bearer: access }), 503, 'temporarily_unavailable');
  await root.call('ACL', 'SETUSER', 'default', '+xrange');
  await expect.poll(async () => (await starting.bridge.readiness()).ready).toBe(true);
  await starting.close();
  root.disconnect();
  await redis.stop();
});
