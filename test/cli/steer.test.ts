import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeProtectedHeader } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CliResult } from '../../scripts/lib/cli-process.js';
import { Secret } from '../../src/config/secret.js';
import type { Announcement } from '../../src/fleet/announcement.js';
import { createFleetStore, type FleetStore } from '../../src/fleet/store.js';
import { FleetSecrets } from '../../src/redis/fleet-keyring.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { runCli } from '../support/cli.js';
import { writeKey } from '../support/keys.js';
import { ofFleetOf, type Service, startService } from '../support/serve.js';
import { exchangeNative, postExchange } from '../support/tokens.js';
import { remember, rememberToken } from '../support/transcript.js';
import { createWorld, type World } from '../support/world.js';

let world: World;
let service: Service;
let store: FleetStore;
beforeAll(async () => {
  world = await createWorld({
    configure: (config) => ({
      ...config,
      keys: { ...config.keys, selfTestSeconds: 1, publishSeconds: 2 },
      rollout: { ...config.rollout, cohorts: [{ name: 'pilot', client: 'android', tenants: ['acme'] }] },
    }),
  });
  service = await startService(world, ofFleetOf(world));
  const secret = new Secret(world.readFile('fleet-secret').trim());
  const quiet = { audit: () => undefined, metrics: createMetrics() };
  store = createFleetStore({ client: world.legacy.redis, prefix: world.prefix, secrets: new FleetSecrets({ secrets: [secret] }), ...quiet });
}, 60_000);
afterAll(async () => {
  await service.stop();
  await world.close();
});

async function crossfade(...args: string[]): Promise<CliResult> {
  return await runCli([...args, '--config', service.configFile]);
}

/** What commands have noted for whoever looks at the console. */
async function auditOf(): Promise<string> {
  const entries = await world.legacy.redis.xrange(`${world.prefix}progress:audit`, '-', '+');
  return entries.flatMap(([, fields]) => fields.filter((text) => text.includes('(command)'))).join('\n');
}

async function nowMs(): Promise<number> {
  const [seconds, micros] = await world.legacy.redis.time();
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000);
}

describe('crossfade clamp, release', () => {
  it('says how many are above it before it acts, never asks without a terminal, and is in force everywhere when it returns', async () => {
    const people = await Promise.all(['alice', 'person-1', 'person-2'].map(async (name) => await world.login(name)));
    for (const cookie of people) await exchangeNative(world, cookie);
    // Counted in batches, at each heartbeat.
    const batches = async () => (await world.legacy.redis.keys(`${world.prefix}progress:{traffic}:*:dual *`)).length;
    await expect.poll(batches).toBe(2);
    const result = await crossfade('clamp', 'session-only', '--cohort', 'pilot', '--why', 'orders fail');
    expect(result.status).toBe(0);
    expect(result.stdout).toMatch(
      /^pilot → at most session-only: 1 person \(seen in 10 minutes\) and \d+ requests? a minute are above it now, on 2 live instances\.\nIn force until crossfade release, on all 2 live instances\.\n$/,
    );
    expect(result.stderr).toBe('');
    expect(await auditOf()).toContain('"stage.clamped"');
    const [alice = '', other = ''] = people;
    expect(await (await postExchange(world, alice)).json()).toMatchObject({ stage: 'session-only', reason: 'operator' });
    expect((await postExchange(world, other)).status, 'another cohort').toBe(200);
    expect((await crossfade('release', '--cohort', 'pilot')).stdout).toBe(
      'Released: pilot was held at session-only by the operator: orders fail\nThe same on all 2 live instances.\n',
    );
    await expect.poll(async () => (await postExchange(world, alice)).status).toBe(200);
    expect((await crossfade('release', '--cohort', 'pilot')).stdout).toBe('Nothing held pilot.\n');
  }, 60_000);

  it('ends by itself after --for, on every instance', async () => {
    const cookie = await world.login('bob');
    const set = await crossfade('clamp', 'shadow', '--client', 'android', '--for', '2s', '--why', 'a short one', '--json');
    expect(JSON.parse(set.stdout)).toMatchObject({
      selector: { on: 'client', name: 'android' },
      stage: 'shadow',
      instances: 2,
      until: expect.any(String),
    });
    expect(await (await postExchange(world, cookie)).json()).toMatchObject({ stage: 'shadow', reason: 'operator' });
    await expect.poll(async () => (await postExchange(world, cookie)).status).toBe(200);
  }, 30_000);

  it.each([
    [['clamp', 'dual', '--why', 'x'], 'say whom: exactly one of --client ID, --cohort NAME, --all'],
    [['clamp', 'dual', '--all', '--client', 'web', '--why', 'x'], 'say whom'],
    [['clamp', 'dual', '--client', 'wbe', '--why', 'x'], 'there is no client wbe: there are web, ios, android'],
    [['clamp', 'dual', '--cohort', 'plot', '--why', 'x'], 'there is no cohort plot: there are pilot, web'],
    [['clamp', 'duel', '--all', '--why', 'x'], 'one of recall, session-only, shadow, dual, jwt-preferred, jwt-only'],
    [['clamp', 'dual', '--all', '--for', 'a while', '--why', 'x'], 'a time such as 90s, 30m, 2h or 1d'],
    [['clamp', 'dual', '--all'], '--why'],
  ])('%j changes nothing and says what is wrong', async (args, message) => {
    const result = await crossfade(...args);
    expect(result.status).not.toBe(0);
    expect(result.stdout).toBe('');
    expect(result.stderr).toContain(message);
    expect(result.stderr.trim().split('\n')).toHaveLength(1);
  });
});

describe('crossfade explain', () => {
  const flag = {
    key: 'auth-migration-stage',
    version: 7,
    on: true,
    variations: ['session-only', 'dual', 'jwt-preferred'],
    offVariation: 0,
    salt: 'some-salt',
    rules: [
      {
        id: 'android-acme',
        clauses: [{ contextKind: 'client', attribute: 'key', op: 'in', values: ['android'] }],
        rollout: {
          contextKind: 'user',
          variations: [
            { variation: 0, weight: 40_000 },
            { variation: 1, weight: 30_000 },
            { variation: 2, weight: 30_000 },
          ],
        },
      },
    ],
    fallthrough: { variation: 0 },
  };

  async function withFlag(work: () => Promise<void>): Promise<void> {
    const before = world.readFile('flags.json');
    const write = async (text: string) => {
      const [here, there] = [world.log.all.length, service.cli.lines.length];
      writeFileSync(join(world.directory, 'flags.json'), text);
      await world.log.until((line) => line['audit'] === 'flags.changed', here);
      await service.cli.logged('flags.changed', there);
    };
    await write(JSON.stringify({ flags: { [flag.key]: flag } }));
    await work();
    await write(before);
  }

  it('gives the stage that the bridge gives, with the rule, the bucket and what would be answered', async () => {
    await withFlag(async () => {
      const seen = new Set<string>();
      for (let n = 0; n < 6; n++) {
        const cookie = await world.login(`person-${n}`);
        const answer = await fetch(`${service.url}/auth/verify`, { headers: { cookie, 'x-client-id': 'android' } });
        const result = await crossfade('explain', '--client', 'android', '--tenant', 'initech', '--subject', `u-person-${n}`, '--json');
        const explained = JSON.parse(result.stdout);
        expect(explained.stage.stage).toBe(answer.headers.get('x-auth-stage'));
        const { by, bucket, value } = explained.flags[0];
        expect([by, bucket.by]).toEqual(['rule 1 of 1 (android-acme)', 'user.key']);
        expect(value).toBe(bucket.bucket < 0.4 ? 'session-only' : bucket.bucket < 0.7 ? 'dual' : 'jwt-preferred');
        seen.add(value);
      }
      expect(seen.size).toBeGreaterThan(1);
      const page = (await crossfade('explain', '--client', 'ios', '--subject', 'u1')).stdout;
      expect(page).toContain('by no rule: the fallthrough');
      expect(page).toContain('held by      client: at most jwt-preferred (version unknown is below 4.2.0)');
      expect(page).toContain('exchange: 400 unauthorized_client');
    });
  }, 60_000);

  it('takes a credential on standard input, and says of a bad one why it is', async () => {
    const cookie = await world.login('alice');
    const { access } = await exchangeNative(world, cookie);
    const explained = async (input: string, ...more: string[]) =>
      (await runCli(['explain', '--config', service.configFile, ...more], undefined, input)).stdout;
    expect(await explained(`Cookie: ${cookie}\n`, '--client', 'android')).toMatch(
      /credential {3}session [\w-]{32}\nprincipal {4}u-alice of tenant acme, client android\ncohort {7}pilot/,
    );
    expect(await explained(access)).toMatch(/credential {3}bearer of the session .*\nprincipal {4}u-alice of tenant acme, client android/);
    const forged = `${access.slice(0, -6)}AAAAAA`;
    rememberToken(forged);
    expect(await explained(forged)).toBe('credential   bearer, refused: bad-signature\nanswers      every request: 401 invalid_token\n');
    expect(await explained('koa.sess=x; koa.sess.sig=y')).toContain('session cookie, not accepted: ');
    const nothing = await runCli(['explain', '--config', service.configFile], undefined, '');
    expect([nothing.status, nothing.stderr]).toEqual([2, 'give --subject, or a token or a Cookie header on standard input\n']);
  }, 40_000);
});

describe('crossfade status', () => {
  it('shows stages with their reasons, clamps, keys, the fleet and the guardrail, within 80 columns', async () => {
    await exchangeNative(world, await world.login('alice'));
    await expect
      .poll(async () => (await crossfade('status')).stdout, { timeout: 15_000 })
      .toMatch(/pilot +of android +\d+ [\s\S]*dual \(flag\) \d+ %/);
    const { stdout } = await crossfade('status');
    for (const part of ['2 live', 'COHORTS', 'CLAMPS\n  none', 'KEYS', 'signs on 2 of 2', 'FLEET', 'GUARDRAIL (last 30 s)'])
      expect(stdout).toContain(part);
    for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
    expect(JSON.parse((await crossfade('status', '--json')).stdout)).toMatchObject({
      instances: [{ signing: 'healthy' }, {}],
      keys: [{ phase: 'active', signedBy: 2 }],
    });
  }, 30_000);
});

describe('crossfade keys', () => {
  const keys = () => join(world.directory, 'keys');

  it('generate --stdout prints a key and nothing else, and writes none', async () => {
    const before = readdirSync(keys());
    const { status, stdout, stderr } = await crossfade('keys', 'generate', '--stdout');
    remember(...stdout.split('\n').filter((line) => line !== '' && !line.startsWith('-----')));
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^-----BEGIN PRIVATE KEY-----\n[\s\S]+-----END PRIVATE KEY-----\n$/);
    expect(readdirSync(keys())).toEqual(before);
  });

  it('K7, Law 9: a rotation waits for an instance that is stuck, names it, and goes on by --force --why', async () => {
    const first = decodeProtectedHeader((await exchangeNative(world, await world.login('alice'))).access).kid;
    // It announces itself, and verifies nothing but the old key: it never looks again.
    const stuck: Announcement = {
      instance: 'stuck-instance',
      host: 'stuck-host',
      version: '0.1.0',
      startedAt: await nowMs(),
      at: 0,
      clockOffMs: 0,
      issuer: world.config.issuer,
      audience: [...world.config.audience],
      fingerprint: 'x',
      keys: [],
      verifies: [first ?? ''],
      signing: 'healthy',
      problems: [],
      flags: 'live',
      clamps: '',
      accepts: [JSON.stringify([world.config.issuer, ...world.config.audience])],
      cohorts: [],
      windows: [],
      left: false,
    };
    const beat = async () => await store.write({ ...stuck, at: await nowMs() });
    await beat();
    const beating = setInterval(() => void beat(), 1000);
    try {
      const rotated = await crossfade('keys', 'rotate');
      const [, path = ''] = /^wrote (\S+)$/m.exec(rotated.stdout) ?? [];
      remember(
        ...readFileSync(path, 'utf8')
          .split('\n')
          .filter((line) => line !== '' && !line.startsWith('-----')),
      );
      expect(statSync(path).mode & 0o777).toBe(0o600);
      expect(readdirSync(keys()).filter((name) => name.startsWith('.'))).toEqual([]);
      expect(rotated.stdout).toMatch(/next .*\n +verified by 2 of 3; is not verified yet by stuck-host/);
      const again = await crossfade('keys', 'rotate');
      expect([again.status, again.stderr]).toEqual([2, expect.stringContaining('is waiting to sign already')]);
      expect((await crossfade('keys', 'rotate', '--force')).stderr).toContain('--force needs --why');
      expect(decodeProtectedHeader((await exchangeNative(world, await world.login('alice'))).access).kid).toBe(first);
      const forced = await crossfade('keys', 'rotate', '--force', '--why', 'stuck-host is being replaced');
      expect(forced.stderr).toBe('');
      expect(await auditOf()).toContain('"key.forced"');
      const kid = async () => decodeProtectedHeader((await exchangeNative(world, await world.login('alice'))).access).kid;
      await expect.poll(kid, { timeout: 20_000, interval: 250 }).not.toBe(first);
    } finally {
      clearInterval(beating);
      await store.write({ ...stuck, at: await nowMs(), left: true });
    }
  }, 90_000);

  it('retire refuses a key that signs or whose tokens may live, and revoke asks for a reason', async () => {
    const listed: { kid: string; phase: string }[] = JSON.parse((await crossfade('keys', 'list', '--json')).stdout);
    const [active, old] = ['active', 'retiring'].map((phase) => listed.find((key) => key.phase === phase)?.kid ?? '');
    expect((await crossfade('keys', 'retire', active ?? '')).stderr).toContain('rotate first');
    expect((await crossfade('keys', 'retire', old ?? '')).stderr).toMatch(/tokens that .* signed may live for another/);
    expect((await crossfade('keys', 'retire', 'nonsense')).stderr).toContain('no key of the fleet begins with nonsense');
    // A thumbprint may look like an option.
    expect((await crossfade('keys', 'retire', '-zzzzzzz')).stderr).toContain('no key of the fleet begins with -zzzzzzz');
    expect((await crossfade('keys', 'retire', old ?? '', '--forse')).stderr).toContain('too many arguments');
    expect((await crossfade('keys', 'revoke', old ?? '')).stderr).toContain('--why');
    const retired = await crossfade('keys', 'retire', old ?? '', '--force', '--why', 'the test is over');
    expect(retired.stdout).toContain('Remove first.pem from the key directories');
    await world.log.until((line) => line['audit'] === 'key.rejected' && String(line['reason']).includes('was retired'));
    expect(await (await world.call('/.well-known/jwks.json')).text()).not.toContain(old);
  }, 60_000);

  it('K9: the last key is revoked: sessions go on, nothing is issued, and the next rotation signs at once', async () => {
    const cookie = await world.login('alice');
    const { access } = await exchangeNative(world, cookie);
    const revoked = await crossfade('keys', 'revoke', decodeProtectedHeader(access).kid ?? '', '--why', 'leaked');
    expect(revoked.stdout).toContain('No key signs now');
    expect((await world.call('/me', { bearer: access })).status).toBe(401);
    expect((await world.call('/me', { cookie })).status).toBe(200);
    expect((await postExchange(world, cookie)).status).toBe(503);
    writeKey(keys(), 'after.pem');
    await expect.poll(async () => (await postExchange(world, cookie)).status, { timeout: 20_000, interval: 250 }).toBe(200);
  }, 60_000);
});

describe('crossfade check', () => {
  it('names another issuer or audience than that of the fleet', async () => {
    const other = join(world.directory, 'other.json');
    const checkWith = async (changes: object) => {
      writeFileSync(other, JSON.stringify({ ...JSON.parse(readFileSync(service.configFile, 'utf8')), ...changes }));
      return await runCli(['check', '--config', other]);
    };
    const ofAudience = await checkWith({ audience: ['https://other.example'] });
    expect(ofAudience.status).toBe(1);
    expect(ofAudience.stdout).toMatch(/audience: no token would be issued for https:\/\/other\.example until \S+, \S+ accept it as well/);
    const ofIssuer = await checkWith({ issuer: 'https://other.example' });
    expect(ofIssuer.status).toBe(1);
    expect(ofIssuer.stdout).toContain('issuer: issuer https://other.example is not that of most live instances (https://app.example.com)');
  });
});
