import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
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
  const tooMany = Array.from({ length: 250 }, (_, n) => `role-${n}-`.padEnd(100, 'x'));
  await world.editRecord(({ user }) => Object.assign(user, { tenant }, broken ? { roles: tooMany } : {}));
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
    expect(world.log.audits('guardrail.tripped')).toMatchObject([{ cohort: 'pilot', of: 'exchange', fault: 'token-too-large' }]);
    expect(world.log.audits('stage.clamped')).toMatchObject([{ on: 'cohort', name: 'pilot', stage: 'session-only', by: 'guardrail' }]);
    expect(await world.metrics()).toContain('crossfade_guardrail_trips_total{of="exchange"} 1');
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
    expect(await world.metrics()).toContain(`crossfade_own_faults_total{of="exchange",fault="token-too-large"} ${requests}`);
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

  it('a token for another audience that comes back to us is refused rightly, however often', async () => {
    const world = await open(pilot);
    for (const cookie of await people(world, 12, 'acme')) {
      const { access } = await exchangeNative(world, cookie, { audience: 'https://orders.internal' });
      for (let at = 0; at < 4; at++) expect((await world.call('/me', { bearer: access })).status).toBe(401);
    }
    expect(await world.metrics()).not.toContain('crossfade_own_faults_total{');
  });

  it('sees that every exchange fails, however many refreshes are good', async () => {
    const world = await open(pilot);
    for (const cookie of await people(world, 6, 'acme')) {
      let { refresh } = await exchangeNative(world, cookie);
      for (let at = 0; at < 15; at++) refresh = (await refreshNative(world, refresh)).refresh;
    }
    for (const cookie of await people(world, 12, 'acme', true)) for (let at = 0; at < 3; at++) await postExchange(world, cookie);
    await world.log.until((line) => line['audit'] === 'stage.clamped');
    expect(world.log.audits('guardrail.tripped')).toMatchObject([{ cohort: 'pilot', of: 'exchange' }]);
  });

  const failingMapping = (fails: (id: string) => boolean): WorldOptions => ({
    bridge: {
      principal: (record) => {
        const { user } = z.object({ user: z.object({ id: z.string() }) }).parse(record);
        if (fails(user.id)) throw new Error('the mapping is broken');
        return { subject: user.id };
      },
    },
  });
  const unlimited: WorldOptions = { configure: (config) => ({ ...config, limits: { ...config.limits, exchangePerSessionPerMinute: 1_000_000 } }) };

  it('sees that sessions cannot be mapped any more, but not for one person with many sessions', async () => {
    const world = await open({ ...unlimited, ...failingMapping((id) => id === 'u-person-0') });
    const [good, odd] = [await people(world, 12, 'acme'), [] as string[]];
    for (let at = 0; at < 10; at++) odd.push(await world.login('person-0'));
    for (const cookie of good.slice(1)) for (let at = 0; at < 2; at++) await exchangeNative(world, cookie);
    for (const cookie of odd) for (let at = 0; at < 2; at++) expect((await postExchange(world, cookie)).status).toBe(503);
    expect(world.log.audits('guardrail.tripped')).toEqual([]);

    const all = await open({ ...unlimited, ...failingMapping(() => true) });
    for (const cookie of await people(all, 12, 'acme')) for (let at = 0; at < 2; at++) await postExchange(all, cookie);
    await all.log.until((line) => line['audit'] === 'stage.clamped');
    expect(all.log.audits('guardrail.tripped')).toMatchObject([{ cohort: 'android', of: 'mapping' }]);
  });

  it('holds nobody where it cannot know which cohort fails', async () => {
    const world = await open({ ...pilot, ...failingMapping(() => true) });
    for (const cookie of await people(world, 12, 'acme')) for (let at = 0; at < 2; at++) await postExchange(world, cookie);
    expect(await world.metrics()).toContain('crossfade_own_faults_total{of="mapping",fault="mapping"} 24');
    expect(world.log.audits('guardrail.tripped')).toEqual([]);
  });

  it('sees a refresh of families that nobody has ended and that are lost', async () => {
    const world = await open(unlimited);
    const tokens = await Promise.all((await people(world, 24, 'acme')).map(async (cookie) => await exchangeNative(world, cookie)));
    for (const { refresh } of tokens.slice(0, 1)) await refreshNative(world, refresh);
    // Somebody has written over what the bridge keeps of them.
    for (const { sid, family } of tokens) await world.legacy.redis.hset(`${world.prefix}{${sid}}:family:${family}`, 'grant', 'AAAA');
    for (const { refresh } of tokens) await postRefresh(world, refresh);
    await world.log.until((line) => line['audit'] === 'stage.clamped');
    expect(world.log.audits('guardrail.tripped')).toMatchObject([{ cohort: 'android', of: 'refresh', fault: 'lost-family' }]);
  });
});
