import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { resign } from '../support/forge.js';
import { exchangeNative, postExchange, postRefresh, refreshNative } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import type { World, WorldOptions } from '../support/world.js';

const open = useWorlds();

/** Cohort `pilot`: those of the tenant acme. */
const pilot: WorldOptions = {
  configure: (config) => ({
    ...config,
    limits: { ...config.limits, exchangePerSessionPerMinute: 1_000_000 },
    rollout: { ...config.rollout, cohorts: [{ name: 'pilot', client: 'android', tenants: ['acme'] }] },
  }),
};

/** Somebody of a tenant, with a record that gives far too large a token where `broken`. */
async function somebody(world: World, name: string, tenant: string, broken: boolean): Promise<string> {
  const cookie = await world.login(name);
  const key = world.legacy.keys.at(-1) ?? '';
  const record = JSON.parse((await world.legacy.redis.get(key)) ?? '{}');
  record.user.tenant = tenant;
  if (broken) record.user.roles = Array.from({ length: 250 }, (_, n) => `role-${n}-`.padEnd(100, 'x'));
  await world.legacy.redis.set(key, JSON.stringify(record), 'KEEPTTL');
  return cookie;
}

async function people(world: World, count: number, tenant: string, broken = false): Promise<string[]> {
  const cookies: string[] = [];
  for (let n = 0; n < count; n++) cookies.push(await somebody(world, `person-${n}`, tenant, broken));
  return cookies;
}

describe('the guardrail', () => {
  it('holds a cohort that the bridge fails, on every instance, until it is released; nobody else notices', async () => {
    const world = await open(pilot);
    const other = await world.another();
    const [broken, good] = [await people(world, 12, 'acme', true), await people(world, 12, 'initech')];
    for (const cookie of good) await exchangeNative(world, cookie);
    for (const cookie of [...broken, ...broken]) expect((await postExchange(world, cookie)).status).toBe(400);
    await world.log.until((line) => line['audit'] === 'stage.clamped');
    expect(world.log.audits('guardrail.tripped')).toMatchObject([{ cohort: 'pilot', of: 'issuing', fault: 'token-too-large' }]);
    expect(world.log.audits('stage.clamped')).toMatchObject([{ on: 'cohort', name: 'pilot', stage: 'session-only', by: 'guardrail' }]);
    expect(await world.metrics()).toContain('crossfade_guardrail_trips_total{of="issuing"} 1');
    for (const at of [world, other]) {
      const refused = async () => await (await postExchange(at, broken[0] ?? '')).json();
      await expect.poll(refused).toMatchObject({ error: 'unauthorized_client', stage: 'session-only', reason: 'guardrail' });
      await exchangeNative(at, good[0] ?? '');
      expect((await at.call('/me', { cookie: broken[0] ?? '' })).status, 'sessions go on').toBe(200);
    }
    expect(world.log.audits('guardrail.tripped')).toHaveLength(1);
  });

  it.each([
    ['fewer requests than minRequests', 19, 19],
    ['fewer people than minSubjects', 40, 9],
  ])('judges nothing with %s', async (_what, requests, persons) => {
    const world = await open(pilot);
    const broken = await people(world, persons, 'acme', true);
    for (let at = 0; at < requests; at++) await postExchange(world, broken[at % persons] ?? '');
    expect(await world.metrics()).toContain(`crossfade_own_faults_total{of="issuing",fault="token-too-large"} ${requests}`);
    expect(world.log.audits('guardrail.tripped')).toEqual([]);
  });

  it('does not hold a cohort for the sake of one person whose record is odd', async () => {
    const world = await open(pilot);
    const [odd] = await people(world, 1, 'acme', true);
    for (const cookie of await people(world, 12, 'acme')) await exchangeNative(world, cookie);
    for (let at = 0; at < 60; at++) await postExchange(world, odd ?? '');
    expect(world.log.audits('guardrail.tripped')).toEqual([]);
  });

  it('junk from outside cannot trip it: nothing that it sends is a fault of ours, and no handler is reached', async () => {
    const world = await open(pilot);
    const cookies = await people(world, 12, 'acme');
    const tokens = await Promise.all(cookies.map(async (cookie) => await exchangeNative(world, cookie)));
    const kid = world.bridge.signing().activeKid ?? '';
    const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    const before = world.reached();
    for (const { access, refresh, sid, family } of tokens) {
      const [head, body, signature] = access.split('.');
      const forged = [
        `${head}.${body}.${signature?.slice(0, -4)}AAAA`,
        `${head}.${body}.${randomBytes(64).toString('base64url')}`,
        await resign(access, stranger, { header: { kid }, claims: { aud: 'https://elsewhere.example' } }),
      ];
      for (const bearer of forged) expect((await world.call('/me', { bearer })).status).toBe(401);
      for (const junk of [`xfr1.${sid}.${family}.${'A'.repeat(43)}.${'B'.repeat(43)}`, refresh.replace(/.{8}$/, 'AAAAAAAA'), 'xfr1.x.y.z.w'])
        expect((await postRefresh(world, junk)).status).toBe(400);
      expect((await postExchange(world, 'koa.sess=junk; koa.sess.sig=junk')).status).toBe(400);
    }
    expect(world.reached()).toBe(before);
    expect(await world.metrics()).not.toContain('crossfade_own_faults_total{');
    expect(world.log.audits('guardrail.tripped')).toEqual([]);
    for (const cookie of cookies) await exchangeNative(world, cookie);
  });

  it('sees a refresh of families that nobody has ended and that are lost', async () => {
    const world = await open(pilot);
    const tokens = await Promise.all((await people(world, 24, 'acme')).map(async (cookie) => await exchangeNative(world, cookie)));
    for (const { refresh } of tokens.slice(0, 1)) await refreshNative(world, refresh);
    // Somebody has written over what the bridge keeps of them.
    for (const { sid, family } of tokens) await world.legacy.redis.hset(`${world.prefix}{${sid}}:family:${family}`, 'grant', 'AAAA');
    for (const { refresh } of tokens) await postRefresh(world, refresh);
    await world.log.until((line) => line['audit'] === 'stage.clamped');
    expect(world.log.audits('guardrail.tripped')).toMatchObject([{ of: 'issuing', fault: 'lost-family' }]);
  });
});
