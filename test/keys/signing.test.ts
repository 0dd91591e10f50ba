import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeProtectedHeader } from 'jose';
import { describe, expect, it } from 'vitest';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { createBridge } from '../../src/compose/bridge.js';
import { resolveConfig } from '../../src/config/load.js';
import { createLog } from '../../src/telemetry/log.js';
import { expectError } from '../support/expect-error.js';
import { newPem, writeKey } from '../support/keys.js';
import { rawRequest } from '../support/raw-request.js';
import { useWorlds } from '../support/use-worlds.js';
import { sharedRedisUrl, type World, type WorldOptions } from '../support/world.js';

const open = useWorlds();

/** A world on the files and in the Redis of another one, as after a restart. */
async function restart(world: World, change: (keys: string) => void = () => undefined, options: WorldOptions = {}): Promise<World> {
  change(join(world.directory, 'keys'));
  return await open({
    legacy: { secrets: world.secrets },
    prepare: (directory) => {
      rmSync(join(directory, 'keys'), { recursive: true });
      symlinkSync(join(world.directory, 'keys'), join(directory, 'keys'));
      writeFileSync(join(directory, 'fleet-secret'), readFileSync(join(world.directory, 'fleet-secret')));
    },
    configure: (config) => ({ ...config, redis: { ...config.redis, keyPrefix: world.config.redis.keyPrefix ?? '' } }),
    ...options,
  });
}

function breakAll(keys: string): void {
  for (const name of readdirSync(keys)) writeFileSync(join(keys, name), 'not a key');
}

const stateOf = (world: World, state: string, from = 0) =>
  world.log.until((line) => line['audit'] === 'signing.changed' && line['to'] === state, from);

describe('a running instance', () => {
  it('Law 7: a corrupt file beside the good key degrades, and nobody notices', async () => {
    const world = await open();
    const cookie = await world.login('alice');
    const token = await world.token(cookie);
    writeKey(join(world.directory, 'keys'), 'second.pem', newPem().slice(0, 60));
    await stateOf(world, 'degraded');
    expect(world.bridge.signing()).toMatchObject({ state: 'degraded', canSign: true, problems: ['second.pem is cut off: no END line'] });
    expect((await world.exchange(cookie)).status).toBe(200);
    expect((await world.call('/orders', { bearer: token })).status).toBe(200);
    expect(world.log.audits('key.rejected')).toMatchObject([{ file: 'second.pem', reason: 'is cut off: no END line' }]);
    expect(await world.metrics()).toContain('crossfade_key_files_rejected 1');
    rmSync(join(world.directory, 'keys', 'second.pem'));
    await stateOf(
      world,
      'healthy',
      world.log.all.findIndex((line) => line['to'] === 'degraded'),
    );
  });

  it('K1, Law 7: the only key corrupted in place, or gone, keeps signing until a restart', async () => {
    const world = await open();
    const cookie = await world.login('alice');
    writeFileSync(join(world.directory, 'keys', 'first.pem'), '');
    await stateOf(world, 'degraded');
    expect((await world.exchange(cookie)).status).toBe(200);
    rmSync(join(world.directory, 'keys', 'first.pem'));
    await world.bridge.reloadKeys();
    expect(world.bridge.signing()).toMatchObject({
      state: 'degraded',
      problems: [expect.stringContaining('first.pem, which signs, is no longer in the directory')],
    });
    expect((await world.exchange(cookie)).status).toBe(200);
  });

  it.each([
    ['written in place', (path: string, text: string) => writeFileSync(path, text, { mode: 0o600 })],
    [
      'renamed over',
      (path: string, text: string) => {
        writeFileSync(`${path}.new`, text, { mode: 0o600 });
        renameSync(`${path}.new`, path);
      },
    ],
  ])('a new key, %s, is published at once and signs after keys.publishSeconds', async (_how, write) => {
    const world = await open({ configure: (config) => ({ ...config, keys: { publishSeconds: 900 } }) });
    const cookie = await world.login('alice');
    const before = decodeProtectedHeader(await world.token(cookie)).kid;
    write(join(world.directory, 'keys', 'second.pem'), newPem());
    const accepted = await world.log.until((line) => line['audit'] === 'key.accepted' && line['file'] === 'second.pem');
    await world.bridge.reloadKeys();
    const jwks: unknown = await (await world.call('/.well-known/jwks.json')).json();
    expect(jwks).toMatchObject({ keys: [{ kid: before }, { kid: accepted['kid'] }] });
    expect(decodeProtectedHeader(await world.token(cookie)).kid).toBe(before);
    expect(await world.metrics()).toContain('crossfade_keys{phase="next"} 1');
  });

  it('a new key signs at once with publishSeconds 0, and what the old one signed goes on', async () => {
    const world = await open({ configure: (config) => ({ ...config, keys: { publishSeconds: 0 } }) });
    const cookie = await world.login('alice');
    const old = await world.token(cookie);
    writeKey(join(world.directory, 'keys'), 'second.pem');
    const { kid } = await world.log.until((line) => line['audit'] === 'key.accepted' && line['file'] === 'second.pem');
    await world.log.until((line) => line['audit'] === 'key.activated' && line['kid'] === kid);
    expect(decodeProtectedHeader(await world.token(cookie)).kid).toBe(kid);
    expect((await world.call('/orders', { bearer: old })).status).toBe(200);
  });

  it('follows the ..data symlink of a mounted Kubernetes secret', async () => {
    const world = await open({
      configure: (config) => ({ ...config, keys: { publishSeconds: 0 } }),
      prepare: (directory) => {
        const keys = join(directory, 'keys');
        mkdirSync(join(keys, '..2026_1'));
        writeKey(join(keys, '..2026_1'), 'signing.pem');
        symlinkSync('..2026_1', join(keys, '..data'));
        symlinkSync('..data/signing.pem', join(keys, 'signing.pem'));
      },
    });
    const keys = join(world.directory, 'keys');
    const cookie = await world.login('alice');
    const before = decodeProtectedHeader(await world.token(cookie)).kid;
    const from = world.log.all.length;
    mkdirSync(join(keys, '..2026_2'));
    writeKey(join(keys, '..2026_2'), 'signing.pem');
    symlinkSync('..2026_2', join(keys, '..data_tmp'));
    renameSync(join(keys, '..data_tmp'), join(keys, '..data'));
    const { kid } = await world.log.until((line) => line['audit'] === 'key.activated', from);
    expect(kid).not.toBe(before);
    expect(decodeProtectedHeader(await world.token(cookie)).kid).toBe(kid);
  });

  it('refuses a key whose private half does not match its public half', async () => {
    const world = await open();
    const { createPrivateKey } = await import('node:crypto');
    const one = createPrivateKey(newPem()).export({ format: 'jwk' });
    const other = createPrivateKey(newPem()).export({ format: 'jwk' });
    writeKey(join(world.directory, 'keys'), 'mixed.jwk.json', JSON.stringify({ ...one, d: other.d }));
    expect(await world.log.until((line) => line['audit'] === 'key.rejected')).toMatchObject({
      file: 'mixed.jwk.json',
      reason: expect.stringContaining('may not match'),
    });
  });
});

describe('a restart', () => {
  it('K4, Law 7: with every key broken it serves sessions, verifies what was issued, and recovers without another restart', async () => {
    const before = await open();
    const cookie = await before.login('alice');
    const token = await before.token(cookie);
    const good = readFileSync(join(before.directory, 'keys', 'first.pem'), 'utf8');

    const after = await restart(before, breakAll);
    expect(after.bridge.signing()).toMatchObject({ state: 'broken', canSign: false });
    expect((await after.call('/orders', { cookie })).status).toBe(200);
    expect(await (await after.call('/orders', { bearer: token })).json()).toMatchObject({ principal: { subject: 'u-alice', via: 'jwt' } });
    await expectError(await after.exchange(cookie), 503, 'temporarily_unavailable');
    expect(await after.metrics()).toContain('crossfade_signing_health{state="broken"} 1');
    expect(await after.bridge.readiness()).toMatchObject({ ready: true, canIssue: false });
    const jwks = await after.call('/.well-known/jwks.json');
    expect({ status: jwks.status, body: await jwks.json() }).toMatchObject({
      status: 200,
      body: { keys: [{ kid: decodeProtectedHeader(token).kid }] },
    });

    writeFileSync(join(before.directory, 'keys', 'first.pem'), good, { mode: 0o600 });
    await stateOf(after, 'healthy');
    expect((await after.exchange(cookie)).status).toBe(200);
  });

  it('K4: with Redis away as well, bearers are 503 and nobody is told that a token is bad; it comes back by itself', async () => {
    const before = await open();
    const cookie = await before.login('alice');
    const token = await before.token(cookie);
    const proxy = await startTcpProxy(sharedRedisUrl());
    await proxy.cut();
    const after = await restart(before, breakAll, {
      configure: (config) => ({ ...config, redis: { url: proxy.url, keyPrefix: before.config.redis.keyPrefix ?? '' } }),
    });
    expect(await expectError(await after.call('/', { bearer: token }), 503, 'temporarily_unavailable')).toMatchObject({ reason: 'keys' });
    expect(await expectError(await after.call('/.well-known/jwks.json'), 503, 'temporarily_unavailable')).toMatchObject({ reason: 'keys' });
    expect((await after.call('/orders', { cookie, bearer: token })).status).toBe(200);
    await proxy.restore();
    await after.log.until((line) => line['msg'] === 'redis is ready' || line['msg'] === 'redis is back');
    await expect.poll(async () => (await after.call('/', { bearer: token })).status, { timeout: 10_000 }).toBe(200);
    await proxy.close();
  });

  it('K5: a JWKS without a key is never an empty 200', async () => {
    const world = await open({ prepare: (directory) => rmSync(join(directory, 'keys'), { recursive: true }) });
    const response = await world.call('/.well-known/jwks.json');
    expect(await expectError(response, 503, 'temporarily_unavailable')).toMatchObject({ reason: 'keys' });
    expect(response.headers.get('retry-after')).toMatch(/^([1-9]|10)$/);
  });

  it('a key that replaced the only one waits its time; what the old one signed goes on', async () => {
    const before = await open();
    const cookie = await before.login('alice');
    const token = await before.token(cookie);
    const after = await restart(before, (keys) => writeKey(keys, 'first.pem'));
    // First the one that lives has to verify it, and then the caches of the JWKS have to have had their time.
    expect(after.bridge.signing()).toMatchObject({ canSign: false, problems: [expect.stringContaining('is not verified yet by')] });
    await expect.poll(() => after.bridge.signing().problems.join(), { timeout: 10_000 }).toContain('keys.publishSeconds (900)');
    expect(after.bridge.signing().canSign).toBe(false);
    expect((await after.call('/orders', { bearer: token })).status).toBe(200);
    expect((await after.call('/orders', { cookie })).status).toBe(200);
  });

  it('an instance with keys.use: verify needs no key of its own', async () => {
    const before = await open();
    const token = await before.token(await before.login('alice'));
    const verifier = await restart(before, undefined, {
      prepare: (directory) => {
        rmSync(join(directory, 'keys'), { recursive: true });
        writeFileSync(join(directory, 'fleet-secret'), readFileSync(join(before.directory, 'fleet-secret')));
      },
      configure: (config) => ({ ...config, keys: { use: 'verify' }, redis: { ...config.redis, keyPrefix: before.config.redis.keyPrefix ?? '' } }),
    });
    expect((await verifier.call('/orders', { bearer: token })).status).toBe(200);
    await expectError(await verifier.exchange(await verifier.login('alice')), 503, 'temporarily_unavailable');
  });

  it('K8, Law 10: a public key written to Redis without the MAC counts as absent and is audited', async () => {
    const world = await open();
    const key = `${world.config.redis.keyPrefix}v1:jwks`;
    const forged: Record<string, unknown> = JSON.parse((await world.legacy.redis.get(key)) ?? '{}');
    const payload = String(forged['payload']).replace(/"x":"[^"]{4}/, '"x":"AAAA');
    await world.legacy.redis.set(key, JSON.stringify({ ...forged, version: 99, payload }));
    await world.bridge.reloadKeys();
    expect(world.log.audits('value.refused')).toMatchObject([{ key: 'jwks', reason: 'bad-mac' }]);
    const jwks = await (await world.call('/.well-known/jwks.json')).text();
    expect(jwks).not.toContain('"x":"AAAA');
    expect(await world.metrics()).toContain('crossfade_refused_values_total{key="jwks"} 1');
    expect((await world.exchange(await world.login('alice'))).status).toBe(200);
  });
});

describe('two instances with different keys on one Redis', () => {
  async function openPair(): Promise<{ first: World; second: World; cookie: string; token: string; jwksKey: string }> {
    const first = await open();
    const cookie = await first.login('alice');
    const second = await restart(first, undefined, {
      prepare: (directory) => {
        writeKey(join(directory, 'keys'), 'second.pem');
        writeFileSync(join(directory, 'fleet-secret'), first.readFile('fleet-secret'));
      },
    });
    return { first, second, cookie, token: await first.token(cookie), jwksKey: `${first.config.redis.keyPrefix}v1:jwks` };
  }

  it('the second does not sign while its key is new, and verifies what the first signed', async () => {
    const { second, token } = await openPair();
    expect(second.bridge.signing()).toMatchObject({ state: 'broken', canSign: false });
    expect((await second.call('/orders', { bearer: token })).status).toBe(200);
  });

  it.each([
    ['emptied', async (world: World, key: string) => await world.legacy.redis.del(key)],
    [
      'overwritten without the MAC',
      async (world: World, key: string) => await world.legacy.redis.set(key, '{"version":9,"payload":"{}","mac":"AAAA"}'),
    ],
  ])('Law 10: with their keys in Redis %s, nobody notices: what was learned stays, and nobody signs who had to wait', async (_what, fault) => {
    const { first, second, cookie, token, jwksKey } = await openPair();
    await fault(first, jwksKey);
    for (const world of [second, first, second]) {
      await world.bridge.reloadKeys();
      expect((await world.call('/orders', { bearer: token })).status).toBe(200);
    }
    expect(second.bridge.signing().canSign).toBe(false);
    expect((await first.exchange(cookie)).status).toBe(200);
    const jwks: unknown = await (await first.call('/.well-known/jwks.json')).json();
    expect(jwks).toMatchObject({ keys: [{}, {}] });
  });

  it('Law 10: after Redis came back empty and began its versions anew, an instance that only verifies keeps its keys', async () => {
    const { first, token, jwksKey } = await openPair();
    const verifier = await restart(first, undefined, {
      prepare: (directory) => {
        rmSync(join(directory, 'keys'), { recursive: true });
        writeFileSync(join(directory, 'fleet-secret'), first.readFile('fleet-secret'));
      },
      configure: (config) => ({ ...config, keys: { use: 'verify' }, redis: { ...config.redis, keyPrefix: first.config.redis.keyPrefix ?? '' } }),
    });
    await first.legacy.redis.del(jwksKey);
    const fresh = await restart(first);
    await verifier.bridge.reloadKeys();
    for (const world of [verifier, fresh, first]) expect((await world.call('/orders', { bearer: token })).status).toBe(200);
    await fresh.bridge.reloadKeys();
    expect((await fresh.exchange(await fresh.login('bob'))).status).toBe(200);
  });
});

describe('the JWKS as it is served', () => {
  it('has public members only, an ETag and a max-age, and answers 304', async () => {
    const world = await open();
    const first = await world.call('/.well-known/jwks.json');
    expect(first.headers.get('cache-control')).toBe('public, max-age=300');
    expect(await first.text()).not.toContain('"d"');
    const again = await rawRequest(`${world.url}/.well-known/jwks.json`, { headers: { 'if-none-match': first.headers.get('etag') ?? '' } });
    expect(again.status).toBe(304);
  });

  it('a bridge with a wrong config does not start, and one with no keys does', async () => {
    const world = await open();
    expect(() => resolveConfig({ ...world.config, issuer: 'ftp://x' }, { baseDir: world.directory })).toThrow(/issuer: must be an https URL/);
    const config = resolveConfig({ ...world.config, keys: { directory: 'nowhere' } }, { baseDir: world.directory });
    const bridge = await createBridge(config, { log: createLog({ level: 'silent' }) });
    expect(bridge.signing().state).toBe('broken');
    await bridge.close();
  });
});
