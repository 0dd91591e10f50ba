import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy, type TcpProxy } from '../../scripts/lib/tcp-proxy.js';
import type { ConfigInput, ConfigProblem } from '../../src/config/config.js';
import { resolveTarget } from '../../src/config/redis-access.js';
import { bridgeRedisSchema } from '../../src/config/schema-entries.js';
import type { RedisConnection } from '../../src/redis/connection.js';
import { connectRedis } from '../../src/redis/probed-connection.js';
import { createLog } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { type Authority, createAuthority, tlsArgs } from '../support/certificates.js';
import { LogLines } from '../support/log-lines.js';
import { startCluster } from '../support/redis-cluster.js';
import { MASTER_NAME, startSentinel } from '../support/sentinel.js';
import { remember } from '../support/transcript.js';

type RedisInput = ConfigInput['redis'];

const PASSWORD = 'the-password-of-these-redis-servers-5c1e';
const SENTINEL_PASSWORD = 'the-password-of-the-sentinels-91d0';
const ACL = ['--user', 'app', 'on', `>${PASSWORD}`, '~*', '&*', '+@all', '--user', 'default', 'off'];

const SENTINEL_USER = `user watcher on >${SENTINEL_PASSWORD} ~* &* +@all`;

let authority: Authority;
let stranger: Authority;
let directory: string;
const closing: (() => unknown)[] = [];
beforeAll(() => {
  authority = createAuthority();
  stranger = createAuthority();
  directory = mkdtempSync(join(tmpdir(), 'crossfade-modes-'));
  writeFileSync(join(directory, 'password'), `${PASSWORD}\n`);
  writeFileSync(join(directory, 'sentinel-password'), `${SENTINEL_PASSWORD}\n`);
  remember(PASSWORD, SENTINEL_PASSWORD);
});
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});
afterAll(() => {
  authority.remove();
  stranger.remove();
  rmSync(directory, { recursive: true, force: true });
});

function connect(input: RedisInput, log = new LogLines()): RedisConnection {
  const problems: ConfigProblem[] = [];
  const target = resolveTarget(bridgeRedisSchema.parse(input), 'redis', (file) => resolve(directory, file), problems);
  expect(problems).toEqual([]);
  const connection = connectRedis(target, {
    name: 'test',
    commandTimeoutMs: 250,
    probe: 'write',
    probeKey: 'crossfade:v1:readiness',
    log: createLog({ destination: log }),
    metrics: createMetrics(),
  });
  closing.push(() => connection.close());
  return connection;
}

async function works(connection: RedisConnection): Promise<void> {
  expect(await connection.ready(10_000), connection.problem()).toBe(true);
  await connection.client.set('crossfade:v1:a', 'b');
  expect((await connection.reads.read(['crossfade:v1:a'])).values[0]?.toString()).toBe('b');
}

/** A tap before a port. What crosses a TLS connection in clear would be seen. */
async function tap(port: number): Promise<TcpProxy> {
  const proxy = await startTcpProxy(`redis://127.0.0.1:${port}`, { records: true });
  closing.push(async () => await proxy.close());
  return proxy;
}

const portOf = ({ url }: TcpProxy) => Number(new URL(url).port);
const tlsOf = (names = 'DNS:localhost,IP:127.0.0.1') => ({ certificate: authority.issue(names), caFile: authority.caFile, ca: authority.ca });

describe('a single server', () => {
  it.each<[string, readonly string[], RedisInput]>([
    ['open', [], {}],
    ['with a password', ['--requirepass', PASSWORD], { passwordFile: 'password' }],
    ['with an ACL user', ACL, { username: 'app', passwordFile: 'password' }],
  ])('%s works in plain text', async (_, args, more) => {
    const redis = await startRedis({ args });
    closing.push(async () => await redis.stop());
    await works(connect({ url: redis.url, ...more }));
  });

  it.each<[string, readonly string[], RedisInput]>([
    ['open', [], {}],
    ['with a password', ['--requirepass', PASSWORD], { passwordFile: 'password' }],
    ['with an ACL user', ACL, { username: 'app', passwordFile: 'password' }],
  ])('%s works with TLS only, and no secret crosses in clear', async (_, args, more) => {
    const { certificate, caFile, ca } = tlsOf();
    const redis = await startRedis({ ca, args: [...tlsArgs(certificate, caFile), ...args] });
    closing.push(async () => await redis.stop());
    const between = await tap(redis.port);
    for (const url of [`rediss://127.0.0.1:${portOf(between)}`, `redis://localhost:${portOf(between)}`]) {
      await works(connect({ url, tls: { caFile: authority.caFile }, ...more }));
    }
    expect([between.saw(PASSWORD), between.saw('crossfade:v1:a')]).toEqual([false, false]);
  });

  it('uses the database of its URL, and none where that cannot be selected', async () => {
    const redis = await startRedis();
    closing.push(async () => await redis.stop());
    await works(connect({ url: `redis://127.0.0.1:${redis.port}/3` }));
    const first = connect({ url: redis.url });
    await first.ready(5000);
    expect(await first.client.exists('crossfade:v1:a')).toBe(0);
    const wrong = connect({ url: `redis://127.0.0.1:${redis.port}/99` });
    await expect.poll(() => wrong.state).toBe('WRONGDB');
    await expect(wrong.client.set('crossfade:v1:stray', '1')).rejects.toThrow(/cannot be used yet \(WRONGDB\)/);
    expect(await first.client.exists('crossfade:v1:stray')).toBe(0);
  });
});

describe('behind sentinels', () => {
  it.each<[string, Parameters<typeof startSentinel>[0], RedisInput]>([
    ['open', {}, {}],
    ['with a password of the data nodes', { password: PASSWORD }, { passwordFile: 'password' }],
    [
      'with another password of the sentinels',
      { password: PASSWORD, sentinelLines: [`requirepass ${SENTINEL_PASSWORD}`, `sentinel sentinel-pass ${SENTINEL_PASSWORD}`] },
      { passwordFile: 'password', sentinelPasswordFile: 'sentinel-password' },
    ],
    ['with an ACL user of the data nodes', { password: PASSWORD, args: ACL.slice(0, -3) }, { username: 'app', passwordFile: 'password' }],
    [
      'with an ACL user of the sentinels',
      { sentinelLines: [SENTINEL_USER, 'user default off'] },
      { sentinelUsername: 'watcher', sentinelPasswordFile: 'sentinel-password' },
    ],
  ])('%s works in plain text', async (_, options, more) => {
    const setup = await startSentinel(options);
    closing.push(async () => await setup.stop());
    await works(connect({ sentinels: [{ host: '127.0.0.1', port: setup.sentinel.port }], name: MASTER_NAME, database: 2, ...more }));
  });

  it.each<[string, Parameters<typeof startSentinel>[0], RedisInput]>([
    [
      'passwords',
      { password: PASSWORD, sentinelLines: [`requirepass ${SENTINEL_PASSWORD}`, `sentinel sentinel-pass ${SENTINEL_PASSWORD}`] },
      { passwordFile: 'password', sentinelPasswordFile: 'sentinel-password' },
    ],
    [
      'ACL users',
      { password: PASSWORD, args: ACL.slice(0, -3), sentinelLines: [SENTINEL_USER, 'user default off'] },
      { username: 'app', passwordFile: 'password', sentinelUsername: 'watcher', sentinelPasswordFile: 'sentinel-password' },
    ],
  ])('works with TLS only on both and %s, and none crosses in clear', async (_, options, more) => {
    const setup = await startSentinel({ tls: tlsOf(), ...options });
    closing.push(async () => await setup.stop());
    const between = await tap(setup.sentinel.port);
    const tls = { caFile: authority.caFile };
    await works(connect({ sentinels: [{ host: '127.0.0.1', port: portOf(between) }], name: MASTER_NAME, tls, ...more }));
    expect([between.saw(PASSWORD), between.saw(SENTINEL_PASSWORD), between.saw('get-master-addr')]).toEqual([false, false, false]);
    expect([setup.saw(PASSWORD), setup.saw(SENTINEL_PASSWORD), setup.saw('crossfade:v1:a')], 'at the primary').toEqual([false, false, false]);
  });

  it('finds the new primary after a failover, and drops what it heard of the old one', async () => {
    const setup = await startSentinel();
    closing.push(async () => await setup.stop());
    const connection = connect({ sentinels: [{ host: '127.0.0.1', port: setup.sentinel.port }], name: MASTER_NAME });
    await works(connection);
    let lost = 0;
    connection.onLost(() => {
      lost += 1;
    });
    await setup.primary.stop();
    await expect.poll(() => connection.canWrite, { timeout: 15_000 }).toBe(false);
    await expect.poll(() => connection.canWrite, { timeout: 15_000 }).toBe(true);
    await connection.client.set('crossfade:v1:after', '1');
    expect(lost).toBeGreaterThan(0);
  });
});

describe('a Cluster', () => {
  it.each<[string, readonly string[], string | undefined, RedisInput]>([
    ['open', [], undefined, {}],
    ['with a password', [], PASSWORD, { passwordFile: 'password' }],
    ['with an ACL user', ACL.slice(0, -3), PASSWORD, { username: 'app', passwordFile: 'password' }],
  ])('%s works in plain text', async (_, args, password, more) => {
    const servers = await startCluster({ args, ...(password === undefined ? {} : { password }) });
    closing.push(async () => await servers.stop());
    await works(connect({ cluster: [...servers.nodes], ...more }));
  });

  it.each<[string, readonly string[], RedisInput]>([
    ['with a password', [], { passwordFile: 'password' }],
    ['with an ACL user', ACL, { username: 'app', passwordFile: 'password' }],
  ])('%s and certificates of names works with TLS only', async (_, args, more) => {
    const servers = await startCluster({ tls: tlsOf('DNS:localhost'), password: PASSWORD, args: args.slice(0, -3) });
    closing.push(async () => await servers.stop());
    await works(connect({ cluster: [...servers.nodes], tls: { caFile: authority.caFile }, ...more }));
  });
});

describe('why a connection fails', () => {
  async function problemOf(input: RedisInput): Promise<string> {
    const connection = connect(input);
    expect(await connection.ready(2500)).toBe(false);
    return connection.problem() ?? '';
  }

  async function tlsServer(names: string, days?: number, by = authority): Promise<number> {
    const redis = await startRedis({ ca: authority.ca, args: tlsArgs(by.issue(names, days), by.caFile) });
    closing.push(async () => await redis.stop());
    return redis.port;
  }

  it.each<[string, () => Promise<RedisInput>, RegExp]>([
    ['nothing listens', async () => ({ url: 'redis://127.0.0.1:1' }), /^127\.0\.0\.1:1: nothing listens there \(ECONNREFUSED\)$/],
    [
      'no such name',
      async () => ({ url: 'redis://no-such-host.invalid' }),
      /^no-such-host\.invalid:6379: (no such name in the DNS|the DNS does not answer)/,
    ],
    [
      'another name in the certificate',
      async () => ({ url: `rediss://127.0.0.1:${await tlsServer('DNS:elsewhere.test')}`, tls: { caFile: authority.caFile } }),
      /^127\.0\.0\.1:\d+: its certificate is for another name \(DNS:elsewhere\.test\): set tls\.servername$/,
    ],
    [
      'an unknown CA',
      async () => ({ url: `rediss://localhost:${await tlsServer('DNS:localhost', 30, stranger)}`, tls: { caFile: authority.caFile } }),
      /its certificate is from a CA that is not known here: set tls\.caFile/,
    ],
    [
      'an expired certificate',
      async () => ({ url: `rediss://localhost:${await tlsServer('DNS:localhost', -1)}`, tls: { caFile: authority.caFile } }),
      /its certificate has expired \(CERT_HAS_EXPIRED\)/,
    ],
    [
      'plain text to a TLS port',
      async () => ({ url: `redis://localhost:${await tlsServer('DNS:localhost')}` }),
      /does it want TLS|closed the connection/,
    ],
    [
      'TLS to a plain port',
      async () => {
        const redis = await startRedis();
        closing.push(async () => await redis.stop());
        return { url: `rediss://localhost:${redis.port}` };
      },
      /no answer in time|does not speak TLS|closed the connection/,
    ],
    [
      'a wrong password',
      async () => {
        const redis = await startRedis({ args: ['--requirepass', 'another'] });
        closing.push(async () => await redis.stop());
        return { url: redis.url, passwordFile: 'password' };
      },
      /it refuses user or password \(WRONGPASS\)/,
    ],
    [
      'no password',
      async () => {
        const redis = await startRedis({ args: ['--requirepass', PASSWORD] });
        closing.push(async () => await redis.stop());
        return { url: redis.url };
      },
      /it wants a password: set username and passwordFile/,
    ],
    [
      'a Cluster whose certificates are of another name',
      async () => {
        const servers = await startCluster({ tls: tlsOf('DNS:elsewhere.test') });
        closing.push(async () => await servers.stop());
        return { cluster: [...servers.nodes], tls: { caFile: authority.caFile } };
      },
      /its certificate is for another name/,
    ],
    [
      'sentinels whose certificates are of another name',
      async () => {
        const setup = await startSentinel({ tls: tlsOf('DNS:elsewhere.test') });
        closing.push(async () => await setup.stop());
        return { sentinels: [{ host: '127.0.0.1', port: setup.sentinel.port }], name: MASTER_NAME, tls: { caFile: authority.caFile } };
      },
      /^sentinel 127\.0\.0\.1:\d+: its certificate is for another name/,
    ],
  ])('%s is said in words, with host and port', async (_, make, words) => {
    expect(await problemOf(await make())).toMatch(words);
  });
});
