import { randomBytes } from 'node:crypto';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ConfigInput } from '../../src/config/config.js';
import { runCli } from '../support/cli.js';
import { expectError } from '../support/expect-error.js';
import { rotateFleetSecret } from '../support/fleet-secrets.js';
import type { Instance } from '../support/instance.js';
import { basic, exchangeNative, postAsBrowser, refreshCookie } from '../support/tokens.js';
import { remember } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import { CLIENT_SECRETS, type World } from '../support/world.js';

// An instance whose fleetSecretFile opens nothing of what the fleet writes.

const open = useWorlds();
const withFile = (fleetSecretFile: string) => (config: ConfigInput) => ({ ...config, fleetSecretFile });
const me = async (at: Instance, bearer: string) => (await at.call('/me', { bearer })).status;

async function startStranger(world: World): Promise<Instance> {
  const secret = randomBytes(32).toString('base64url');
  remember(secret);
  writeFileSync(join(world.directory, 'other-secret'), `${secret}\n`);
  const stranger = await world.another({ configure: withFile('other-secret') });
  expect((await stranger.bridge.readiness()).canIssue).toBe(false);
  return stranger;
}

describe('an instance with a secret that no other one has', () => {
  it.each([
    ['logout', async (at: Instance, refresh: string) => await at.post('/auth/logout', { client_id: 'android', refresh_token: refresh })],
    ['revoke', async (at: Instance, refresh: string) => await at.post('/auth/revoke', { client_id: 'android', token: refresh })],
    [
      'introspect',
      async (at: Instance, refresh: string) =>
        await at.post('/auth/introspect', { token: refresh }, { headers: basic('orders-api', CLIENT_SECRETS['orders-api']) }),
    ],
  ])('answers 503 to %s by a refresh token that it cannot read, and ends nothing', async (_what, ask) => {
    const world = await open();
    const stranger = await startStranger(world);
    const tokens = await exchangeNative(world, await world.login('alice'));
    const answer = await ask(stranger, tokens.refresh);
    await expectError(answer, 503, 'temporarily_unavailable');
    expect(answer.headers.getSetCookie()).toEqual([]);
    const key = `${world.prefix}{${tokens.sid}}:family:${tokens.family}`;
    expect(await world.legacy.redis.hget(key, 'ended')).toBeNull();
    expect(await me(world, tokens.access)).toBe(200);
  });

  it('answers 503 to the logout of a browser by its refresh cookie, and clears none', async () => {
    const world = await open();
    const stranger = await startStranger(world);
    const cookie = refreshCookie(await world.exchange(await world.login('alice'))) ?? '';
    const answer = await postAsBrowser(stranger, '/auth/logout', cookie);
    await expectError(answer, 503, 'temporarily_unavailable');
    expect(answer.headers.getSetCookie()).toEqual([]);
    // The fleet ends it.
    expect((await postAsBrowser(world, '/auth/logout', cookie)).status).toBe(204);
  });

  it('answers 503 to a logout by the session cookie and to the end of a person, before anything of it is done', async () => {
    const world = await open();
    const stranger = await startStranger(world);
    const cookie = await world.login('alice');
    const record = world.legacy.keys.at(-1) ?? '';
    const tokens = await exchangeNative(world, cookie);
    await expectError(await postAsBrowser(stranger, '/auth/logout', cookie), 503, 'temporarily_unavailable');
    await expect(stranger.bridge.endSubject('u-alice', { why: 'a test' })).rejects.toMatchObject({ code: 'temporarily_unavailable' });
    expect(await world.legacy.redis.exists(record)).toBe(1);
    expect(await world.legacy.redis.exists(`${world.prefix}persons-ended`)).toBe(0);
    expect([await me(world, tokens.access), (await world.call('/me', { cookie })).status]).toEqual([200, 200]);
  });

  it('writes no note on cookie secrets', async () => {
    const world = await open();
    await expect.poll(async () => await world.legacy.redis.hlen(`${world.prefix}cookie-secrets`)).toBeGreaterThan(0);
    const before = await world.legacy.redis.hgetall(`${world.prefix}cookie-secrets`);
    const stranger = await startStranger(world);
    await stranger.call('/me', { cookie: await world.login('alice') });
    await stranger.bridge.reloadKeys();
    const after = await world.legacy.redis.hgetall(`${world.prefix}cookie-secrets`);
    const fields = Object.keys(after).filter((field) => field.startsWith('note') && before[field] !== after[field]);
    expect(fields).toEqual([]);
  });

  it('has commands that end nobody, and say so', async () => {
    const world = await open();
    await startStranger(world);
    const tokens = await exchangeNative(world, await world.login('alice'));
    const config = join(world.directory, 'stranger.json');
    writeFileSync(config, JSON.stringify(withFile('other-secret')(world.config)));
    const { status, stderr } = await runCli(['end', '--subject', 'u-alice', '--yes', '--why', 'a test', '--config', config]);
    expect([status, stderr]).toEqual([2, expect.stringMatching(/fleet secret that is not in fleetSecretFile.*nothing was done/)]);
    expect(await world.legacy.redis.exists(`${world.prefix}persons-ended`)).toBe(0);
    expect(await me(world, tokens.access)).toBe(200);
  });
});

describe('an instance that was away while the fleet went on to another secret', () => {
  it('Law 6: never lets in what was logged out meanwhile, whenever its file gets the new line', async () => {
    const world = await open();
    copyFileSync(join(world.directory, 'fleet-secret'), join(world.directory, 'late-secret'));
    await rotateFleetSecret(world);
    const [out, goesOn] = [await exchangeNative(world, await world.login('alice')), await exchangeNative(world, await world.login('bob'))];
    expect((await world.post('/auth/logout', {}, { bearer: out.access })).status).toBe(204);

    const late = await world.another({ configure: withFile('late-secret') });
    expect([await me(late, out.access), await me(late, goesOn.access)]).toEqual([503, 503]);
    writeFileSync(join(world.directory, 'late-secret'), readFileSync(join(world.directory, 'fleet-secret')));
    const seen = new Set<number>();
    await expect
      .poll(
        async () => {
          seen.add(await me(late, out.access));
          return await me(late, goesOn.access);
        },
        { interval: 5 },
      )
      .toBe(200);
    seen.add(await me(late, out.access));
    expect([...seen].sort()).toEqual([401, 503]);
  });
});

describe('junk in the Redis of a fleet', () => {
  it('one announcement and one event under a name that nobody has keep no bearer and no logout from two instances', async () => {
    const world = await open();
    const other = await world.another();
    const tokens = await exchangeNative(world, await world.login('alice'));
    const { redis } = world.legacy;
    await redis.xadd(`${world.prefix}events`, '*', 'event', 'deadbeef:x');
    const [seconds] = await redis.time();
    await redis.zadd(`${world.prefix}fleet`, Number(seconds) * 1000 + 14_000, 'stranger');
    await redis.hset(`${world.prefix}fleet:stranger`, 'announcement', 'deadbeef:x');
    const met = (at: Instance, key: string) => at.log.audits('value.refused').some((line) => line['key'] === key);
    for (const at of [world, other]) await expect.poll(() => met(at, 'fleet') && met(at, 'events'), { timeout: 15_000 }).toBe(true);
    expect([await me(world, tokens.access), await me(other, tokens.access)]).toEqual([200, 200]);
    expect((await world.post('/auth/logout', {}, { bearer: tokens.access })).status).toBe(204);
    await expect.poll(async () => await me(other, tokens.access)).toBe(401);
  }, 60_000);

  it('in the place of clamps it stops what is issued by the only instance that starts, and neither logouts nor commands', async () => {
    const world = await open();
    const tokens = await exchangeNative(world, await world.login('alice'));
    await world.bridge.close();
    await world.legacy.redis.set(`${world.prefix}clamps`, 'junk');
    const fresh = await world.another();
    expect((await fresh.bridge.readiness()).canIssue).toBe(false);
    expect(await me(fresh, tokens.access)).toBe(200);
    expect((await fresh.post('/auth/logout', {}, { bearer: tokens.access })).status).toBe(204);
    expect(await me(fresh, tokens.access)).toBe(401);
    const config = join(world.directory, 'commands.json');
    writeFileSync(config, JSON.stringify(world.config));
    const ended = await runCli(['end', '--subject', 'u-bob', '--why', 'a test', '--yes', '--config', config]);
    expect([ended.stderr, ended.stdout]).toEqual(['', expect.stringContaining('Ended')]);
  }, 60_000);
});
