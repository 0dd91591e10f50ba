import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { Secret } from '../../src/config/secret.js';
import { FleetSecrets } from '../../src/redis/fleet-keyring.js';
import { SignedValue } from '../../src/redis/signed-value.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { runCli } from '../support/cli.js';
import { expectError } from '../support/expect-error.js';
import { ofFleetOf, startService } from '../support/serve.js';
import { exchangeNative, postAsBrowser, postExchange, postRefresh, refreshCookie, type Tokens } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import type { World } from '../support/world.js';

// What a later release might write, made up: each value has members, words or entries that this one does not know.

const open = useWorlds();
const KID = 'L'.repeat(43);
const LATER_CLAMP = '{"selector":{"on":"country","name":"XX"},"stage":"quantum","by":"robot","why":"a storm","at":1,"note":{"b":[1.0,"x"]}}';
const LATER_DENIED = `{"kid":"${KID}","at":1,"how":"quarantined","why":"odd","until":"2030-01-01"}`;
const LATER_KEY = `{"jwk":{"kid":"${KID}","kty":"AKP","alg":"ML-DSA-44","use":"sig","pub":"AAAA"},"firstSeenAt":1,"lastSeenAt":1,"hsm":true}`;
const LATER_POLICY = '{"issuer":["https://a.example"],"until":9}';

let world: World;
let secrets: FleetSecrets;
beforeEach(async () => {
  world = await open();
  secrets = new FleetSecrets({ secrets: [new Secret(world.readFile('fleet-secret').trim())] });
});

/** A value as text, written as any release of this fleet writes it. */
function stored(name: string): SignedValue<string> {
  return new SignedValue({
    client: world.legacy.redis,
    name,
    key: world.prefix + name,
    secrets,
    codec: { read: (text) => text, write: (text) => text },
    mayBegin: () => true,
    isAlone: () => true,
    isForced: () => false,
    audit: () => undefined,
    metrics: createMetrics(),
  });
}

const write = async (name: string, payload: string) => void (await stored(name).update(() => payload));
const payloadOf = async (name: string) => (await stored(name).read()) ?? '';
const redis = () => world.legacy.redis;

async function configFile(): Promise<string> {
  const service = await startService(world, ofFleetOf(world));
  await service.stop();
  return service.configFile;
}

describe('lists of a later release', () => {
  it('an unknown clamp holds everybody at session-only, obeys release by its id, and stays the text that it is', async () => {
    const other = '{"selector":{"on":"all"},"stage":"jwt-preferred","by":"operator","why":"known","at":2,"ticket":"OPS-7"}';
    await write('clamps', `{"epoch":3,"clamps":[${LATER_CLAMP},${other}]}`);
    const fresh = await world.another();
    const refused = await postExchange(fresh, await world.login('alice'));
    expect([refused.status, await refused.json()]).toMatchObject([400, { error: 'unauthorized_client', stage: 'session-only', reason: 'operator' }]);

    const config = await configFile();
    const status = await runCli(['status', '--config', config]);
    const id = /crossfade release ([0-9a-f]{8})/.exec(status.stdout.replaceAll(/\s+/g, ' '))?.[1] ?? '';
    expect(status.stdout).toContain('everybody at most session-only');
    // One can always add a clamp.
    const added = await runCli(['clamp', 'dual', '--client', 'web', '--why', 'a new one', '--yes', '--config', config]);
    expect([added.status, added.stderr]).toEqual([0, '']);
    expect(await payloadOf('clamps')).toContain(`{"epoch":3,"clamps":[${LATER_CLAMP},${other},{"selector":{"on":"client","name":"web"}`);
    const released = await runCli(['release', id, '--why', 'over', '--config', config]);
    expect([released.status, released.stdout]).toMatchObject([0, expect.stringContaining('Released')]);
    expect(await payloadOf('clamps')).not.toContain('quantum');
    expect(await payloadOf('clamps')).toContain(other);
    await expect.poll(async () => (await postExchange(fresh, await world.login('alice'))).status).toBe(200);
  });

  it('an unknown clamp ends with its time', async () => {
    let aheadMs = 0;
    const clock = { now: () => Date.now() + aheadMs };
    await write('clamps', `{"clamps":[{"selector":{"on":"country"},"stage":"recall","until":${Date.now() + 200_000},"at":1}]}`);
    const fresh = await world.another({
      bridge: { clock },
      configure: (config) => ({ ...config, tokens: { ...config.tokens, clockSkewSeconds: 300 } }),
    });
    expect((await postExchange(fresh, await world.login('alice'))).status).toBe(400);
    aheadMs = 201_000;
    expect((await postExchange(fresh, await world.login('alice'))).status).toBe(200);
  });

  it('a key that is denied in an unknown way is revoked, and one can always revoke another', async () => {
    const tokens = await exchangeNative(world, await world.login('alice'));
    const [kid = ''] = world.bridge.signing().activeKid ? [world.bridge.signing().activeKid ?? ''] : [];
    const denied = LATER_DENIED.replace(KID, kid);
    await write('revoked-kids', `{"kids":[${denied},{"fingerprint":"no kid at all"}],"since":1}`);
    await world.bridge.reloadKeys();
    await expectError(await world.call('/me', { bearer: tokens.access }), 401, 'invalid_token');
    const { status } = await runCli(['keys', 'list', '--config', await configFile()]);
    expect(status).toBe(0);
    expect(await payloadOf('revoked-kids')).toBe(`{"kids":[${denied},{"fingerprint":"no kid at all"}],"since":1}`);
  });

  it('an unknown key and policy stay, and a token under that key is 503 and not 401', async () => {
    const known = JSON.parse(await payloadOf('jwks'));
    const [key] = known.keys;
    const widened = JSON.stringify({ ...key, jwk: { ...key.jwk, x5t: 'thumb' }, attested: true });
    await write('jwks', `{"keys":[${widened},${LATER_KEY}],"policies":[${JSON.stringify(known.policies[0])},${LATER_POLICY}],"generation":4}`);
    await world.bridge.reloadKeys();
    const header = Buffer.from(JSON.stringify({ alg: 'ES256', typ: 'at+jwt', kid: KID })).toString('base64url');
    const { access } = await exchangeNative(world, await world.login('alice'));
    const [, payload, signature] = access.split('.');
    await expectError(await world.call('/me', { bearer: `${header}.${payload}.${signature}` }), 503, 'temporarily_unavailable');
    // What this instance writes keeps all of it.
    const second = await world.another();
    await second.bridge.reloadKeys();
    const after = await payloadOf('jwks');
    expect(after).toContain(LATER_KEY);
    expect(after).toContain(LATER_POLICY);
    expect(JSON.parse(after)).toMatchObject({ generation: 4 });
    expect(JSON.parse(after).keys.find((one: { jwk: { kid: string } }) => one.jwk.kid === key.jwk.kid)).toMatchObject({
      attested: true,
      jwk: { x5t: 'thumb' },
    });
    const served = await (await world.call('/.well-known/jwks.json')).text();
    expect(served).not.toContain('thumb');
  });
});

describe('a whole value of a later release', () => {
  it.each(['clamps', 'revoked-kids', 'jwks'])(
    '%s: an instance that never understood it issues nothing and leaves it alone; one that did goes on',
    async (name) => {
      const cookie = await world.login('alice');
      const before = await exchangeNative(world, cookie);
      await write(name, '{"v":2,"tree":{}}');
      const content = await redis().get(world.prefix + name);
      const fresh = await world.another();
      expect((await fresh.bridge.readiness()).canIssue).toBe(false);
      await expectError(await postExchange(fresh, cookie), 503, 'temporarily_unavailable');
      expect((await fresh.call('/me', { cookie })).status).toBe(200);
      expect((await fresh.bridge.readiness()).problems.join()).toContain(`${name} in Redis is of a later release`);
      expect(fresh.bridge.signing().activeKid).toBeUndefined();

      await world.bridge.reloadKeys();
      expect((await postExchange(world, cookie)).status).toBe(200);
      expect((await world.call('/me', { bearer: before.access })).status).toBe(200);
      expect(await redis().get(world.prefix + name)).toBe(content);
    },
  );
});

describe('sealed records of a later release', () => {
  const familyKey = ({ sid, family }: Tokens) => `${world.prefix}{${sid}}:family:${family}`;

  it('a grant is 503, no cookie is cleared, and the guardrail counts nothing', async () => {
    const asked = await world.exchange(await world.login('alice'), { client_id: 'web' });
    const cookie = refreshCookie(asked) ?? '';
    const tokens = await exchangeNative(world, await world.login('bob'));
    for (const key of await redis().keys(`${world.prefix}{*}:family:*`)) {
      const [, sid = ''] = /\{(.+)\}/.exec(key) ?? [];
      const secret = (await redis().hget(key, 'secret')) ?? '';
      await redis().hset(key, 'grant', secrets.seal(`grant\0${sid}\0${secret}`, '{"v":2,"who":"somebody"}'));
    }
    await expectError(await postRefresh(world, tokens.refresh), 503, 'temporarily_unavailable');
    const inCookie = await postAsBrowser(world, '/auth/token', cookie, { grant_type: 'refresh_token', client_id: 'web' });
    await expectError(inCookie, 503, 'temporarily_unavailable');
    expect(inCookie.headers.get('set-cookie')).toBeNull();
    expect(await redis().hget(familyKey(tokens), 'ended')).toBeNull();
    expect(await world.metrics()).not.toContain('fault="lost-family"');
  });

  it.each<[string, (tokens: Tokens) => Promise<unknown>]>([
    [
      'what is kept of a session',
      async ({ sid }) => await redis().hset(`${world.prefix}{${sid}}:session`, 'sealed', secrets.seal(`session\0${sid}`, '{"v":2}')),
    ],
    ['a tombstone', async ({ sid }) => await redis().set(`${world.prefix}{${sid}}:ended`, secrets.sign(`ended\0${sid}`, '{"v":2}'), 'PX', 60_000)],
  ])('%s is 503', async (_, put) => {
    const cookie = await world.login('alice');
    const tokens = await exchangeNative(world, cookie);
    await put(tokens);
    await expectError(await postRefresh(world, tokens.refresh), 503, 'temporarily_unavailable');
    await expectError(await postExchange(world, cookie), 503, 'temporarily_unavailable');
  });

  it('the end of a person is 503 for who would be issued a token', async () => {
    const cookie = await world.login('alice');
    await exchangeNative(world, cookie);
    const [key = ''] = await redis().keys(`${world.prefix}subject:*`);
    await redis().hset(key, 'not-before', secrets.sign('person', '{"v":2,"type":"subject.paused"}'));
    await expectError(await postExchange(world, cookie), 503, 'temporarily_unavailable');
  });
});

describe('what a later release says', () => {
  it('an event of an unknown kind is skipped at info level, and those after it are heard', async () => {
    const tokens = await exchangeNative(world, await world.login('alice'));
    const other = await world.another();
    for (const text of ['{"type":"device.ended","device":"d","endedAt":1}', '{"type":"news","about":"moons","at":1}'])
      await redis().xadd(`${world.prefix}events`, '*', 'event', secrets.sign('event', text));
    expect((await world.post('/auth/revoke', { token: tokens.refresh, client_id: 'android' })).status).toBe(200);
    await expect.poll(async () => (await other.call('/me', { bearer: tokens.access })).status).toBe(401);
    const skipped = other.log.all.filter(({ msg }) => msg === 'an event of a later release was skipped');
    expect(skipped.map(({ level }) => level)).toEqual([30, 30]);
    expect(other.log.audits('value.refused')).toEqual([]);
  });

  it('an announcement with a key that is not understood is that of a live instance', async () => {
    const config = await configFile();
    const [seconds = '0'] = await redis().time();
    const at = Number(seconds) * 1000;
    const announcement = {
      instance: 'later-1',
      host: 'later-host',
      version: '9.0.0',
      startedAt: at + 1,
      at,
      issuer: world.config.issuer,
      keys: [JSON.parse(LATER_KEY), { jwk: 'none' }],
      verifies: [KID],
      signing: 'superb',
      reads: 3,
      moons: [1],
    };
    await redis().hset(`${world.prefix}fleet:later-1`, 'announcement', secrets.sign('fleet\0later-1', JSON.stringify(announcement)));
    await redis().zadd(`${world.prefix}fleet`, at, 'later-1');
    const { stdout } = await runCli(['status', '--json', '--config', config]);
    expect(JSON.parse(stdout).instances.map(({ host }: { host: string }) => host)).toContain('later-host');
    expect(JSON.parse(stdout).releases.map(({ version }: { version: string }) => version)).toContain('9.0.0');
  });

  it('beside an instance that was there before, and writes what this release does not read, a fresh one is not ready and issues nothing', async () => {
    const [seconds = '0'] = await redis().time();
    const at = Number(seconds) * 1000;
    const announcement = {
      instance: 'later-2',
      host: 'later-host',
      version: '9.0.0',
      startedAt: 1,
      at,
      issuer: world.config.issuer,
      verifies: [],
      reads: 9,
    };
    await redis().hset(`${world.prefix}fleet:later-2`, 'announcement', secrets.sign('fleet\0later-2', JSON.stringify(announcement)));
    await redis().zadd(`${world.prefix}fleet`, at, 'later-2');
    const fresh = await world.another();
    expect(await fresh.bridge.readiness()).toMatchObject({ ready: false, canIssue: false });
    expect((await fresh.bridge.readiness()).problems.join()).toContain('later-host (9.0.0) writes what this release does not read');
    await expectError(await postExchange(fresh, await world.login('alice')), 503, 'temporarily_unavailable');
    const forced = await world.another({ bridge: { force: { why: 'a test' } } });
    expect(await forced.bridge.readiness()).toMatchObject({ ready: true, canIssue: true });
    expect(forced.log.audits('start.forced')).toHaveLength(1);
    const file = join(world.directory, 'command.json');
    writeFileSync(file, JSON.stringify(world.config));
    const { stdout } = await runCli(['status', '--config', file]);
    expect(stdout.replaceAll(/\s+/g, ' ')).toContain('can no longer be started: later-host (9.0.0) writes what release 0.1 does not read');
  });
});
