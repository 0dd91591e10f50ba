import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { calculateJwkThumbprint, decodeProtectedHeader, exportJWK } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../../scripts/lib/free-port.js';
import { type LaunchDarklyServer, startLaunchDarkly } from '../../scripts/lib/launchdarkly-server.js';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import { type Member, replaceKeys, startFleet, type TestFleet } from '../support/fleet.js';
import { resign } from '../support/forge.js';
import { newPem } from '../support/keys.js';
import { type Load, type LoadCounts, startLoad } from '../support/load.js';
import { readTokens, SESSION_TYPE, TOKEN_EXCHANGE } from '../support/tokens.js';
import { createWorld, type World } from '../support/world.js';

const PEOPLE = 12;
const REDIS_ARGS = ['--appendonly', 'yes', '--appendfsync', 'everysec'];

let redis: PrivateRedis;
let redisFiles: string;
let world: World;
let launchDarkly: LaunchDarklyServer;
let fleet: TestFleet;
let load: Load;
let prefix: string;
/** File of the key that the fleet was rotated to. */
let next: string;

beforeAll(async () => {
  redisFiles = mkdtempSync(join(tmpdir(), 'crossfade-fleet-redis-'));
  redis = await startRedis({ port: await freePort(), args: [...REDIS_ARGS, '--dir', redisFiles] });
  launchDarkly = await startLaunchDarkly();
  launchDarkly.set('auth-migration-stage', 'dual');
  world = await createWorld({ redisUrl: redis.url, legacy: { redisUrl: redis.url } });
  writeFileSync(join(world.directory, 'sdk-key'), 'sdk-the-key-of-these-tests');
  const { url } = launchDarkly;
  fleet = await startFleet(world, 3, (config) => ({
    ...config,
    sessions: (config.sessions ?? []).map(({ redis: _, ...session }) => session),
    rollout: {
      ...config.rollout,
      cohorts: [{ name: 'pilot', client: 'android', tenants: ['of-the-pilot'] }],
      flags: { launchdarkly: { sdkKeyFile: 'sdk-key', streamUri: url, baseUri: url, eventsUri: url } },
    },
  }));
  prefix = `${world.config.redis.keyPrefix}fleet:v1:`;
  const cookies = await Promise.all(Array.from({ length: PEOPLE }, async (_, n) => await world.login(`person-${n}`)));
  load = await startLoad(
    fleet.members.map(({ url: at }) => at),
    cookies,
  );
}, 120_000);

afterAll(async () => {
  await load.stop();
  await fleet.close();
  await world.close();
  await launchDarkly.stop();
  await redis.stop();
  rmSync(redisFiles, { recursive: true, force: true });
});

/** What everybody was answered while `happen` happened, and in the moments after; printed for the closing note and the docs. */
async function under(title: string, happen: () => Promise<void>, allowed: readonly string[] = []): Promise<LoadCounts> {
  load.take();
  await happen();
  await load.served(300);
  const counts = load.take();
  process.stdout.write(
    `fleet: ${title}: ${counts.requests} requests, 401: ${counts.unauthorized}, wrong answers: ${counts.wrong.length}, 503: ${JSON.stringify(counts.unavailable)}, cut: ${counts.cut}\n`,
  );
  expect({ unauthorized: counts.unauthorized, wrong: counts.wrong }).toEqual({ unauthorized: 0, wrong: [] });
  expect(Object.keys(counts.unavailable).filter((reason) => !allowed.includes(reason))).toEqual([]);
  return counts;
}

/** What a scenario shows to whoever is on call: a log line, a metric, and a line in `crossfade status`. */
interface Sight {
  /** Message of the line, and what else stands in it. */
  readonly log: readonly [message: string, fields?: Readonly<Record<string, unknown>>];
  readonly metric: RegExp;
  readonly status: RegExp;
}

/** Waits until the operator sees it, and prints it. */
async function operatorSees(member: Member, { log: [message, fields = {}], metric, status }: Sight): Promise<void> {
  const fits = (line: Readonly<Record<string, unknown>>) =>
    line['msg'] === message && Object.entries(fields).every(([name, value]) => line[name] === value);
  const lineOf = (text: string, wanted: RegExp) =>
    text
      .split('\n')
      .find((line) => wanted.test(line) && !line.startsWith('#'))
      ?.trim();
  await expect.poll(() => member.cli.lines.some(fits), { timeout: 15_000 }).toBe(true);
  await expect.poll(async () => lineOf(await member.metrics(), metric), { timeout: 15_000 }).toBeDefined();
  await expect.poll(async () => lineOf(await fleet.status(), status), { timeout: 20_000, interval: 500 }).toBeDefined();
  const { level: _, time: __, audit: ___, ...shown } = member.cli.lines.findLast(fits) ?? {};
  process.stdout.write(`  log:    ${JSON.stringify(shown)}\n`);
  process.stdout.write(`  metric: ${lineOf(await member.metrics(), metric)}\n  status: ${lineOf(await fleet.status(), status)}\n`);
}

async function restart(member: Member, change: () => void = () => undefined): Promise<void> {
  await member.stop();
  change();
  await member.start();
}

/** The kid that a new token of this instance is signed with; undefined: it signs none. */
async function signsWith({ url }: Member): Promise<string | undefined> {
  const cookie = await world.login('alice');
  const form = { client_id: 'android', grant_type: TOKEN_EXCHANGE, subject_token: cookie, subject_token_type: SESSION_TYPE };
  const response = await fetch(`${url}/auth/token`, { method: 'POST', body: new URLSearchParams(form) });
  if (response.status !== 200) return undefined;
  return decodeProtectedHeader((await readTokens(response)).access).kid;
}

/** Somebody of the pilot whose record maps to a token that is too large to be one. */
async function brokenSession(name: string): Promise<string> {
  const cookie = await world.login(name);
  const roles = Array.from({ length: 250 }, (_, n) => `role-${n}-`.padEnd(100, 'x'));
  await world.editRecord(({ user }) => Object.assign(user, { tenant: 'of-the-pilot', roles }));
  return cookie;
}

async function readyToIssue({ admin }: Member): Promise<string> {
  return await (await fetch(`${admin}/readyz?for=issue`)).text();
}

const all = (): readonly [Member, Member, Member] => {
  const [one, two, three] = fleet.members;
  if (!one || !two || !three) throw new Error('three instances');
  return [one, two, three];
};

/** Puts a file into the directories of these instances, as a deployment of a secret does. */
function deploy(name: string, pem: string, members: readonly Member[]): void {
  for (const { keys } of members) writeFileSync(join(keys, name), pem, { mode: 0o600 });
}

/** A file name that says: it signs from now on. */
function timed(name: string): string {
  // The next whole second: a key that came a moment ago has a time that is not whole.
  const time = new Date(Math.ceil(Date.now() / 1000) * 1000);
  return `${time.toISOString().replaceAll(/[-:]|\.\d+/g, '')}-${name}.pem`;
}

describe('Law 1: under load, three instances on one Redis', () => {
  it('K6, Law 9: a key that half of them lack signs where it is, once all verify it, and nowhere before', async () => {
    const [one, two, three] = all();
    const before = await signsWith(one);
    await under('half of the fleet gets a key that the other half lacks', async () => {
      deploy(timed('half'), newPem(), [one]);
      const { kid } = await one.cli.logged('key.activated', one.cli.lines.length);
      const served: unknown = await (await fetch(`${three.url}/.well-known/jwks.json`)).json();
      expect(JSON.stringify(served)).toContain(String(kid));
      expect(await signsWith(one)).toBe(kid);
      for (const member of [two, three]) expect(await signsWith(member)).toBe(before);
    });
    await operatorSees(one, {
      log: ['key.activated'],
      metric: /crossfade_keys\{phase="retiring"\} 1/,
      status: /signs on 2 of 3, verified by 3/,
    });
  }, 40_000);

  it('a rotation by rolling restart, with an instance that dies half-way and one that joins late', async () => {
    const [one, two, three] = all();
    const pem = newPem();
    next = timed('next');
    const name = next;
    let kid = '';
    await under('rotation by rolling restart', async () => {
      await restart(one, () => deploy(name, pem, [one]));
      kid = String(one.audits('key.accepted').find((line) => line['file'] === name)?.['kid']);
      // It dies as soon as it has begun.
      await two.stop('SIGKILL');
      expect(await one.metrics()).toContain('crossfade_keys{phase="next"}');
      deploy(name, pem, [two]);
      await two.start();
      await restart(three, () => deploy(name, pem, [three]));
      await expect
        .poll(async () => await fleet.run('keys', 'list'), { timeout: 40_000, interval: 500 })
        .toMatch(new RegExp(`${kid.slice(0, 8)} .*\\n +signs on 3 of 3, verified by 3`));
    });
    for (const member of all()) expect(await signsWith(member)).toBe(kid);
    await operatorSees(one, {
      log: ['key.activated', { kid }],
      metric: /crossfade_keys\{phase="retiring"\} [12]/,
      status: new RegExp(`${kid.slice(0, 8)} +active`),
    });
  }, 90_000);

  it('K1, Law 7: every instance gets a corrupt key, and none notices but the operator', async () => {
    const signing = await signsWith(all()[0]);
    const name = timed('corrupt');
    await under('every instance gets a corrupt key', async () => {
      deploy(name, newPem().slice(0, 90), all());
      for (const member of all()) await expect.poll(() => member.audits('key.rejected')).not.toEqual([]);
    });
    for (const member of all()) expect(await signsWith(member)).toBe(signing);
    await operatorSees(all()[1], {
      log: ['key.rejected', { file: name, reason: 'is cut off: no END line' }],
      metric: /crossfade_signing_health\{state="degraded"\} 1/,
      status: new RegExp(`${name} is cut off: no END line`),
    });
    for (const { keys } of all()) unlinkSync(join(keys, name));
  }, 40_000);

  it('Law 7: the file of the key that signs vanishes', async () => {
    const [one] = all();
    const name = next;
    const pem = readFileSync(join(one.keys, name), 'utf8');
    const signing = await signsWith(one);
    await under('a key file vanishes', async () => {
      unlinkSync(join(one.keys, name));
      await operatorSees(one, {
        log: ['signing.changed', { to: 'degraded' }],
        metric: /crossfade_signing_health\{state="degraded"\} 1/,
        status: new RegExp(`the key of ${name}, which`),
      });
    });
    expect(await signsWith(one)).toBe(signing);
    deploy(name, pem, [one]);
  }, 40_000);

  it('K4, Law 7: a boot with nothing valid serves sessions, verifies what was issued, and recovers without another restart', async () => {
    const [one] = all();
    const good = Object.fromEntries(readdirSync(one.keys).map((name) => [name, readFileSync(join(one.keys, name), 'utf8')]));
    await under('a boot with nothing valid', async () => {
      await restart(one, () => replaceKeys(one, { 'nothing.pem': 'not a key' }));
      expect(one.audits('signing.changed')).toMatchObject([{ from: 'starting', to: 'broken' }]);
      await load.served(300);
      expect(await signsWith(one)).toBeUndefined();
      expect(await readyToIssue(one)).toContain('nothing.pem is not PEM');
      await operatorSees(one, {
        log: ['signing.changed', { from: 'starting', to: 'broken' }],
        metric: /crossfade_signing_health\{state="broken"\} 1/,
        status: /nothing\.pem is not PEM/,
      });
      replaceKeys(one, good);
      await expect.poll(async () => await signsWith(one), { timeout: 15_000 }).toBeDefined();
    }, ['signing']);
  }, 60_000);

  it('another issuer on one instance: it does not sign, says why, and costs nobody their token', async () => {
    const [, , three] = all();
    await under('issuer changed on one instance', async () => {
      await restart(three, () => three.configure((config) => ({ ...config, issuer: 'https://www.example.com' })));
      await load.served(300);
      expect(await signsWith(three)).toBeUndefined();
      expect(await readyToIssue(three)).toContain('issuer https://www.example.com is not that of most live instances (https://app.example.com)');
      await operatorSees(three, {
        log: ['signing.changed', { from: 'starting', to: 'broken' }],
        metric: /crossfade_fleet_differs 1/,
        status: /issuer https:\/\/www\.example\.com is not/,
      });
      await restart(three, () => three.configure((config) => ({ ...config, issuer: 'https://app.example.com' })));
    }, ['signing']);
    expect(await signsWith(three)).toBeDefined();
    expect(await three.metrics()).toContain('crossfade_fleet_differs 0');
  }, 60_000);

  it('K8, K9, Law 10: keys, clamps and revocations that are written to Redis by hand count as absent', async () => {
    const [one] = all();
    const admin = new Redis(redis.url);
    const signing = await signsWith(one);
    const forger = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    let forgedKid = '';
    try {
      await under('a forged public key, clamp and revocation', async () => {
        const old = new Map(
          await Promise.all(['jwks', 'clamps', 'revoked-kids'].map(async (name) => [name, await admin.get(prefix + name)] as const)),
        );
        const forge = async (name: string, payload: unknown) =>
          await admin.set(prefix + name, JSON.stringify({ version: 999, payload: JSON.stringify(payload), mac: 'A'.repeat(43) }));
        const jwk = await exportJWK(forger.publicKey);
        const forgedJwk = { kty: 'EC', crv: 'P-256', x: jwk.x, y: jwk.y, alg: 'ES256', use: 'sig', kid: await calculateJwkThumbprint(jwk) };
        const times = { firstSeenAt: 1, lastSeenAt: Date.now(), signedAt: 1 };
        forgedKid = forgedJwk.kid;
        await forge('jwks', { keys: [{ jwk: forgedJwk, ...times }], policies: [] });
        await forge('clamps', { clamps: [{ selector: { on: 'all' }, stage: 'session-only', by: 'operator', why: 'x', at: Date.now() }] });
        await forge('revoked-kids', { kids: [{ kid: signing, at: Date.now(), how: 'revoked', why: 'x' }] });
        await admin.xadd(
          `${prefix}events`,
          '*',
          'event',
          `${'A'.repeat(43)}.{"type":"subject.ended","subject":"u-person-1","endedAt":${Date.now()},"notBefore":${Date.now()}}`,
        );
        for (const key of ['jwks', 'clamps', 'revoked-kids', 'events']) {
          const isRefused = () => all().some((member) => member.audits('value.refused').some((line) => line['key'] === key));
          await expect.poll(isRefused, { timeout: 15_000 }).toBe(true);
        }
        // An old one, with its MAC, put back.
        await admin.set(`${prefix}jwks`, old.get('jwks') ?? '');
        await load.served(300);
      });
    } finally {
      admin.disconnect();
    }
    expect(await signsWith(one)).toBe(signing);
    const cookie = await world.login('bob');
    const form = { client_id: 'android', grant_type: TOKEN_EXCHANGE, subject_token: cookie, subject_token_type: SESSION_TYPE };
    const { access } = await readTokens(await fetch(`${one.url}/auth/token`, { method: 'POST', body: new URLSearchParams(form) }));
    const forged = await resign(access, forger.privateKey, { header: { kid: forgedKid } });
    for (const { url } of all()) expect((await fetch(`${url}/auth/verify`, { headers: { authorization: `Bearer ${forged}` } })).status).toBe(401);
    expect(await fleet.status()).toMatch(/CLAMPS\n {2}none/);
    // The stream is heard by all; of the others whoever looks first writes them again.
    await operatorSees(one, {
      log: ['value.refused', { key: 'events', reason: 'bad-mac' }],
      metric: /crossfade_refused_values_total\{key="events"\} [1-9]/,
      status: /values in Redis were refused in the last 10 minutes/,
    });
  }, 60_000);

  it('L1, L2: LaunchDarkly goes, and an instance starts without it: the stages stay, and a clamp is in force all the same', async () => {
    const [one, two, three] = all();
    await under('LaunchDarkly gone, then a cold start', async () => {
      await launchDarkly.stop();
      await one.cli.logged('flags.failed');
      await restart(two);
      expect(two.audits('flags.failed')).not.toEqual([]);
      expect(await signsWith(two), 'dual, of the flags that Redis kept').toBeDefined();
      await fleet.run('clamp', 'session-only', '--client', 'android', '--why', 'nothing works');
      for (const member of all()) expect(await signsWith(member)).toBeUndefined();
      expect(await fleet.status()).toMatch(/client android at most session-only, by the operator .* ago\n {4}nothing works/);
      await fleet.run('release', '--client', 'android');
      for (const member of all()) expect(await signsWith(member)).toBeDefined();
      await operatorSees(two, {
        log: ['flags.failed'],
        metric: /crossfade_flags_up 0/,
        status: /the flag source is away: the last known flags are in force/,
      });
      await launchDarkly.start();
      for (const member of [one, two, three])
        await expect.poll(async () => await member.metrics(), { timeout: 40_000, interval: 500 }).toContain('crossfade_flags_up 1');
    });
  }, 90_000);

  it('the guardrail holds a broken cohort within seconds, on every instance; the other cohorts stay as they are', async () => {
    const broken: string[] = [];
    for (let n = 0; n < PEOPLE; n++) broken.push(await brokenSession(`person-${100 + n}`));
    const exchange = async (n: number) => {
      const form = { client_id: 'android', grant_type: TOKEN_EXCHANGE, subject_token: broken[n % PEOPLE] ?? '', subject_token_type: SESSION_TYPE };
      const { url } = all()[n % 3] ?? all()[0];
      return await (await fetch(`${url}/auth/token`, { method: 'POST', body: new URLSearchParams(form) })).text();
    };
    let held = 0;
    let tried = 0;
    const start = performance.now();
    await under('a cohort whose every exchange fails by our own fault', async () => {
      // Until each of the three says so.
      for (; held < 3; tried++) held = (await exchange(tried)).includes('"reason":"guardrail"') ? held + 1 : 0;
    });
    process.stdout.write(
      `fleet: the guardrail held the cohort on all three after ${tried} exchanges, ${((performance.now() - start) / 1000).toFixed(1)} s\n`,
    );
    const [tripped] = all().filter((member) => member.audits('guardrail.tripped').length > 0);
    expect(tripped?.audits('guardrail.tripped')).toMatchObject([{ cohort: 'pilot', of: 'exchange', fault: 'token-too-large' }]);
    if (tripped) {
      await operatorSees(tripped, {
        log: ['guardrail.tripped', { cohort: 'pilot' }],
        metric: /crossfade_guardrail_trips_total\{of="exchange"\} 1/,
        status: /the guardrail holds pilot: exchange: \d+ of \d+ requests/,
      });
    }
    for (const member of all()) expect(await signsWith(member), 'dual, as before').toBeDefined();
    await fleet.run('release', '--cohort', 'pilot');
  }, 60_000);

  it('Redis is killed and comes back: bearers go on, the rest is told to try again, and nobody loses anything', async () => {
    const [one] = all();
    const counts = await under('Redis killed and back', async () => {
      await redis.stop();
      await load.served(300);
      await operatorSees(one, {
        log: ['redis is away; trying again', { connection: 'bridge' }],
        metric: /crossfade_redis_up\{connection="bridge"\} 0/,
        status: /Redis does not answer \(127\.0\.0\.1:\d+: nothing listens there \(ECONNREFUSED\)\)/,
      });
      redis = await startRedis({ port: redis.port, args: [...REDIS_ARGS, '--dir', redisFiles] });
      for (const member of all()) await expect.poll(async () => await readyToIssue(member), { timeout: 15_000 }).toContain('"ready":true');
    }, ['redis']);
    expect(counts.good.bearer).toBeGreaterThan(0);
    await expect.poll(async () => await fleet.status(), { timeout: 15_000, interval: 500 }).toMatch(/^3 live/);
  }, 60_000);

  it('K9: a key that has leaked is revoked: its tokens stop at once, their holders refresh with the spare, and no stale instance brings it back', async () => {
    const [one, two, three] = all();
    // The spare is planned for a day far off.
    deploy('20991231T000000Z-spare.pem', newPem(), all());
    const spare = (
      await one.cli.logged(
        'key.accepted',
        one.cli.lines.findLastIndex((line) => line['file'] === '20991231T000000Z-spare.pem'),
      )
    )['kid'];
    const leaked = (await signsWith(one)) ?? '';
    const cookie = await world.login('bob');
    const form = { client_id: 'android', grant_type: TOKEN_EXCHANGE, subject_token: cookie, subject_token_type: SESSION_TYPE };
    const held = await readTokens(await fetch(`${one.url}/auth/token`, { method: 'POST', body: new URLSearchParams(form) }));
    const status = async ({ url }: Member, token: string) =>
      (await fetch(`${url}/auth/verify`, { headers: { authorization: `Bearer ${token}` } })).status;
    await expect.poll(async () => await fleet.run('keys', 'list'), { timeout: 15_000, interval: 500 }).toMatch(/spare\.pem\n +verified by 3 of 3/);

    // From here on the bearers of the load are bad, and are not shown; sessions are.
    load.show(['session']);
    await under('the key that signs is revoked, with a spare', async () => {
      expect(await fleet.run('keys', 'revoke', leaked.slice(0, 8), '--why', 'in a public repository')).toContain('revoked');
      for (const member of all()) expect(await status(member, held.access)).toBe(401);
      const refresh = async () =>
        await fetch(`${two.url}/auth/token`, {
          method: 'POST',
          body: new URLSearchParams({ client_id: 'android', grant_type: 'refresh_token', refresh_token: held.refresh }),
        });
      const answers: Response[] = [];
      const answered = async () => {
        const answer = await refresh();
        answers.push(answer);
        return answer.status;
      };
      await expect.poll(answered, { timeout: 15_000 }).toBe(200);
      const renewed = await readTokens(answers.at(-1) ?? Response.error());
      // Of those that are left the newest signs; older ones have signed before, and wait for nothing.
      expect(decodeProtectedHeader(renewed.access).kid).not.toBe(leaked);
      for (const member of all()) expect(await status(member, renewed.access)).toBe(200);
    });
    // The file is still there, and this instance has forgotten everything.
    await restart(three);
    await operatorSees(three, {
      log: ['key.rejected', { reason: 'holds a key that was revoked: remove the file' }],
      metric: /crossfade_key_files_rejected 1/,
      status: new RegExp(`${leaked.slice(0, 8)} +revoked`),
    });
    expect(await status(three, held.access)).toBe(401);
    const served = await (await fetch(`${three.url}/.well-known/jwks.json`)).text();
    expect([served.includes(leaked), served.includes(String(spare))]).toEqual([false, true]);
  }, 90_000);
});
