import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { runCli } from '../support/cli.js';
import { type Member, startFleet, type TestFleet } from '../support/fleet.js';
import { type Load, startLoad } from '../support/load.js';
import { SESSION_TYPE, TOKEN_EXCHANGE } from '../support/tokens.js';
import { remember, rememberToken } from '../support/transcript.js';
import { createWorld, type World } from '../support/world.js';

let world: World;
let fleet: TestFleet;
let load: Load;
let prefix: string;
beforeAll(async () => {
  world = await createWorld();
  fleet = await startFleet(world, 3);
  prefix = `${world.config.redis.keyPrefix}fleet:v1:`;
  for (const member of members()) {
    copyFileSync(join(world.directory, 'fleet-secret'), secretOf(member));
    member.configure((config) => ({ ...config, fleetSecretFile: secretOf(member) }));
    await member.stop();
    await member.start();
  }
  const cookies = await Promise.all(Array.from({ length: 9 }, async (_, n) => await world.login(`person-${n}`)));
  load = await startLoad(
    fleet.members.map(({ url }) => url),
    cookies,
  );
}, 120_000);
afterAll(async () => {
  await load.stop();
  await fleet.close();
  await world.close();
});

const members = (): readonly [Member, Member, Member] => {
  const [one, two, three] = fleet.members;
  if (!one || !two || !three) throw new Error('three instances');
  return [one, two, three];
};
const secretOf = ({ name }: Member) => join(world.directory, `${name}-secret`);

async function crossfade(...args: string[]): Promise<string> {
  const [first] = members();
  const { status, stdout, stderr } = await runCli([...args, '--config', first.configFile]);
  if (status !== 0) throw new Error(`${args.join(' ')}: ${status} ${stdout}${stderr}`);
  return stdout;
}

const listSchema = z.object({
  fleet: z.array(
    z.object({
      name: z.string(),
      state: z.string(),
      missing: z.array(z.string()),
      written: z.object({ values: z.number(), ends: z.number(), families: z.number(), sessions: z.number() }),
    }),
  ),
});
const secrets = async () => listSchema.parse(JSON.parse(await crossfade('secrets', 'list', '--json'))).fleet;
const stateOf = async (name: string) => (await secrets()).find((one) => one.name === name)?.state;

/** What every client was answered while `happen` happened: no credential is refused, and no family lost. */
async function under(title: string, happen: () => Promise<void>): Promise<void> {
  load.take();
  await happen();
  await load.served(200);
  const counts = load.take();
  process.stdout.write(
    `fleet secret: ${title}: ${counts.requests} requests, 401: ${counts.unauthorized}, wrong: ${counts.wrong.length}, 503: ${JSON.stringify(counts.unavailable)}, cut: ${counts.cut}\n`,
  );
  expect({ unauthorized: counts.unauthorized, wrong: counts.wrong, unavailable: counts.unavailable }).toEqual({
    unauthorized: 0,
    wrong: [],
    unavailable: {},
  });
}

async function add(): Promise<{ added: string; before: string }> {
  const [first] = members();
  const { added, secrets: names } = z
    .object({ added: z.string(), secrets: z.array(z.string()) })
    .parse(JSON.parse(await crossfade('secrets', 'add', '--json')));
  remember(...readFileSync(secretOf(first), 'utf8').trim().replaceAll('pseudonyms=', '').split('\n'));
  return { added, before: names[1] ?? '' };
}

async function exchange({ url }: Member, name: string): Promise<{ access: string; refresh: string }> {
  const cookie = await world.login(name);
  const form = { client_id: 'android', grant_type: TOKEN_EXCHANGE, subject_token: cookie, subject_token_type: SESSION_TYPE };
  const answer = await fetch(`${url}/auth/token`, { method: 'POST', body: new URLSearchParams(form) });
  expect(answer.status).toBe(200);
  const { access_token: access, refresh_token: refresh } = z
    .object({ access_token: z.string(), refresh_token: z.string() })
    .parse(await answer.json());
  rememberToken(access);
  return { access, refresh };
}

const verify = async ({ url }: Member, bearer: string) =>
  (await fetch(`${url}/auth/verify`, { headers: { authorization: `Bearer ${bearer}` } })).status;
const refresh = async ({ url }: Member, token: string) =>
  await fetch(`${url}/auth/token`, {
    method: 'POST',
    body: new URLSearchParams({ client_id: 'android', grant_type: 'refresh_token', refresh_token: token }),
  });
const logout = async ({ url }: Member, bearer: string) =>
  (await fetch(`${url}/auth/logout`, { method: 'POST', headers: { authorization: `Bearer ${bearer}` } })).status;

/** A logout at one instance is heard by all others within a second, both ways. */
async function logoutsCross(): Promise<void> {
  const [one, two, three] = members();
  for (const [here, there] of [
    [one, three],
    [three, one],
    [two, one],
  ] as const) {
    const { access } = await exchange(here, 'person-101');
    expect(await verify(there, access)).toBe(200);
    expect(await logout(here, access)).toBe(204);
    await expect.poll(async () => await verify(there, access), { timeout: 1000, interval: 20 }).toBe(401);
  }
}

const userKeyOf = async () =>
  /"userKey":"([^"]+)"/.exec(JSON.stringify(JSON.parse(await crossfade('explain', '--subject', 'u-1', '--client', 'web', '--json'))))?.[1];

/** Ends an instance while something happens, without a word, and starts it again. */
async function killing<T>(member: Member, happen: () => Promise<T>): Promise<T> {
  const [found] = await Promise.all([
    happen(),
    (async () => {
      await member.stop('SIGKILL');
      await member.start();
    })(),
  ]);
  return found;
}

/** Brings the file of the first instance to another one, while it runs or by a restart. */
async function bring(member: Member, how: 'live' | 'restart' | 'killed'): Promise<void> {
  const [first] = members();
  if (how === 'killed') await member.stop('SIGKILL');
  if (how === 'restart') await member.stop();
  if (member !== first) writeFileSync(secretOf(member), readFileSync(secretOf(first)));
  if (how !== 'live') await member.start();
}

describe('a fleet secret that rotates under load', () => {
  let ended: string;
  let leaked: string;
  let bucket: string | undefined;
  let before: string;
  let first: string;

  it('begins with one secret, an ended person and a revoked key', async () => {
    const [one] = members();
    const { access } = await exchange(one, 'person-100');
    ended = access;
    const subject = z.object({ sub: z.string() }).parse(JSON.parse(Buffer.from(access.split('.')[1] ?? '', 'base64url').toString())).sub;
    await crossfade('end', '--subject', subject, '--why', 'a ban', '--yes');
    for (const member of members()) await expect.poll(async () => await verify(member, ended), { timeout: 3000 }).toBe(401);
    await crossfade('keys', 'rotate');
    const keys = z.array(z.object({ kid: z.string(), phase: z.string() })).parse(JSON.parse(await crossfade('keys', 'list', '--json')));
    leaked = keys.find(({ phase }) => phase === 'next')?.kid ?? keys[0]?.kid ?? '';
    await crossfade('keys', 'revoke', leaked, '--why', 'leaked');
    bucket = await userKeyOf();
    expect(bucket).toBeDefined();
    const list = await secrets();
    expect(list).toHaveLength(1);
    before = list[0]?.name ?? '';
    first = before;
    expect(list[0]).toMatchObject({ state: 'writes', missing: [] });
  }, 120_000);

  type Step = readonly [0 | 1 | 2, 'live' | 'restart' | 'killed'];
  // The file of the first instance is the one that the command has written.
  it.each<[string, readonly Step[], readonly Step[]]>([
    ['while the instances run, one of them killed meanwhile', [[1, 'killed']], [[2, 'live']]],
    [
      'by restarts, the last one first, one of them killed',
      [[2, 'restart']],
      [
        [1, 'killed'],
        [0, 'restart'],
      ],
    ],
  ])(
    'goes from one secret to the next %s',
    async (title, half, rest) => {
      const [one, two, three] = members();
      // Of these the first comes again once the new secret writes, and the second does not.
      const comes = await exchange(one, 'person-104');
      await exchange(one, 'person-105');
      let added = '';
      await under(`${title}: added`, async () => {
        ({ added } = await killing(two, add));
      });
      await under(`${title}: half the fleet has it`, async () => {
        for (const [at, how] of half) {
          const member = fleet.members[at];
          if (member) await bring(member, how);
        }
        await logoutsCross();
      });
      expect(await stateOf(added)).toBe('opens');
      expect(await stateOf(before)).toBe('writes');
      expect(await fleet.status()).toMatch(new RegExp(`the fleet secret ${added} does not write until`));

      await under(`${title}: all have it`, async () => {
        for (const [at, how] of rest) {
          const member = fleet.members[at];
          if (member) await bring(member, how);
        }
        await expect.poll(async () => await stateOf(added), { timeout: 20_000, interval: 500 }).toBe('writes');
        await expect
          .poll(
            async () => {
              const { values, ends } = (await secrets()).find(({ name }) => name === before)?.written ?? {};
              return values === 0 && ends !== undefined;
            },
            { timeout: 20_000, interval: 500 },
          )
          .toBe(true);
        await logoutsCross();
      });
      for (const member of members()) expect(await verify(member, ended), 'an ended person').toBe(401);
      expect(await world.legacy.redis.get(`${prefix}revoked-kids`)).toMatch(new RegExp(`^${added}:.*${leaked}`));
      expect(await userKeyOf(), 'the bucket of the flags').toBe(bucket);
      expect((await refresh(three, comes.refresh)).status, 'a family from under the old secret').toBe(200);
      await expect.poll(async () => await fleet.status(), { timeout: 20_000, interval: 1000 }).not.toContain('guardrail holds');

      const refused = await runCli(['secrets', 'finish', before, '--config', members()[0].configFile]);
      expect(refused.status).not.toBe(0);
      expect(refused.stderr).toContain('is still needed');
      load.show(['session', 'bearer', 'refresh']);
      await load.served(100);
      await forgetFamilies(before, before === first);
      await under(`${title}: finished`, async () => {
        await killing(three, async () => {
          await expect
            .poll(
              async () => {
                const { stdout, stderr } = await runCli(['secrets', 'finish', before, '--config', members()[0].configFile]);
                return stdout + stderr;
              },
              { timeout: 40_000, interval: 1000 },
            )
            .toContain('opens nothing any more');
        });
      });
      for (const member of members()) {
        const lines = readFileSync(secretOf(member), 'utf8').split('\n');
        writeFileSync(secretOf(member), lines.filter((_, at) => at !== 1).join('\n'));
        if (half[0]?.[1] === 'restart') await bring(member, 'restart');
      }
      for (const member of members()) expect(await verify(member, ended), 'an ended person').toBe(401);
      before = added;
    },
    180_000,
  );

  it('is revoked: families under it end, those under the new one go on, and no cohort is held', async () => {
    const [one, two, three] = members();
    const old = await exchange(one, 'person-102');
    const { added } = await add();
    const early = await runCli(['secrets', 'revoke', before, '--why', 'leaked', '--config', one.configFile]);
    expect(early.stderr).toContain('nothing was done');
    for (const member of [one, two, three]) await bring(member, 'live');
    await expect.poll(async () => await stateOf(added), { timeout: 20_000, interval: 500 }).toBe('writes');
    // No instance writes with it any more.
    await expect.poll(async () => await stateOf(before), { timeout: 20_000, interval: 500 }).toBe('opens');
    const fresh = await exchange(two, 'person-103');
    // Their families are of now, and so are none that the leaked secret could have made.
    load.show(['exchange']);
    await load.served(50);
    load.show(['session', 'bearer', 'refresh']);
    let said = '';
    await under('revoked', async () => {
      said = await killing(two, async () => await crossfade('secrets', 'revoke', before, '--why', 'leaked', '--yes'));
      await load.served(200);
    });
    expect(said).toMatch(/\d+ famil(y|ies) of refresh tokens that stand under .* will end/);
    expect(said).toContain('opens nothing any more');
    for (const member of [one, two, three]) {
      const answer = await refresh(member, old.refresh);
      expect([answer.status, await answer.json()]).toMatchObject([400, { error: 'invalid_grant' }]);
      expect(await verify(member, ended)).toBe(401);
    }
    expect((await refresh(three, fresh.refresh)).status).toBe(200);
    expect(await fleet.status()).not.toContain('guardrail holds');

    // A stale file brings it back nowhere.
    await one.stop();
    await one.start();
    expect((await refresh(one, old.refresh)).status).toBe(400);
    expect(await stateOf(before)).toBe('revoked');
    expect(await world.legacy.redis.get(`${prefix}denied-secrets`)).toMatch(new RegExp(`^${added}:.*${before}`));
  }, 120_000);
});

/** The families and sessions that are still under a secret: their clients did not come, and their time is over. */
async function forgetFamilies(secret: string, isFirst: boolean): Promise<void> {
  const { redis } = world.legacy;
  const isUnder = (written: string | null) => written !== null && (isFirst ? !/^[0-9a-f]{8}:/.test(written) : written.startsWith(`${secret}:`));
  for (const key of await redis.keys(`${prefix}{*}:family:*`)) if (isUnder(await redis.hget(key, 'grant'))) await redis.del(key);
  for (const key of await redis.keys(`${prefix}{*}:session`))
    for (const [field, value] of Object.entries(await redis.hgetall(key))) if (isUnder(value)) await redis.hdel(key, field);
}
