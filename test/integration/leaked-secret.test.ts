import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { calculateJwkThumbprint, decodeJwt, exportJWK, SignJWT } from 'jose';
import Keygrip from 'keygrip';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { Secret } from '../../src/config/secret.js';
import { deniedSecretsCodec } from '../../src/fleet/denied-secrets.js';
import { storedJwksCodec } from '../../src/keys/jwks.js';
import { FleetSecrets, nameOfSecret } from '../../src/redis/fleet-keyring.js';
import { type Codec, SignedValue } from '../../src/redis/signed-value.js';
import { clampsCodec } from '../../src/rollout/clamp.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { runCli } from '../support/cli.js';
import { expectError } from '../support/expect-error.js';
import { rotateFleetSecret } from '../support/fleet-secrets.js';
import type { Instance } from '../support/instance.js';
import { exchangeNative, postExchange, postRefresh, refreshNative } from '../support/tokens.js';
import { remember, rememberToken } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import { sharedRedisUrl, type World } from '../support/world.js';

// A thief has a fleet secret and can write to the bridge's Redis.

const open = useWorlds();

/** What the thief writes: any value, as the secret would sign it. */
function forge<T>(world: World, stolen: Secret, name: string, codec: Codec<T>): SignedValue<T> {
  return new SignedValue({
    client: world.legacy.redis,
    name,
    key: world.prefix + name,
    secrets: new FleetSecrets({ secrets: [stolen] }),
    codec,
    mayBegin: () => true,
    isAlone: () => true,
    isForced: () => true,
    audit: () => undefined,
    metrics: createMetrics(),
  });
}

async function thief(world: World, stolen: Secret) {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const jwk = await exportJWK(publicKey);
  const kid = await calculateJwkThumbprint(jwk);
  const key = { ...jwk, kid, alg: 'ES256', use: 'sig' };
  const isOfRead = (text: string) => storedJwksCodec.read(text);
  return {
    kid,
    /** A public key whose private half only the thief has. */
    async bringInKey() {
      const far = Date.now() + 9_000_000;
      const entry = { jwk: key, firstSeenAt: 1, lastSeenAt: far, signedAt: 1, lastSignedAt: far, keepMs: 9_000_000 };
      await forge(world, stolen, 'jwks', storedJwksCodec).update((current) => {
        const next = isOfRead(JSON.stringify({ keys: [entry], policies: [] }));
        return next && { ...next, keys: [...(current?.keys ?? []), ...next.keys], policies: current?.policies ?? [] };
      });
    },
    /** A token under that key, with the claims of a real one but for who it is. */
    async tokenLike(real: string) {
      const claims = { ...decodeJwt(real), sub: 'u-root' };
      const token = await new SignJWT(claims)
        .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid })
        .sign(createPrivateKey(privateKey.export({ type: 'pkcs8', format: 'pem' })));
      rememberToken(token);
      return token;
    },
  };
}

const CROOKED = 'the-cookie-secret-of-the-thief-9f31';

/** The same cookie as another secret would have signed it. */
function signedBy(secret: string, cookie: string): string {
  const [pair = ''] = cookie.split('; ');
  return `${pair}; ${pair.split('=')[0]}.sig=${new Keygrip([secret]).sign(pair)}`;
}

const me = async (at: Instance, bearer: string) => (await at.call('/me', { bearer })).status;

describe('a fleet secret that has leaked', () => {
  it('is revoked: what the thief has brought in goes, and stays away though the thief goes on and instances start', async () => {
    const world = await open({ configure: (config) => ({ ...config, limits: { ...config.limits, exchangePerSessionPerMinute: 1_000_000 } }) });
    const other = await world.another();
    const { redis } = world.legacy;
    const stolen = new Secret(world.readFile('fleet-secret').trim());
    const crook = await thief(world, stolen);
    const real = await exchangeNative(world, await world.login('alice'));
    await crook.bringInKey();
    const forged = await crook.tokenLike(real.access);
    for (const at of [world, other]) await expect.poll(async () => await me(at, forged), { timeout: 10_000 }).toBe(200);
    // A family of the thief's own, made into that of somebody else.
    const mine = await exchangeNative(world, await world.login('bob'));
    const family = `${world.prefix}{${mine.sid}}:family:${mine.family}`;
    const old = new FleetSecrets({ secrets: [stolen] });
    const context = `grant\0${mine.sid}\0${await redis.hget(family, 'secret')}`;
    const grant = JSON.parse(old.unseal(context, (await redis.hget(family, 'grant')) ?? '') ?? '{}');
    await redis.hset(
      family,
      'grant',
      old.seal(context, JSON.stringify({ ...grant, hasSession: false, identity: { ...grant.identity, subject: 'u-root' } })),
    );

    // A cookie secret of the thief's own, and a cookie that it signs.
    const forgedCookie = signedBy(CROOKED, await world.login('carol'));
    const field = `note ${world.config.sessions?.[0]?.name} crooked`;
    const note = { state: 'filed', at: Date.now(), secret: CROOKED };
    await redis.hset(`${world.prefix}cookie-secrets`, field, old.seal(`cookie-secret\0${field}`, JSON.stringify(note)));
    const opened = async (at: Instance) => (await at.call('/me', { cookie: forgedCookie })).status;
    for (const at of [world, other]) await expect.poll(async () => await opened(at), { timeout: 15_000 }).toBe(200);

    const { config, before } = await rotateFleetSecret(world);
    const laundered = await refreshNative(world, mine.refresh);
    expect(decodeJwt(laundered.access).sub).toBe('u-root');
    const fresh = await exchangeNative(other, await world.login('carol'));
    const revoked = await runCli(['secrets', 'revoke', before, '--why', 'leaked', '--yes', '--json', '--config', config]);
    expect(revoked.status).toBe(0);
    expect(JSON.parse(revoked.stdout)).toMatchObject({ name: before, families: 2, missing: [] });

    for (const at of [world, other]) await expect.poll(async () => await me(at, forged), { timeout: 15_000 }).toBe(401);
    for (const at of [world, other]) await expect.poll(async () => await opened(at), { timeout: 15_000 }).toBe(401);
    for (const at of [world, other]) expect((await at.call('/me', { cookie: await world.login('alice') })).status).toBe(200);
    await expectError(await postRefresh(other, laundered.refresh), 400, 'invalid_grant');
    await expectError(await postRefresh(world, real.refresh), 400, 'invalid_grant');
    const carol = await refreshNative(world, fresh.refresh);

    // The thief writes under the old secret again, and an instance starts whose file still holds it.
    await redis.del(...['jwks', 'clamps', 'denied-secrets'].map((name) => world.prefix + name));
    await crook.bringInKey();
    await forge(world, stolen, 'clamps', clampsCodec).update(() => ({
      clamps: [{ selector: { on: 'all' }, stage: 'recall', by: 'operator', why: 'a forged one', at: 1 }],
      rest: new Map(),
    }));
    const late = await world.another();
    expect(await me(late, forged)).not.toBe(200);
    expect(await opened(late)).toBe(401);
    expect((await postExchange(late, await world.login('alice'))).status).toBe(200);
    await refreshNative(late, carol.refresh);
    await expectError(await postRefresh(late, real.refresh), 400, 'invalid_grant');
    for (const at of [world, other, late]) expect(await me(at, forged)).not.toBe(200);
    await expect.poll(async () => (await redis.get(`${world.prefix}jwks`)) ?? '', { timeout: 15_000 }).not.toContain(crook.kid);
  }, 120_000);

  it('takes no newer one out of use, whatever the thief writes', async () => {
    const world = await open();
    const { redis } = world.legacy;
    const stolen = new Secret(world.readFile('fleet-secret').trim());
    const { config, added, before } = await rotateFleetSecret(world);
    const alice = await exchangeNative(world, await world.login('alice'));
    const newest = world.readFile('fleet-secret').split('\n')[0] ?? '';
    expect(nameOfSecret(new Secret(newest))).toBe(added);
    await forge(world, stolen, 'denied-secrets', deniedSecretsCodec).update(() => ({
      entries: [JSON.stringify({ name: added, isFirst: false, at: 1, how: 'revoked', why: 'by a thief' })],
      rest: new Map(),
    }));
    const late = await world.another();
    await refreshNative(late, alice.refresh);
    expect(await redis.hget(`${world.prefix}{${alice.sid}}:family:${alice.family}`, 'grant')).toMatch(new RegExp(`^${added}:`));
    // A version that leaves no room above it is none.
    const [version, payload] = [Number.MAX_SAFE_INTEGER, '{"secrets":[]}'];
    const mac = new FleetSecrets({ secrets: [stolen] }).sign(`denied-secrets\0${version}`, payload).split('.')[0];
    await redis.set(`${world.prefix}denied-secrets`, JSON.stringify({ version, payload, mac }));
    const revoked = await runCli(['secrets', 'revoke', before, '--why', 'leaked', '--yes', '--config', config]);
    expect([revoked.status, revoked.stderr]).toEqual([0, '']);
    expect(await redis.get(`${world.prefix}denied-secrets`)).toMatch(new RegExp(`^${added}:.*${before}`));
    expect(await redis.get(`${world.prefix}denied-secrets`), 'it would count under the secret after this one').not.toContain('by a thief');
    expect(readFileSync(join(world.directory, 'fleet-secret'), 'utf8')).toContain(newest);
  }, 60_000);

  it('is revoked by force, where a forged announcement keeps the fleet on it', async () => {
    const world = await open();
    const { redis } = world.legacy;
    const forger = new FleetSecrets({ secrets: [new Secret(world.readFile('fleet-secret').trim())] });
    const before = forger.writes;
    const alice = await exchangeNative(world, await world.login('alice'));
    const announce = async () => {
      const [seconds = '0'] = await redis.time();
      const at = Number(seconds) * 1000;
      const said = { instance: 'forged', host: 'forged', version: '0.1.0', startedAt: 1, at, issuer: world.config.issuer };
      await redis.hset(`${world.prefix}fleet:forged`, 'announcement', forger.sign('fleet\0forged', JSON.stringify(said)));
      await redis.zadd(`${world.prefix}fleet`, at, 'forged');
    };
    await announce();
    const again = setInterval(() => void announce().catch(() => undefined), 500);
    onTestFinished(() => clearInterval(again));
    const config = join(world.directory, 'command.json');
    writeFileSync(config, JSON.stringify(world.config));
    expect((await runCli(['secrets', 'add', '--config', config])).status).toBe(0);
    remember(...world.readFile('fleet-secret').trim().replaceAll('pseudonyms=', '').split('\n'));
    await world.log.until((line) => line['audit'] === 'secret.changed');
    const refused = await runCli(['secrets', 'revoke', before, '--why', 'leaked', '--yes', '--config', config]);
    expect([refused.status, refused.stderr]).toMatchObject([2, expect.stringContaining('nothing was done')]);
    const revoked = await runCli(['secrets', 'revoke', before, '--why', 'leaked', '--yes', '--force', '--config', config]);
    expect([revoked.status, revoked.stderr]).toEqual([0, '']);
    await expectError(await postRefresh(world, alice.refresh), 400, 'invalid_grant');
    const { sid, family } = await exchangeNative(world, await world.login('bob'));
    expect(await redis.hget(`${world.prefix}{${sid}}:family:${family}`, 'grant')).toMatch(/^[0-9a-f]{8}:/);
  }, 60_000);

  it('is not taken out of use where an instance went back to it while the command was counting; done twice, it says the same', async () => {
    const world = await open();
    const { redis } = world.legacy;
    const fileBefore = world.readFile('fleet-secret');
    const { config, before } = await rotateFleetSecret(world);
    const proxy = await startTcpProxy(sharedRedisUrl());
    onTestFinished(() => proxy.close());
    const held = join(world.directory, 'held.json');
    writeFileSync(held, JSON.stringify({ ...world.config, redis: { ...world.config.redis, url: proxy.url } }));
    // It counts, looks at the fleet, and counts again.
    const steps = [/\r\nscan\r\n/i, /\r\nzrangebyscore\r\n/i, /\r\nscan\r\n/i];
    const counting = proxy.holdAt((command) => {
      if (steps[0]?.test(command)) steps.shift();
      return steps.length === 0;
    });
    const running = runCli(['secrets', 'finish', before, '--config', held]);
    await counting.held;
    const forger = new FleetSecrets({ secrets: [new Secret(world.readFile('fleet-secret').split('\n')[1] ?? '')] });
    const [seconds = '0'] = await redis.time();
    const at = Number(seconds) * 1000;
    const said = { instance: 'returned', host: 'returned', version: '0.1.0', startedAt: 1, at, issuer: world.config.issuer };
    await redis.hset(`${world.prefix}fleet:returned`, 'announcement', forger.sign('fleet\0returned', JSON.stringify(said)));
    await redis.zadd(`${world.prefix}fleet`, at, 'returned');
    counting.go();
    const refused = await running;
    expect([refused.status, refused.stderr]).toMatchObject([2, expect.stringContaining(`the fleet writes with ${before}`)]);
    expect(await redis.get(`${world.prefix}denied-secrets`)).toBeNull();
    await redis.del(`${world.prefix}fleet:returned`);

    const revoke = async () => await runCli(['secrets', 'revoke', before, '--why', 'leaked', '--yes', '--json', '--config', config]);
    await expect.poll(async () => (await revoke()).status, { timeout: 30_000 }).toBe(0);
    const again = await revoke();
    expect([again.status, JSON.parse(again.stdout)]).toMatchObject([0, { name: before, missing: [] }]);
    const finished = await runCli(['secrets', 'finish', before, '--config', config]);
    expect([finished.status, finished.stderr]).toMatchObject([2, expect.stringContaining('revoked already')]);

    // The file from before is put back: what it holds stays out of use.
    const from = world.log.all.length;
    writeFileSync(join(world.directory, 'fleet-secret'), fileBefore);
    await world.log.until((line) => line['audit'] === 'secret.changed', from);
    // What is made from here on stands under the newer one still, and the list is as it was after the next look at it.
    const { sid, family } = await exchangeNative(world, await world.login('alice'));
    expect(await redis.hget(`${world.prefix}{${sid}}:family:${family}`, 'grant')).toMatch(/^[0-9a-f]{8}:/);
    await world.bridge.reload();
    expect(await redis.get(`${world.prefix}denied-secrets`)).toContain(before);
  }, 90_000);
});
