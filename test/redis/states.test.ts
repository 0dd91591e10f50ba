import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../../scripts/lib/free-port.js';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { type Authority, createAuthority, tlsArgs } from '../support/certificates.js';
import { runCli } from '../support/cli.js';
import { expectError } from '../support/expect-error.js';
import { startHoldingProxy } from '../support/holding-proxy.js';
import { writeKey } from '../support/keys.js';
import { startCluster } from '../support/redis-cluster.js';
import { MASTER_NAME, startSentinel } from '../support/sentinel.js';
import { startService } from '../support/serve.js';
import { exchangeNative, postAsBrowser, postExchange, postRefresh } from '../support/tokens.js';
import { remember } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import type { World } from '../support/world.js';

let authority: Authority;
let directory: string;
const closing: (() => unknown)[] = [];
beforeAll(() => {
  authority = createAuthority();
  directory = mkdtempSync(join(tmpdir(), 'crossfade-states-'));
});
// Before the worlds: hooks run backwards, and a world is closed while its servers live.
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});
const open = useWorlds();
afterAll(() => {
  authority.remove();
  rmSync(directory, { recursive: true, force: true });
});

async function server(...args: string[]): Promise<{ redis: PrivateRedis; admin: Redis }> {
  const redis = await startRedis({ args });
  const admin = new Redis(redis.url);
  admin.on('error', () => undefined);
  closing.push(async () => {
    admin.disconnect();
    await redis.stop();
  });
  return { redis, admin };
}

/** Replaces a file as secret stores do: whole. */
function put(path: string, text: string): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

async function stateOf(world: World): Promise<string> {
  return (await world.bridge.readiness()).parts['redis'] ?? '';
}

describe('a Redis of the bridge that is connected and cannot be used', () => {
  it.each<[state: string, begin: (admin: Redis) => Promise<unknown>, end: (admin: Redis) => Promise<unknown>]>([
    ['READONLY', async (admin) => await admin.replicaof('127.0.0.1', '1'), async (admin) => await admin.replicaof('NO', 'ONE')],
    [
      'NOREPLICAS',
      async (admin) => await admin.config('SET', 'min-replicas-to-write', '1'),
      async (admin) => await admin.config('SET', 'min-replicas-to-write', '0'),
    ],
    ['OOM', async (admin) => await admin.config('SET', 'maxmemory', '1'), async (admin) => await admin.config('SET', 'maxmemory', '0')],
    [
      'NOPERM',
      async (admin) => await admin.call('ACL', 'SETUSER', 'default', '-@write'),
      async (admin) => await admin.call('ACL', 'SETUSER', 'default', '+@write'),
    ],
  ])('%s: nothing is issued, it is named, sessions go on, and it recovers by itself', async (state, begin, end) => {
    const { redis, admin } = await server();
    const world = await open({ redisUrl: redis.url });
    const cookie = await world.login('alice');
    const { refresh } = await exchangeNative(world, cookie);
    await begin(admin);
    await expect.poll(async () => await stateOf(world)).toBe(state);
    expect(await world.bridge.readiness()).toMatchObject({ ready: true, canIssue: false });
    const refused = await world.watching(() => postExchange(world, cookie));
    await expectError(refused.result, 503, 'temporarily_unavailable');
    expect(refused.issued).toBe(0);
    await expectError(await postRefresh(world, refresh), 503, 'temporarily_unavailable');
    expect((await world.call('/me', { cookie })).status).toBe(200);
    // A replica is left again and again.
    await expect.poll(async () => await world.metrics()).toContain(`crossfade_redis_state{connection="bridge",state="${state}"} 1`);
    expect(world.log.all).toContainEqual(expect.objectContaining({ msg: 'redis answers and cannot be used', connection: 'bridge', state }));
    const file = join(world.directory, 'cli.json');
    writeFileSync(file, JSON.stringify(world.config));
    const status = await runCli(['status', '--config', file]);
    // A replica is not believed: then that is all it says.
    expect(status.stdout + status.stderr).toContain(`(${state})`);
    await end(admin);
    await expect.poll(async () => (await world.bridge.readiness()).canIssue).toBe(true);
    expect((await postRefresh(world, refresh)).status).toBe(200);
    expect((await postExchange(world, cookie)).status).toBe(200);
  });

  it.each([
    ['reads', ['-@read']],
    ['these keys', ['resetkeys', '~other:*']],
    ['all but ROLE', ['-@all', '+role', '+ping']],
  ])('NOPERM for %s, in a store of records: it is named, and the instance is not ready', async (_, rules) => {
    const { redis, admin } = await server();
    const world = await open({ legacy: { redisUrl: redis.url } });
    const cookie = await world.login('alice');
    expect((await world.call('/me', { cookie })).status).toBe(200);
    await admin.call('ACL', 'SETUSER', 'keeper', 'on', 'nopass', '+@all', '~*');
    await admin.call('AUTH', 'keeper', '');
    await admin.call('ACL', 'SETUSER', 'default', ...rules);
    await expect.poll(async () => (await world.bridge.readiness()).ready).toBe(false);
    expect((await world.bridge.readiness()).parts).toMatchObject({ records: 'NOPERM' });
    expect((await world.bridge.readiness()).problems.join()).toContain('its ACL does not let this user do what the bridge needs');
    await expectError(await world.call('/me', { cookie }), 503, 'temporarily_unavailable');
    await admin.call('ACL', 'SETUSER', 'default', '+@all', '~*');
    await expect.poll(async () => (await world.bridge.readiness()).ready).toBe(true);
    expect((await world.call('/me', { cookie })).status).toBe(200);
  });

  it.each(['evalsha', 'pexpire', 'xread'])('NOPERM for %s alone, in the own Redis: it is named, and nothing is issued', async (command) => {
    const { redis, admin } = await server();
    const world = await open({ redisUrl: redis.url });
    await admin.call('ACL', 'SETUSER', 'keeper', 'on', 'nopass', '+@all', '~*');
    await admin.call('AUTH', 'keeper', '');
    await admin.call('ACL', 'SETUSER', 'default', `-${command}`);
    await expect.poll(async () => await stateOf(world)).toBe('NOPERM');
    expect((await world.bridge.readiness()).problems.join()).toContain(`run ${command.toUpperCase()}`);
    expect((await world.bridge.readiness()).canIssue).toBe(false);
    await admin.call('ACL', 'SETUSER', 'default', '+@all');
    await expect.poll(async () => (await world.bridge.readiness()).canIssue, { timeout: 20_000 }).toBe(true);
  });

  it.each<[command: string, ready: boolean, logout: number, rules: string[]]>([
    ['GET', true, 204, ['-get']],
    ['PTTL', true, 204, ['-pttl']],
    ['DEL', true, 503, ['-del']],
    ['keys from this user', false, 503, ['resetkeys', '~crossfade-readiness*']],
  ])('NOPERM for %s, in a store of records, is named as soon as a request meets it', async (command, ready, logout, rules) => {
    const { redis, admin } = await server();
    const world = await open({ legacy: { redisUrl: redis.url } });
    const cookie = await world.login('alice');
    await exchangeNative(world, cookie);
    await admin.call('ACL', 'SETUSER', 'keeper', 'on', 'nopass', '+@all', '~*');
    await admin.call('AUTH', 'keeper', '');
    await admin.call('ACL', 'SETUSER', 'default', ...rules);
    await postExchange(world, cookie);
    expect((await postAsBrowser(world, '/auth/logout', cookie)).status).toBe(logout);
    await expect.poll(async () => (await world.bridge.readiness()).problems.join()).toContain(command);
    expect(await world.bridge.readiness()).toMatchObject({ ready, canIssue: false });
    await admin.call('ACL', 'SETUSER', 'default', '+@all', '~*');
    await expect.poll(async () => (await world.bridge.readiness()).canIssue, { timeout: 30_000 }).toBe(true);
    expect((await postAsBrowser(world, '/auth/logout', cookie)).status).toBe(204);
  });

  it('MASTERDOWN: nothing is issued, and it recovers by itself', async () => {
    const { redis, admin } = await server();
    const world = await open({ redisUrl: redis.url });
    const cookie = await world.login('alice');
    await admin.config('SET', 'replica-serve-stale-data', 'no');
    await admin.replicaof('127.0.0.1', '1');
    // A write is answered READONLY, a read MASTERDOWN: either may be what was heard last.
    await expect.poll(async () => await stateOf(world)).toMatch(/^(MASTERDOWN|READONLY)$/);
    await expectError(await postExchange(world, cookie), 503, 'temporarily_unavailable');
    expect((await world.call('/me', { cookie })).status).toBe(200);
    await admin.replicaof('NO', 'ONE');
    await expect.poll(async () => (await world.bridge.readiness()).canIssue).toBe(true);
    expect((await postExchange(world, cookie)).status).toBe(200);
  });

  it('LOADING: nothing is issued, it is named, sessions go on, and it recovers by itself', async () => {
    const { redis, admin } = await server('--enable-debug-command', 'yes', '--loading-process-events-interval-bytes', '1024');
    const world = await open({ redisUrl: redis.url });
    const cookie = await world.login('alice');
    const { refresh } = await exchangeNative(world, cookie);
    await admin.mset(Object.fromEntries(Array.from({ length: 10_000 }, (_, n) => [`ballast-${n}`, String(n)])));
    // In µs for each key, until it is set back: it may be while it loads.
    await admin.config('SET', 'key-load-delay', '10000');
    const reloading = new Redis(redis.url);
    closing.push(() => reloading.disconnect());
    const reloaded = reloading.call('DEBUG', 'RELOAD');
    await expect.poll(async () => await stateOf(world)).toBe('LOADING');
    const refused = await world.watching(() => postExchange(world, cookie));
    await expectError(refused.result, 503, 'temporarily_unavailable');
    expect(refused.issued).toBe(0);
    await expectError(await postRefresh(world, refresh), 503, 'temporarily_unavailable');
    expect((await world.call('/me', { cookie })).status).toBe(200);
    expect((await world.bridge.readiness()).problems.join()).toContain('it is still loading its data (LOADING)');
    await admin.config('SET', 'key-load-delay', '0');
    await reloaded;
    await expect.poll(async () => (await world.bridge.readiness()).canIssue).toBe(true);
    expect((await postRefresh(world, refresh)).status).toBe(200);
    expect((await postExchange(world, cookie)).status).toBe(200);
  });

  it('MISCONF is named as well', async () => {
    const { redis, admin } = await server();
    const world = await open({ redisUrl: redis.url });
    // Where the file should be, there is a directory: it cannot be saved.
    const [, dir = ''] = Object.values(await admin.config('GET', 'dir')).map(String);
    mkdirSync(join(dir, 'dump.rdb', 'in-the-way'), { recursive: true });
    await admin.config('SET', 'save', '1 1');
    await admin.config('SET', 'stop-writes-on-bgsave-error', 'yes');
    await admin.bgsave();
    await expect.poll(async () => await stateOf(world), { timeout: 15_000 }).toBe('MISCONF');
  });

  it('wants a password that it did not want before: named, and used once the file has it', async () => {
    const { redis, admin } = await server();
    const password = 'a-password-that-came-later-71fe';
    remember(password);
    const world = await open({
      redisUrl: redis.url,
      prepare: (at) => {
        writeFileSync(join(at, 'redis-password'), 'the-wrong-one\n');
        writeKeyOf(at);
      },
      configure: (config) => ({ ...config, redis: { ...config.redis, passwordFile: 'redis-password' } }),
    });
    await admin.config('SET', 'requirepass', password);
    await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await expect
      .poll(async () => (await world.bridge.readiness()).problems.join())
      .toMatch(/127\.0\.0\.1:\d+: it refuses user or password \(WRONGPASS\)/);
    put(join(world.directory, 'redis-password'), password);
    await expect.poll(async () => (await world.bridge.readiness()).canIssue).toBe(true);
    expect((await postExchange(world, await world.login('alice'))).status).toBe(200);
    // What Redis refuses changes nothing, is named, and is used once Redis takes it: a secret store may be ahead.
    const later = 'a-password-that-came-later-still-88d0';
    remember(later);
    put(join(world.directory, 'redis-password'), later);
    await expect.poll(async () => (await world.bridge.readiness()).problems.join()).toContain('refuses the credentials that the files hold now');
    const authed = new Redis({ port: redis.port, password });
    closing.push(() => authed.disconnect());
    await authed.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await expect.poll(async () => (await postExchange(world, await world.login('alice'))).status, { timeout: 5000 }).toBe(200);
    await authed.config('SET', 'requirepass', later);
    await expect.poll(async () => (await world.bridge.readiness()).problems).toEqual([]);
    await authed.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await expect.poll(async () => (await postExchange(world, await world.login('alice'))).status, { timeout: 5000 }).toBe(200);
  });
});

describe('a managed failover: the old primary lives on as a replica, with living connections', () => {
  it("Law 1: of the bridge's own Redis: exchange and refresh go on at the new primary, and nothing of the old one is believed", async () => {
    const first = await server();
    const second = await server('--replicaof', '127.0.0.1', String(first.redis.port));
    const endpoint = await startTcpProxy(first.redis.url);
    closing.push(async () => await endpoint.close());
    const world = await open({ redisUrl: endpoint.url });
    const cookie = await world.login('alice');
    const { refresh, access } = await exchangeNative(world, cookie);
    await expect.poll(async () => await second.admin.info('replication')).toContain('master_link_status:up');
    // What a managed service does: the replica is promoted, the name leads to it, the old primary follows it. No connection is cut.
    endpoint.leadTo(second.redis.url);
    await second.admin.replicaof('NO', 'ONE');
    await first.admin.replicaof('127.0.0.1', String(second.redis.port));
    await expect.poll(async () => (await postRefresh(world, refresh)).status, { timeout: 15_000 }).toBe(200);
    await expect.poll(async () => await world.bridge.readiness()).toMatchObject({ ready: true, canIssue: true });
    expect((await postExchange(world, cookie)).status).toBe(200);
    expect((await world.call('/me', { bearer: access })).status).toBe(200);
    // The stream is followed at the new primary: a logout there reaches this instance.
    const other = await world.another();
    const late = await exchangeNative(other, cookie);
    expect((await other.post('/auth/logout', { client_id: 'android', refresh_token: late.refresh })).status).toBe(204);
    await expect.poll(async () => (await world.call('/me', { bearer: late.access })).status).toBe(401);
  });

  it('Law 1: of a store of records: cut off, the old primary is not believed, neither for a new login nor after a logout', async () => {
    const first = await server();
    const second = await server('--replicaof', '127.0.0.1', String(first.redis.port));
    const endpoint = await startTcpProxy(first.redis.url);
    closing.push(async () => await endpoint.close());
    const world = await open({
      legacy: { redisUrl: first.redis.url },
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, redis: { url: endpoint.url } })) }),
    });
    const leaves = await world.login('alice');
    const key = world.legacy.keys.at(-1) ?? '';
    expect((await world.call('/me', { cookie: leaves })).status).toBe(200);
    await expect.poll(async () => await second.admin.info('replication')).toContain('master_link_status:up');
    const record = (await first.admin.get(key)) ?? '';
    await second.admin.replicaof('NO', 'ONE');
    await first.admin.replicaof('127.0.0.1', '1');
    endpoint.leadTo(second.redis.url);
    await second.admin.del(key);
    await second.admin.set('11111111-2222-4333-8444-555555555555', record, 'PX', 60_000);
    // At the latest with the next probe the old one is not believed, and the new one is asked.
    await expect.poll(async () => (await world.call('/me', { cookie: leaves })).status, { timeout: 15_000, interval: 20 }).not.toBe(200);
    await expect.poll(async () => (await world.call('/me', { cookie: leaves })).status, { timeout: 15_000 }).toBe(401);
    expect(await world.metrics()).toContain('crossfade_redis_state{connection="web",state="up"} 1');
    // The world clears up through the address that it knows.
    await first.admin.replicaof('NO', 'ONE');
  });

  it('Law 1: of a store of records: the old primary seems to follow, and the name leads elsewhere: the new one is asked', async () => {
    const first = await server();
    const second = await server('--replicaof', '127.0.0.1', String(first.redis.port));
    const endpoint = await startTcpProxy(first.redis.url);
    // Between the two: what comes after the failover does not get through, and nobody is told.
    const link = await startTcpProxy(second.redis.url);
    closing.push(async () => {
      await endpoint.close();
      await link.close();
    });
    const world = await open({
      legacy: { redisUrl: first.redis.url },
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, redis: { url: endpoint.url } })) }),
    });
    const cookie = await world.login('alice');
    const key = world.legacy.keys.at(-1) ?? '';
    expect((await world.call('/me', { cookie })).status).toBe(200);
    await expect.poll(async () => await second.admin.info('replication')).toContain('master_link_status:up');
    await second.admin.replicaof('NO', 'ONE');
    await first.admin.replicaof('127.0.0.1', new URL(link.url).port);
    await expect.poll(async () => await first.admin.info('replication')).toContain('master_link_status:up');
    link.silence();
    await second.admin.del(key);
    endpoint.leadTo(second.redis.url);
    await expect.poll(async () => (await world.call('/me', { cookie })).status, { timeout: 15_000 }).toBe(401);
    expect(await first.admin.info('replication')).toContain('master_link_status:up');
    await first.admin.replicaof('NO', 'ONE');
  });

  it('the events are followed again where a server is a replica for a moment, and no connection is cut', async () => {
    const { redis, admin } = await server();
    const world = await open({ redisUrl: redis.url });
    await exchangeNative(world, await world.login('alice'));
    await admin.replicaof('127.0.0.1', '1');
    await expect.poll(async () => await world.metrics()).toContain('crossfade_redis_state{connection="events",state="READONLY"} 1');
    // Longer than connections are given up in a row.
    await expect
      .poll(async () => Number(/crossfade_redis_state\{connection="bridge",state="(READONLY)"\} 1/.test(await world.metrics())), { timeout: 5000 })
      .toBe(1);
    await admin.replicaof('NO', 'ONE');
    await expect.poll(async () => await world.metrics(), { timeout: 15_000 }).toContain('crossfade_redis_state{connection="events",state="up"} 1');
    await world.log.until((line) => line['msg'] === 'the event stream is followed again');
  });
});

describe('credentials in files that change', () => {
  it('new credentials that Redis takes, of a user who may do nothing, change nothing and are named', async () => {
    const { redis, admin } = await server();
    await admin.call('ACL', 'SETUSER', 'good', 'on', '>the-good-password-7c21', '~*', '&*', '+@all');
    await admin.call('ACL', 'SETUSER', 'poor', 'on', '>the-poor-password-9d40', '~nothing:*', '-@all', '+ping');
    remember('the-good-password-7c21', 'the-poor-password-9d40');
    const world = await open({
      redisUrl: redis.url,
      prepare: (at) => {
        writeFileSync(join(at, 'redis-url'), redis.url.replace('redis://', 'redis://good:the-good-password-7c21@'));
        writeKeyOf(at);
      },
      configure: (config) => ({ ...config, redis: { urlFile: 'redis-url', keyPrefix: config.redis.keyPrefix } }),
    });
    const cookie = await world.login('alice');
    expect((await postExchange(world, cookie)).status).toBe(200);
    put(join(world.directory, 'redis-url'), redis.url.replace('redis://', 'redis://poor:the-poor-password-9d40@'));
    await world.log.until((line) => String(line['msg']).startsWith('Redis refuses the credentials that the files hold now'));
    await expect.poll(async () => (await postExchange(world, cookie)).status).toBe(200);
    expect((await world.bridge.readiness()).problems.join()).toContain('Redis refuses the credentials that the files hold now');
    put(join(world.directory, 'redis-url'), redis.url.replace('redis://', 'redis://good:the-good-password-7c21@'));
    await expect.poll(async () => (await world.bridge.readiness()).problems, { timeout: 15_000 }).toEqual([]);
  });

  it('a rotated password is used in place: nothing is cut, news of records still comes, and later connections use it', async () => {
    const [old, next] = ['the-first-password-of-redis-0b52', 'the-second-password-of-redis-99c4'];
    remember(old, next);
    const { redis, admin: plain } = await server();
    plain.disconnect();
    const admin = new Redis({ host: '127.0.0.1', port: redis.port });
    closing.push(() => admin.disconnect());
    await admin.call('ACL', 'SETUSER', 'app', 'on', `>${old}`, '~*', '&*', '+@all');
    const files = (at: string) => {
      writeFileSync(join(at, 'redis-user'), 'app\n');
      writeFileSync(join(at, 'redis-password'), `${old}\n`);
      writeKeyOf(at);
    };
    const access = { usernameFile: 'redis-user', passwordFile: 'redis-password' };
    const world = await open({
      legacy: { redisUrl: redis.url },
      redisUrl: redis.url,
      prepare: files,
      configure: (config) => ({
        ...config,
        redis: { ...config.redis, ...access },
        sessions: (config.sessions ?? []).map((session) => ({ ...session, redis: { ...session.redis, ...access } })),
      }),
    });
    const cookie = await world.login('alice');
    const tokens = await exchangeNative(world, cookie);
    await admin.call('ACL', 'SETUSER', 'app', 'resetpass', `>${next}`);
    put(join(world.directory, 'redis-password'), next);
    await world.log.until((line) => line['audit'] === 'secret.changed' && line['setting'] === 'redis');
    await expect.poll(async () => Number(/cmdstat_auth:calls=(\d+)/.exec(await admin.info('commandstats'))?.[1] ?? 0)).toBeGreaterThanOrEqual(2);
    expect((await postRefresh(world, tokens.refresh)).status).toBe(200);
    expect(world.log.all.filter((line) => line['msg'] === 'redis is away; trying again')).toEqual([]);
    // Tracking goes on: a logout at the app ends the tokens at once.
    await world.legacy.logout(cookie);
    await expect.poll(async () => (await world.call('/me', { bearer: tokens.access })).status).toBe(401);
    // And all of them are opened anew with the new one.
    await admin.call('CLIENT', 'KILL', 'USER', 'app');
    await expect.poll(async () => (await world.bridge.readiness()).canIssue, { timeout: 15_000 }).toBe(true);
    expect((await postExchange(world, await world.login('bob'))).status).toBe(200);
    // A bad new file changes nothing, and is named.
    put(join(world.directory, 'redis-password'), '\n');
    await world.log.until((line) => line['audit'] === 'secret.rejected');
    expect((await postExchange(world, await world.login('bob'))).status).toBe(200);
  });

  it('a Cluster with TLS and certificates of names: password and CA change, and all connections are made anew with them', async () => {
    const [old, next] = ['the-first-password-of-the-cluster-33', 'the-second-password-of-the-cluster-44'];
    remember(old, next);
    const other = createAuthority();
    closing.push(() => other.remove());
    const servers = await startCluster({
      tls: { certificate: authority.issue('DNS:localhost'), caFile: authority.caFile, ca: authority.ca },
      password: old,
    });
    closing.push(async () => await servers.stop());
    const admins = servers.servers.map(({ port }) => new Redis({ host: '127.0.0.1', port, password: old, tls: { rejectUnauthorized: false } }));
    closing.push(() => admins.forEach((admin) => void admin.disconnect()));
    const world = await open({
      prepare: (at) => {
        writeFileSync(join(at, 'redis-password'), old);
        writeFileSync(join(at, 'ca.pem'), authority.ca);
        writeKeyOf(at);
      },
      configure: (config) => ({
        ...config,
        redis: {
          cluster: [...servers.nodes],
          passwordFile: 'redis-password',
          tls: { caFile: 'ca.pem' },
          keyPrefix: config.redis.keyPrefix,
          commandTimeoutMs: 500,
        },
      }),
    });
    const { refresh } = await exchangeNative(world, await world.login('alice'));
    const { cert, key } = other.issue('DNS:localhost');
    put(join(world.directory, 'ca.pem'), `${authority.ca}${other.ca}`);
    put(join(world.directory, 'redis-password'), next);
    await world.log.until((line) => line['audit'] === 'secret.changed');
    for (const admin of admins) {
      await admin.config('SET', 'requirepass', next);
      await admin.call('CONFIG', 'SET', 'tls-cert-file', cert, 'tls-key-file', key);
      await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    }
    await expect.poll(async () => (await postRefresh(world, refresh)).status, { timeout: 20_000 }).toBe(200);
    await expect.poll(async () => await world.bridge.readiness(), { timeout: 15_000 }).toMatchObject({ canIssue: true });
  });
});

/** A Redis that speaks TLS with a certificate of `by`, on a port that stays its own. */
async function tlsServer(port: number, by: Authority, ...args: string[]): Promise<PrivateRedis> {
  const redis = await startRedis({ port, ca: by.ca, args: [...tlsArgs(by.issue('DNS:localhost,IP:127.0.0.1'), by.caFile), ...args] });
  closing.push(async () => await redis.stop());
  return redis;
}

async function worldOverTls(port: number): Promise<World> {
  return await open({
    prepare: (at) => {
      writeFileSync(join(at, 'ca.pem'), authority.ca);
      writeFileSync(join(at, 'redis-password'), OLD_PASSWORD);
      writeKeyOf(at);
    },
    configure: ({ redis: { keyPrefix }, ...config }) => ({
      ...config,
      redis: { url: `rediss://127.0.0.1:${port}`, passwordFile: 'redis-password', tls: { caFile: 'ca.pem' }, keyPrefix, commandTimeoutMs: 500 },
    }),
  });
}

const [OLD_PASSWORD, NEW_PASSWORD, WRONG_PASSWORD] = ['the-password-before-2f71', 'the-password-after-8c05', 'a-wrong-password-77aa'];
const exchangeStatus = async (world: World) => (await postExchange(world, await world.login('alice'))).status;
const problemsOf = async (world: World) => (await world.bridge.readiness()).problems.join();

describe('files that change while Redis is away, or in parts', () => {
  it('two wrong passwords one after the other change nothing: what was good is used when Redis is back', async () => {
    remember(OLD_PASSWORD, WRONG_PASSWORD);
    const port = await freePort();
    const first = await tlsServer(port, authority, '--requirepass', OLD_PASSWORD);
    const world = await worldOverTls(port);
    expect(await exchangeStatus(world)).toBe(200);
    await first.stop();
    await expect.poll(async () => await stateOf(world)).toBe('away');
    const changes = () => world.log.audits('secret.changed').length;
    put(join(world.directory, 'redis-password'), WRONG_PASSWORD);
    await expect.poll(changes).toBe(1);
    put(join(world.directory, 'redis-password'), `${WRONG_PASSWORD}-too`);
    await expect.poll(changes).toBe(2);
    await tlsServer(port, authority, '--requirepass', OLD_PASSWORD);
    await expect.poll(async () => await exchangeStatus(world), { timeout: 15_000 }).toBe(200);
    await expect.poll(async () => await problemsOf(world)).toContain('Redis refuses the credentials that the files hold now');
  }, 40_000);

  it('a broken CA file keeps no rotated password out', async () => {
    remember(OLD_PASSWORD, NEW_PASSWORD);
    const port = await freePort();
    await tlsServer(port, authority, '--requirepass', OLD_PASSWORD);
    const admin = new Redis({ host: '127.0.0.1', port, password: OLD_PASSWORD, tls: { rejectUnauthorized: false } });
    closing.push(() => admin.disconnect());
    const world = await worldOverTls(port);
    put(join(world.directory, 'ca.pem'), 'half of a certif');
    await world.log.until((line) => line['audit'] === 'secret.rejected');
    await admin.config('SET', 'requirepass', NEW_PASSWORD);
    put(join(world.directory, 'redis-password'), NEW_PASSWORD);
    await world.log.until((line) => line['audit'] === 'secret.changed');
    await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await expect.poll(async () => await exchangeStatus(world), { timeout: 15_000 }).toBe(200);
  }, 40_000);

  it('a CA that was taken out is not believed again, also where Redis had a fault when the new one was taken', async () => {
    remember(OLD_PASSWORD);
    const other = createAuthority();
    closing.push(() => other.remove());
    const port = await freePort();
    const first = await tlsServer(port, authority, '--requirepass', OLD_PASSWORD);
    const world = await worldOverTls(port);
    await first.stop();
    put(join(world.directory, 'ca.pem'), other.ca);
    const second = await tlsServer(port, other, '--requirepass', OLD_PASSWORD, '--min-replicas-to-write', '1');
    await expect.poll(async () => await stateOf(world), { timeout: 15_000 }).toBe('NOREPLICAS');
    await second.stop();
    await tlsServer(port, authority, '--requirepass', OLD_PASSWORD);
    await expect.poll(async () => await problemsOf(world), { timeout: 15_000 }).toContain('its certificate is from a CA that is not known here');
    expect(await exchangeStatus(world)).toBe(503);
  }, 40_000);

  it('a user who may write, and not by scripts or streams, changes nothing and is named', async () => {
    const { redis, admin } = await server();
    remember(OLD_PASSWORD, NEW_PASSWORD, WRONG_PASSWORD);
    await admin.call('ACL', 'SETUSER', 'good', 'on', `>${OLD_PASSWORD}`, '~*', '&*', '+@all');
    await admin.call('ACL', 'SETUSER', 'no-scripts', 'on', `>${NEW_PASSWORD}`, '~*', '&*', '+@all', '-@scripting');
    await admin.call('ACL', 'SETUSER', 'no-streams', 'on', `>${WRONG_PASSWORD}`, '~*', '&*', '+@all', '-@stream');
    const urlOf = (user: string, password: string) => redis.url.replace('redis://', `redis://${user}:${password}@`);
    const world = await open({
      prepare: (at) => {
        writeFileSync(join(at, 'redis-url'), urlOf('good', OLD_PASSWORD));
        writeKeyOf(at);
      },
      configure: (config) => ({ ...config, redis: { urlFile: 'redis-url', keyPrefix: config.redis.keyPrefix } }),
    });
    for (const [user, password] of [
      ['no-scripts', NEW_PASSWORD],
      ['no-streams', WRONG_PASSWORD],
    ] as const) {
      put(join(world.directory, 'redis-url'), urlOf(user, password));
      await expect.poll(async () => await problemsOf(world), { timeout: 15_000 }).toContain('Redis refuses the credentials that the files hold now');
      await expect.poll(async () => await exchangeStatus(world)).toBe(200);
      put(join(world.directory, 'redis-url'), urlOf('good', OLD_PASSWORD));
      await expect.poll(async () => await problemsOf(world), { timeout: 15_000 }).toBe('');
    }
  }, 60_000);
});

describe('a CA file that changes', () => {
  it('of a CA that is not the one of Redis: the CA before stays in force and the new one is named, until Redis shows its certificate', async () => {
    const other = createAuthority();
    closing.push(() => other.remove());
    const { cert, key } = other.issue('DNS:localhost,IP:127.0.0.1');
    const redis = await startRedis({ ca: authority.ca, args: tlsArgs(authority.issue('DNS:localhost,IP:127.0.0.1'), authority.caFile) });
    const admin = new Redis({ host: '127.0.0.1', port: redis.port, tls: { rejectUnauthorized: false } });
    admin.on('error', () => undefined);
    closing.push(async () => {
      admin.disconnect();
      await redis.stop();
    });
    const world = await open({
      prepare: (at) => {
        writeFileSync(join(at, 'ca.pem'), authority.ca);
        writeKeyOf(at);
      },
      configure: ({ redis: { keyPrefix }, ...config }) => ({
        ...config,
        redis: { url: `rediss://127.0.0.1:${redis.port}`, tls: { caFile: 'ca.pem' }, keyPrefix, commandTimeoutMs: 500 },
      }),
    });
    const { refresh } = await exchangeNative(world, await world.login('alice'));
    put(join(world.directory, 'ca.pem'), other.ca);
    const named = 'the certificate of Redis is not from the CA that tls.caFile holds now';
    await world.log.until((line) => String(line['msg']).startsWith(named));
    expect((await world.bridge.readiness()).problems.join()).toContain(`bridge: ${named}`);
    // All connections are made anew, with the CA before.
    const connections = async () => (await admin.info('stats')).match(/total_connections_received:(\d+)/)?.[1];
    const before = Number(await connections());
    await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await expect.poll(async () => Number(await connections())).toBeGreaterThan(before);
    await expect.poll(async () => (await world.bridge.readiness()).canIssue, { timeout: 15_000 }).toBe(true);
    const refreshed = await postRefresh(world, refresh);
    expect(refreshed.status).toBe(200);
    // Redis gets the certificate for which the file was made.
    await admin.call('CONFIG', 'SET', 'tls-cert-file', cert, 'tls-key-file', key);
    await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await expect.poll(async () => await world.bridge.readiness(), { timeout: 15_000 }).toMatchObject({ canIssue: true, problems: [] });
    expect((await postExchange(world, await world.login('bob'))).status).toBe(200);
    // And the CA that the file has lost is not believed again.
    const { cert: oldCert, key: oldKey } = authority.issue('DNS:localhost,IP:127.0.0.1');
    await admin.call('CONFIG', 'SET', 'tls-cert-file', oldCert, 'tls-key-file', oldKey);
    await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await expect.poll(async () => (await world.bridge.readiness()).problems.join()).toContain('its certificate is from a CA that is not known here');
    expect((await postExchange(world, await world.login('bob'))).status).toBe(503);
  });

  it('behind sentinels: a CA and a password that a sentinel refuses change nothing and are named', async () => {
    const [good, wrong] = ['the-password-of-the-sentinel-62d1', 'the-wrong-password-of-the-sentinel-0f3e'];
    remember(good, wrong);
    const other = createAuthority();
    closing.push(() => other.remove());
    const setup = await startSentinel({
      tls: { certificate: authority.issue('DNS:localhost,IP:127.0.0.1'), caFile: authority.caFile, ca: authority.ca },
      sentinelLines: [`requirepass ${good}`, `sentinel sentinel-pass ${good}`],
    });
    closing.push(async () => await setup.stop());
    const world = await open({
      prepare: (at) => {
        for (const name of ['ca.pem', 'sentinel-ca.pem']) writeFileSync(join(at, name), authority.ca);
        writeFileSync(join(at, 'sentinel-password'), good);
        writeKeyOf(at);
      },
      configure: ({ redis: { keyPrefix }, ...config }) => ({
        ...config,
        redis: {
          sentinels: [{ host: '127.0.0.1', port: setup.sentinel.port }],
          name: MASTER_NAME,
          tls: { caFile: 'ca.pem' },
          sentinelTls: { caFile: 'sentinel-ca.pem' },
          sentinelPasswordFile: 'sentinel-password',
          keyPrefix,
          commandTimeoutMs: 500,
        },
      }),
    });
    expect((await postExchange(world, await world.login('alice'))).status).toBe(200);
    put(join(world.directory, 'sentinel-ca.pem'), other.ca);
    await expect.poll(async () => (await world.bridge.readiness()).problems.join()).toContain('the certificate of a sentinel is not from the CA');
    put(join(world.directory, 'sentinel-ca.pem'), authority.ca);
    await expect.poll(async () => (await world.bridge.readiness()).problems).toEqual([]);
    put(join(world.directory, 'sentinel-password'), wrong);
    await expect
      .poll(async () => (await world.bridge.readiness()).problems.join())
      .toContain('a sentinel refuses the credentials that the files hold now');
    // A failover: the sentinel is asked with what was good.
    await setup.primary.stop();
    await expect.poll(async () => (await postExchange(world, await world.login('bob'))).status, { timeout: 20_000 }).toBe(503);
    await expect.poll(async () => (await postExchange(world, await world.login('bob'))).status, { timeout: 20_000 }).toBe(200);
  }, 60_000);
});

describe('Law 7: a TLS handshake that fails never ends the process', () => {
  it.each(['single', 'sentinel', 'cluster'] as const)('%s: serve meets certificates of another name, twice in one read, and lives', async (mode) => {
    const tls = { certificate: authority.issue('DNS:elsewhere.test'), caFile: authority.caFile, ca: authority.ca };
    const redis = await startRedis({ ca: authority.ca, args: tlsArgs(tls.certificate, tls.caFile) });
    closing.push(async () => await redis.stop());
    // Holds back what the server says until the client has given up: then both errors come at once.
    const proxy = await startHoldingProxy(redis.port);
    closing.push(async () => await proxy.close());
    const node = { host: '127.0.0.1', port: proxy.port };
    const target =
      mode === 'single'
        ? { url: `rediss://127.0.0.1:${proxy.port}` }
        : mode === 'cluster'
          ? { cluster: [node] }
          : { sentinels: [node], name: MASTER_NAME };
    const world = await open();
    const service = await startService(world, (config) => ({
      ...config,
      redis: { ...target, tls: { caFile: resolve(authority.caFile) }, keyPrefix: 'crossfade-tls:', commandTimeoutMs: 50 },
    }));
    closing.push(async () => await service.stop());
    await expect.poll(() => proxy.held, { timeout: 20_000 }).toBeGreaterThan(10);
    expect(service.cli.process.exitCode).toBeNull();
    expect((await fetch(`${service.admin}/healthz`)).status).toBe(200);
    expect((await fetch(`${service.url}/auth/verify`, { headers: { cookie: await world.login('alice') } })).status).toBe(200);
  });
});

describe('a Cluster with a dead master', () => {
  it('names the shard, stays ready, and answers what lives in the others', async () => {
    const servers = await startCluster();
    closing.push(async () => await servers.stop());
    const world = await open({ configure: (config) => ({ ...config, redis: { cluster: [...servers.nodes], keyPrefix: config.redis.keyPrefix } }) });
    await exchangeNative(world, await world.login('alice'));
    await servers.servers[2]?.stop();
    await expect
      .poll(async () => (await world.bridge.readiness()).problems.join('\n'), { timeout: 15_000 })
      .toMatch(new RegExp(`127\\.0\\.0\\.1:${servers.servers[2]?.port}`));
    expect(world.log.all.some((line) => line['msg'] === 'a part of the Redis Cluster cannot be used' || line['state'] === 'CLUSTERDOWN')).toBe(true);
    const file = join(world.directory, 'cli.json');
    writeFileSync(file, JSON.stringify(world.config));
    for (const command of ['check', 'status', 'keys list']) {
      const told = await runCli([...command.split(' '), '--config', file]);
      // What is left of the Cluster may say first that it is down.
      const named = `127\\.0\\.0\\.1:${servers.servers[2]?.port}: (nothing listens there|it cannot be reached)|127\\.0\\.0\\.1:\\d+: .*\\(CLUSTERDOWN\\)`;
      expect(told.stdout + told.stderr, command).toMatch(new RegExp(named));
    }
  });
});

describe('behind sentinels', () => {
  it('Law 1: the primary dies under load: sessions go on, and exchanges are back at the new one', async () => {
    const setup = await startSentinel();
    closing.push(async () => await setup.stop());
    const world = await open({
      configure: (config) => ({
        ...config,
        redis: { sentinels: [{ host: '127.0.0.1', port: setup.sentinel.port }], name: MASTER_NAME, keyPrefix: config.redis.keyPrefix },
      }),
    });
    const cookie = await world.login('alice');
    const { refresh } = await exchangeNative(world, cookie);
    const replica = new Redis(setup.replica.url);
    closing.push(() => replica.disconnect());
    await expect.poll(async () => await replica.exists(`${world.prefix}clamps`, `${world.prefix}jwks`)).toBeGreaterThan(0);
    await setup.primary.stop();
    const seen = new Set<number>();
    await expect
      .poll(
        async () => {
          seen.add((await world.call('/me', { cookie })).status);
          return (await postRefresh(world, refresh)).status;
        },
        { timeout: 20_000 },
      )
      .toBe(200);
    expect([...seen]).toEqual([200]);
  });

  it('Law 6: an old primary that never hears of the failover, and calls itself one, is not believed: the sentinels are', async () => {
    const setup = await startSentinel({
      args: ['--user', 'watcher', 'on', '>watching', '~*', '&*', '+@all'],
      sentinelLines: [`sentinel auth-user ${MASTER_NAME} watcher`, `sentinel auth-pass ${MASTER_NAME} watching`],
    });
    closing.push(async () => await setup.stop());
    const [old, replica, sentinel] = [setup.primary, setup.replica, setup.sentinel].map(({ url }) => new Redis(url));
    closing.push(() => void [old, replica, sentinel].map((client) => client?.disconnect()));
    const behind = { sentinels: [{ host: '127.0.0.1', port: setup.sentinel.port }], name: MASTER_NAME };
    const world = await open({
      configure: (config) => ({
        ...config,
        redis: { ...behind, keyPrefix: config.redis.keyPrefix },
        sessions: (config.sessions ?? []).map((session) => ({ ...session, redis: behind })),
      }),
    });
    // As where it is cut off from sentinels and replicas: nobody makes it a replica.
    await old?.call('acl', 'setuser', 'watcher', '-slaveof', '-replicaof');
    const cookie = await world.login('alice');
    const record = { user: { id: 'u-alice', loggedInAt: Date.now() }, _expire: Date.now() + 600_000 };
    const [key = ''] = world.legacy.keys.slice(-1);
    await old?.set(key, JSON.stringify(record), 'PX', 600_000);
    expect((await world.call('/me', { cookie })).status).toBe(200);
    await expect.poll(async () => await replica?.exists(key, `${world.prefix}jwks`)).toBe(2);
    await sentinel?.call('sentinel', 'failover', MASTER_NAME);
    await expect
      .poll(async () => String(await sentinel?.call('sentinel', 'get-master-addr-by-name', MASTER_NAME)), { timeout: 20_000 })
      .toContain(String(setup.replica.port));
    // At the new primary somebody logs out.
    await expect.poll(async () => await replica?.del(key).catch(() => 0), { timeout: 20_000 }).toBe(1);
    const seen: number[] = [];
    await expect
      .poll(
        async () => {
          seen.push((await world.call('/me', { cookie })).status);
          return seen.at(-1);
        },
        { timeout: 15_000 },
      )
      .toBe(401);
    expect(seen.slice(seen.indexOf(503)).filter((status) => status === 200)).toEqual([]);
    const other = await world.login('bob');
    const [mine = ''] = world.legacy.keys.slice(-1);
    await replica?.set(mine, JSON.stringify({ ...record, user: { id: 'u-bob' } }), 'PX', 600_000);
    await expect.poll(async () => (await postExchange(world, other)).status, { timeout: 15_000 }).toBe(200);
    expect(await replica?.keys(`${world.prefix}*:family:*`)).toHaveLength(1);
    expect(await old?.keys(`${world.prefix}*:family:*`)).toEqual([]);
    expect(await old?.call('role')).toEqual(expect.arrayContaining(['master']));
    expect(world.log.all.some((line) => line['state'] === 'REPLACED')).toBe(true);
  });
});

function writeKeyOf(at: string): void {
  writeKey(join(at, 'keys'), 'first.pem');
}
