import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeJwt } from 'jose';
import { describe, expect, it } from 'vitest';
import type { ConfigInput } from '../../src/config/config.js';
import { runCli } from '../support/cli.js';
import { expectError } from '../support/expect-error.js';
import { exchangeNative, postExchange, postRefresh, refreshCookie } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import { AUDIENCE, type World, type WorldOptions } from '../support/world.js';

const open = useWorlds();
const ADDED = 'https://reports.example.com';

const unlimited: WorldOptions = {
  configure: (config) => ({ ...config, limits: { ...config.limits, exchangePerSessionPerMinute: 1_000_000 } }),
};

type Configure = (config: ConfigInput) => ConfigInput;
const withAudience =
  (...audience: string[]): Configure =>
  (config) => ({ ...config, audience });

describe('an audience that comes with a rolling deployment', () => {
  it('Law 1: the minority and the majority go on; the new audience is issued once all accept it', async () => {
    const world = await open(unlimited);
    const cookie = await world.login('alice');
    const old = [world, await world.another()];
    const first = await world.another({ configure: withAudience(AUDIENCE, ADDED) });
    await expect.poll(async () => (await postExchange(first, cookie)).status).toBe(200);
    const mixed = [...old, first];
    for (const at of mixed) {
      const tokens = await exchangeNative(at, cookie);
      expect([decodeJwt(tokens.access).aud].flat()).toEqual([AUDIENCE]);
      for (const other of mixed) expect((await other.call('/me', { bearer: tokens.access })).status).toBe(200);
      for (const other of mixed.filter((one) => one !== at)) {
        const again = await exchangeNative(at, cookie);
        expect((await postRefresh(other, again.refresh)).status).toBe(200);
      }
    }
    // Of the new one nothing is issued that some would refuse, and that is no 503 of everything else.
    const early = await postExchange(first, cookie, { audience: ADDED });
    await expectError(early, 503, 'temporarily_unavailable');
    expect((await first.bridge.readiness()).canIssue).toBe(true);
    // The deployment goes on.
    await old[1]?.bridge.close();
    const second = await world.another({ configure: withAudience(AUDIENCE, ADDED) });
    expect((await postExchange(world, cookie)).status).toBe(200);
    await world.bridge.close();
    await expect.poll(async () => (await postExchange(second, cookie, { audience: ADDED })).status, { timeout: 20_000, interval: 500 }).toBe(200);
    const { access } = await exchangeNative(second, cookie, { audience: ADDED });
    expect((await first.call('/me', { bearer: access })).status).toBe(200);
  });

  it('Law 1: put in front, at jwt-only: sessions are served for as long as no token can be made', async () => {
    const world = await open({ ...unlimited, stage: 'jwt-only' });
    const cookie = await world.login('alice');
    const first = await world.another({ configure: withAudience(ADDED, AUDIENCE) });
    const client = { 'x-client-id': 'android' };
    expect((await world.call('/me', { cookie, headers: client })).status).toBe(401);
    await expectError(await postExchange(first, cookie), 503, 'temporarily_unavailable');
    expect((await first.call('/me', { cookie, headers: client })).status).toBe(200);
    await world.bridge.close();
    await expect.poll(async () => (await postExchange(first, cookie)).status, { timeout: 20_000, interval: 500 }).toBe(200);
    expect((await first.call('/me', { cookie, headers: client })).status).toBe(401);
  });

  it('Law 1: one that is taken away is 400 invalid_target, once no live instance accepts it, and the cookie is kept', async () => {
    const world = await open({ configure: (config) => ({ ...config, audience: [AUDIENCE, ADDED] }) });
    const cookie = await world.login('alice');
    const exchanged = await world.exchange(cookie, { audience: ADDED });
    let refresh = refreshCookie(exchanged);
    await readTokensOfBody(exchanged);
    const next = await world.another({ configure: withAudience(AUDIENCE) });
    // While somebody accepts it, it goes on there.
    const origin = { origin: 'https://app.example.com' };
    const ask = async (at: Pick<World, 'post'>) => {
      const answer = await at.post('/auth/token', { grant_type: 'refresh_token', client_id: 'web' }, { cookie: refresh ?? '', headers: origin });
      if (answer.status === 200) refresh = refreshCookie(answer);
      return answer;
    };
    await world.bridge.close();
    await expect
      .poll(
        async () => {
          const response = await ask(next);
          return [response.status, await response.json(), response.headers.getSetCookie()];
        },
        { timeout: 20_000, interval: 500 },
      )
      .toMatchObject([400, { error: 'invalid_target' }, []]);
    // Nothing was ended: with the audience back it goes on.
    const back = await world.another({ configure: withAudience(AUDIENCE, ADDED) });
    await next.bridge.close();
    await expect.poll(async () => (await ask(back)).status, { timeout: 20_000, interval: 500 }).toBe(200);
  });
});

/** Of whoever has logged in last. */
async function setTenant(world: World, tenant: string): Promise<void> {
  await world.editRecord(({ user }) => Object.assign(user, { tenant }));
}

async function readTokensOfBody(response: Response): Promise<void> {
  expect(response.status).toBe(200);
  await response.json();
}

describe('a cohort that instances call otherwise', () => {
  const cohort =
    (name: string): Configure =>
    (config) => ({
      ...config,
      rollout: { ...config.rollout, cohorts: [{ name, client: 'android', tenants: ['acme'] }] },
    });

  it('a clamp on one cohort of a client leaves its other cohorts alone', async () => {
    const world = await open({
      configure: (config) => ({
        ...config,
        rollout: {
          ...config.rollout,
          cohorts: [
            { name: 'pilot', client: 'android', tenants: ['acme'] },
            { name: 'rest', client: 'android' },
          ],
        },
      }),
    });
    const [alice, bob] = [await world.login('alice'), await world.login('person-1')];
    const path = join(world.directory, 'crossfade.json');
    writeFileSync(path, JSON.stringify(world.config));
    expect((await runCli(['clamp', 'session-only', '--cohort', 'rest', '--why', 'a test', '--config', path])).status).toBe(0);
    await expect.poll(async () => (await postExchange(world, bob)).status).toBe(400);
    expect((await postExchange(world, alice)).status).toBe(200);
  });

  it('a clamp holds those that it had, where its name is not known, and that is said', async () => {
    const world = await open({ configure: cohort('pilot') });
    const renamed = await world.another({ configure: cohort('early') });
    const cookie = await world.login('alice');
    await setTenant(world, 'acme');
    expect((await postExchange(renamed, cookie)).status).toBe(200);
    const path = join(world.directory, 'crossfade.json');
    writeFileSync(path, JSON.stringify(world.config));
    const clamped = await runCli(['clamp', 'session-only', '--cohort', 'pilot', '--why', 'a test', '--config', path]);
    expect(clamped.status).toBe(0);
    expect(clamped.stdout).toMatch(/has no cohort pilot: it holds the client and tenants that pilot has here/);
    for (const at of [world, renamed]) await expect.poll(async () => (await postExchange(at, cookie)).status).toBe(400);
    // Nobody else is held by it.
    const other = await world.login('bob');
    await setTenant(world, 'initech');
    expect((await postExchange(renamed, other)).status).toBe(200);
    const status = await runCli(['status', '--config', path]);
    expect(status.stdout).toContain('pilot');
  });
});

describe('an instance that fails where others do not', () => {
  it('Law 1: it is held alone: exchange and refresh are 503 there, the cohort goes on at the others, and an operator can release it', async () => {
    const world = await open(unlimited);
    const sound = [world];
    const cookies: string[] = [];
    for (let n = 0; n < 12; n++) cookies.push(await world.login(`person-${n}`));
    for (const cookie of cookies) for (const at of sound) for (let n = 0; n < 2; n++) await exchangeNative(at, cookie);
    // Who starts now knows how the others do.
    const { redis } = world.legacy;
    const announced = async () => {
      const texts = await Promise.all((await redis.keys(`${world.prefix}fleet:*`)).map(async (key) => await redis.hvals(key)));
      return texts.filter((text) => /"of":"mapping"[^}]*"requests":24/.test(text.join())).length;
    };
    await expect.poll(announced, { timeout: 10_000 }).toBe(1);
    let isBroken = false;
    const failing = await world.another({
      bridge: {
        principal: (session) => {
          if (isBroken) throw new Error('the mapping is broken');
          const user: unknown = Reflect.get(session, 'user');
          return { subject: String(Reflect.get(Object(user), 'id')) };
        },
      },
    });
    const tokens = await exchangeNative(failing, cookies[0] ?? '');
    isBroken = true;
    for (const cookie of cookies) for (let n = 0; n < 4; n++) await postExchange(failing, cookie);
    await failing.log.until((line) => line['audit'] === 'instance.held');
    await expectError(await postRefresh(failing, tokens.refresh), 503, 'temporarily_unavailable');
    expect(await failing.bridge.readiness()).toMatchObject({ ready: true, canIssue: false });
    expect(await failing.metrics()).toContain('crossfade_instance_held 1');
    for (const at of sound) expect((await postExchange(at, cookies[0] ?? '')).status).toBe(200);
    for (const at of [...sound, failing]) expect(at.log.audits('stage.clamped')).toEqual([]);
  });
});
