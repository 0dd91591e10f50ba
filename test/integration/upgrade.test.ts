import { cpSync } from 'node:fs';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { runCli } from '../support/cli.js';
import { type Member, startFleet, type TestFleet } from '../support/fleet.js';
import { type PackedRelease, packThisRelease, unpackLastRelease } from '../support/last-release.js';
import { type Load, startLoad } from '../support/load.js';
import { rememberRefresh, SESSION_TYPE, TOKEN_EXCHANGE } from '../support/tokens.js';
import { rememberCookie, rememberToken } from '../support/transcript.js';
import { createWorld, type World } from '../support/world.js';

// A fleet of release 0.1.0 goes to this release and back, both from packed tarballs, instance by instance, under load. CROSSFADE_MIXED_SECONDS says how long it stays half
// and half, beyond what is done meanwhile.
const MIXED_MS = Number(process.env['CROSSFADE_MIXED_SECONDS'] ?? 3) * 1000;

let release: PackedRelease;
let current: PackedRelease;
let world: World;
let fleet: TestFleet;
let load: Load;
beforeAll(async () => {
  release = unpackLastRelease();
  current = packThisRelease();
  world = await createWorld();
  fleet = await startFleet(world, 3, undefined, release.main);
  const cookies = await Promise.all(Array.from({ length: 12 }, async (_, n) => await world.login(`person-${n}`)));
  load = await startLoad(
    fleet.members.map(({ url }) => url),
    cookies,
  );
}, 120_000);
afterAll(async () => {
  await load.stop();
  await fleet.close();
  await world.close();
  release.remove();
  current.remove();
});

const members = (): readonly [Member, Member, Member] => {
  const [one, two, three] = fleet.members;
  if (!one || !two || !three) throw new Error('three instances');
  return [one, two, three];
};

async function under(title: string, happen: () => Promise<void>): Promise<void> {
  load.take();
  await happen();
  await load.served(200);
  const counts = load.take();
  process.stdout.write(
    `upgrade: ${title}: ${counts.requests} requests, 401: ${counts.unauthorized}, wrong: ${counts.wrong.length}, 503: ${JSON.stringify(counts.unavailable)}, cut: ${counts.cut}\n`,
  );
  expect({ unauthorized: counts.unauthorized, wrong: counts.wrong, unavailable: counts.unavailable }).toEqual({
    unauthorized: 0,
    wrong: [],
    unavailable: {},
  });
}

async function exchange({ url }: Member, name: string): Promise<Response> {
  const form = { client_id: 'android', grant_type: TOKEN_EXCHANGE, subject_token: await world.login(name), subject_token_type: SESSION_TYPE };
  return await fetch(`${url}/auth/token`, { method: 'POST', body: new URLSearchParams(form) });
}

interface Given {
  readonly access: string;
  readonly refresh: string;
}

async function tokensOf(answer: Response): Promise<Given> {
  expect(answer.status).toBe(200);
  const { access_token: access, refresh_token: refresh } = z
    .object({ access_token: z.string(), refresh_token: z.string() })
    .parse(await answer.json());
  rememberToken(access);
  rememberRefresh(refresh);
  return { access, refresh };
}

const verify = async ({ url }: Member, bearer: string) =>
  (await fetch(`${url}/auth/verify`, { headers: { authorization: `Bearer ${bearer}` } })).status;
const post = async ({ url }: Member, path: string, form: Record<string, string>, headers: Record<string, string> = {}) =>
  await fetch(`${url}${path}`, { method: 'POST', body: new URLSearchParams(form), headers });

/** A command of the release that this instance runs. */
async function command(at: Member, isOld: boolean, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await runCli([...args, '--config', at.configFile], undefined, undefined, isOld ? release.main : current.main);
  // The last release writes audit lines there.
  expect([status, isOld ? '' : stderr]).toEqual([0, '']);
  return stdout;
}

/** All that one side does and the other has to follow. */
async function bothFollow(here: Member, there: Member, isOld: boolean): Promise<void> {
  const side = isOld ? 'the last release' : 'this release';
  // A logout.
  const left = await tokensOf(await exchange(here, 'person-100'));
  expect(await verify(there, left.access)).toBe(200);
  expect((await post(here, '/auth/logout', {}, { authorization: `Bearer ${left.access}` })).status).toBe(204);
  await expect.poll(async () => await verify(there, left.access), { timeout: 3000 }).toBe(401);
  expect((await post(there, '/auth/token', { client_id: 'android', grant_type: 'refresh_token', refresh_token: left.refresh })).status, side).toBe(
    400,
  );

  // The end of a person.
  const ended = await tokensOf(await exchange(there, 'person-101'));
  await command(here, isOld, 'end', '--subject', String(decodeJwt(ended.access).sub), '--why', 'a ban', ...(isOld ? [] : ['--yes']));
  for (const at of [here, there]) await expect.poll(async () => await verify(at, ended.access), { timeout: 3000 }).toBe(401);

  // A return, on the other side, of a family that this side has opened.
  const returning = await tokensOf(await exchange(here, 'person-102'));
  const back = await post(there, '/auth/session', { client_id: 'android', refresh_token: returning.refresh });
  expect(back.status).toBe(204);
  const cookie = back.headers
    .getSetCookie()
    .map((line) => line.split(';')[0])
    .join('; ');
  rememberCookie(cookie);
  expect((await fetch(`${here.url}/auth/verify`, { headers: { cookie, 'x-client-id': 'android' } })).status).toBe(200);

  // A clamp.
  await command(here, isOld, 'clamp', 'session-only', '--client', 'ios', '--why', 'a try', '--yes');
  expect(await command(there, !isOld, 'status', '--json')).toMatch(/"why": ?"a try"/);
  await command(there, !isOld, 'release', '--client', 'ios');

  // A key: it signs everywhere, and is revoked everywhere.
  await command(here, isOld, 'keys', 'rotate');
  for (const other of members()) if (other !== here) cpSync(here.keys, other.keys, { recursive: true });
  const signs = async (at: Member) => decodeProtectedHeader((await tokensOf(await exchange(at, 'person-103'))).access).kid;
  const before = await signs(there);
  await expect
    .poll(async () => (await Promise.all([here, there].map(signs))).every((kid) => kid !== before), { timeout: 30_000, interval: 500 })
    .toBe(true);
  const kid = (await signs(here)) ?? '';
  expect(await signs(there)).toBe(kid);
  const leaked = await tokensOf(await exchange(there, 'person-104'));
  await command(here, isOld, 'keys', 'rotate');
  for (const other of members()) if (other !== here) cpSync(here.keys, other.keys, { recursive: true });
  await expect
    .poll(async () => (await Promise.all([here, there].map(signs))).every((one) => one !== kid), { timeout: 30_000, interval: 500 })
    .toBe(true);
  // The load's access tokens under it are given up first.
  load.show(['session', 'refresh']);
  await load.served(100);
  await command(here, isOld, 'keys', 'revoke', kid, '--why', 'leaked');
  for (const at of [here, there]) await expect.poll(async () => await verify(at, leaked.access), { timeout: 5000 }).toBe(401);
  load.show(['session', 'bearer', 'refresh', 'bearer', 'exchange']);
  revoked.push([kid, leaked.access]);
}

const revoked: [kid: string, token: string][] = [];

async function change(member: Member, isOld: boolean): Promise<void> {
  await member.stop();
  await member.start(isOld ? release.main : current.main);
  // What was revoked stays so, whichever release starts.
  for (const [, token] of revoked) expect(await verify(member, token)).toBe(401);
}

describe('a fleet of release 0.1.0', () => {
  it(
    'goes to this release one by one, half and half, and each side follows the other',
    async () => {
      const [one, two, three] = members();
      await under('the first is upgraded', async () => await change(one, false));
      await under('half and half: the new one acts', async () => await bothFollow(one, three, false));
      await under('half and half: an old one acts', async () => await bothFollow(three, one, true));
      await under('half and half: a clamp on those who come', async () => {
        await command(one, false, 'clamp', 'session-only', '--client', 'android', '--why', 'hold', '--yes');
        for (const at of members()) expect((await exchange(at, 'person-105')).status, at.name).toBe(400);
        await command(three, true, 'release', '--client', 'android');
        for (const at of members()) await expect.poll(async () => (await exchange(at, 'person-105')).status).toBe(200);
      });
      await under(`half and half for ${MIXED_MS / 1000} s`, async () => await new Promise((resolve) => setTimeout(resolve, MIXED_MS)));
      const status = z
        .object({
          releases: z.array(z.object({ version: z.string() })),
          lastRelease: z.object({ canStart: z.boolean() }),
          problems: z.array(z.string()),
        })
        .parse(JSON.parse(await command(one, false, 'status', '--json')));
      expect(status.releases.map(({ version }) => version)).toEqual(['0.1.0', '0.2.0']);
      expect(status.lastRelease.canStart).toBe(true);
      expect(
        status.problems.filter((problem) => problem.includes('differs')),
        'versions are no drift',
      ).toEqual([]);
      for (const at of members()) expect(at.audits('value.refused'), 'what one writes the other reads').toEqual([]);
      await under('the second', async () => await change(two, false));
      await under('the third', async () => await change(three, false));
    },
    400_000 + 2 * MIXED_MS,
  );

  it('goes back one by one, and nobody notices', async () => {
    const [one, two, three] = members();
    await command(one, false, 'clamp', 'session-only', '--client', 'unknown', '--why', 'stays', '--yes');
    await under('the first is back', async () => await change(three, true));
    await under('half and half again: an old one acts', async () => await bothFollow(three, one, true));
    await under('the second is back', async () => await change(two, true));
    await under('the third is back', async () => await change(one, true));
    const clamps = await command(one, true, 'status', '--json');
    expect(clamps).toMatch(/"why": ?"stays"/);
    for (const [kid] of revoked) expect(clamps).toContain(kid);
    for (const at of members()) expect(at.audits('value.refused')).toEqual([]);
  }, 400_000);
});
