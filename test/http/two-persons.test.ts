import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cookieHeader } from '../../scripts/lib/legacy-app.js';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { expectError } from '../support/expect-error.js';
import { readKey, resign } from '../support/forge.js';
import {
  exchangeNative,
  postAsBrowser,
  postRefresh,
  postReturn,
  refreshCookie,
  refreshNative,
  TOKEN_EXCHANGE,
  type Tokens,
} from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, ORIGIN, type World } from '../support/world.js';

const open = useWorlds();

let world: World;
beforeAll(async () => {
  world = await createWorld();
});
afterAll(async () => await world.close());

const rolling = {
  configure: (config: World['config']) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, rolling: true })) }),
};

async function me(at: World, credential: { cookie?: string; bearer?: string }): Promise<number> {
  return (await at.call('/me', credential)).status;
}

/** An id that Alice had tokens of, in Bob's hands, with nobody left who watched it. */
async function reused(at: World): Promise<{ cookie: string; key: string; alice: Tokens; bob: Tokens }> {
  const gone = await at.another();
  const cookie = await at.login('alice');
  const key = at.legacy.keys.at(-1) ?? '';
  const alice = await exchangeNative(gone, cookie);
  await gone.close();
  await at.login('bob');
  await at.legacy.redis.set(key, (await at.legacy.redis.get(at.legacy.keys.at(-1) ?? '')) ?? '', 'KEEPTTL');
  return { cookie, key, alice, bob: await exchangeNative(at, cookie) };
}

describe('G5: an id that went from Alice to Bob', () => {
  it('Law 4: ends what Alice had as soon as Bob exchanges, and her token never gets his session', async () => {
    const at = await open(rolling);
    const { key, alice } = await reused(at);
    expect(await me(at, { bearer: alice.access })).toBe(401);
    await at.legacy.redis.pexpire(key, 1);
    await expect.poll(async () => await at.legacy.redis.exists(key)).toBe(0);
    await expectError(await postReturn(at, alice.refresh), 400, 'invalid_grant');
    await expectError(await postRefresh(at, alice.refresh), 400, 'invalid_grant');
  });

  it('ending Alice, or a logout by her, leaves Bob alone', async () => {
    const { cookie, alice, bob } = await reused(world);
    await world.bridge.endSubject('u-alice', { why: 'test' });
    expect((await world.post('/auth/logout', { client_id: 'android', refresh_token: alice.refresh })).status).toBe(204);
    expect(await me(world, { cookie })).toBe(200);
    expect(await me(world, { bearer: bob.access })).toBe(200);
    expect((await postRefresh(world, bob.refresh)).status).toBe(200);
  });
});

describe('C1, X17: two persons in one request', () => {
  it('the way back refuses a bearer and a cookie of another, and a bad bearer, before it does anything', async () => {
    const { refresh } = await exchangeNative(world, await world.login('alice'));
    const bob = await exchangeNative(world, await world.login('bob'));
    const form = { client_id: 'android', refresh_token: refresh };
    await expectError(await world.post('/auth/session', form, { bearer: bob.access }), 400, 'invalid_request');
    await expectError(await world.post('/auth/session', form, { bearer: 'a.b.c' }), 401, 'invalid_token');
    await expectError(await world.post('/auth/session?access_token=x', form), 400, 'invalid_request');
    const pair = refreshCookie(await world.exchange(await world.login('alice'))) ?? '';
    const bobs = await world.login('bob');
    await expectError(await postAsBrowser(world, '/auth/session', `${pair}; ${bobs}`), 400, 'invalid_request');
    expect(world.log.audits('principal.conflict').at(-1)).toMatchObject({ where: 'return' });
    expect((await postReturn(world, refresh)).status).toBe(204);
  });

  it('a client that goes back or logs out may hold a bearer that has run out', async () => {
    const { refresh, access } = await exchangeNative(world, await world.login('alice'));
    const old = await resign(access, readKey(world.directory), { claims: { iat: 1_700_000_000, exp: 1_700_000_600 } });
    const form = { client_id: 'android', refresh_token: refresh };
    expect((await world.post('/auth/session', form, { bearer: old })).status).toBe(204);
    await expectError(await world.post('/auth/logout', {}, { bearer: old }), 401, 'invalid_token');
    expect((await world.post('/auth/logout', form, { bearer: old })).status).toBe(204);
  });

  it('one who changes the tenant within a session is one person still', async () => {
    const cookie = await world.login('alice');
    const key = world.legacy.keys.at(-1) ?? '';
    const pair = refreshCookie(await world.exchange(cookie)) ?? '';
    const bearer = await world.token(cookie);
    await world.editRecord(({ user }) => Object.assign(user, { tenant: 'globex' }), key);
    const refreshed = await postAsBrowser(world, '/auth/token', `${cookie}; ${pair}`, { grant_type: 'refresh_token' });
    expect(refreshed.status).toBe(200);
    expect((await postAsBrowser(world, '/auth/session', `${cookie}; ${refreshCookie(refreshed)}`)).status).toBe(204);
    const both = { cookie, bearer, headers: { origin: ORIGIN } };
    expect((await world.post('/auth/token', { grant_type: TOKEN_EXCHANGE }, both)).status).toBe(200);
    expect((await world.post('/auth/logout', {}, both)).status).toBe(204);
    expect(await me(world, { bearer })).toBe(401);
  });

  it('the refresh refuses them as well; a bearer of its own that has run out is let pass', async () => {
    const alice = await exchangeNative(world, await world.login('alice'));
    const bob = await exchangeNative(world, await world.login('bob'));
    const form = { grant_type: 'refresh_token', client_id: 'android', refresh_token: alice.refresh };
    await expectError(await world.post('/auth/token', form, { bearer: bob.access }), 400, 'invalid_request');
    await expectError(await world.post('/auth/token?access_token=x', form), 400, 'invalid_request');
    const pair = refreshCookie(await world.exchange(await world.login('alice'))) ?? '';
    const bobs = await world.login('bob');
    const refresh = { grant_type: 'refresh_token' };
    await expectError(await world.post('/auth/token', refresh, { cookie: `${pair}; ${bobs}`, headers: { origin: ORIGIN } }), 400, 'invalid_request');
    expect((await world.post('/auth/token', form, { bearer: alice.access })).status).toBe(200);
  });
});

describe('Law 6: a session that was brought back and the one that it continues', () => {
  /** Two families of a session whose record has run out. */
  async function outlived(at: World) {
    const cookie = await at.login('alice');
    const key = at.legacy.keys.at(-1) ?? '';
    await at.legacy.redis.pexpire(key, 1500);
    const [used, sibling] = [await exchangeNative(at, cookie), await exchangeNative(at, cookie)];
    await at.legacy.redis.pexpire(key, 1);
    await expect.poll(async () => await at.legacy.redis.exists(key)).toBe(0);
    return { used, sibling };
  }

  async function broughtBack(at: World) {
    const { used, sibling } = await outlived(at);
    const restored = cookieHeader(await postReturn(at, used.refresh));
    const restoredKey = /koa\.sess=([^;]+)/.exec(restored)?.[1] ?? '';
    expect(await me(at, { cookie: restored })).toBe(200);
    return { used, sibling, restored, restoredKey };
  }

  it.each<[string, (at: World, session: Awaited<ReturnType<typeof broughtBack>>) => Promise<unknown>]>([
    ['a logout by its cookie', async (at, { restored }) => await postAsBrowser(at, '/auth/logout', restored)],
    ['a logout by an old access token', async (at, { used }) => await at.post('/auth/logout', {}, { bearer: used.access })],
    [
      'a logout of the legacy app alone',
      async (at, { restored, restoredKey }) => {
        const { refresh } = await exchangeNative(at, restored);
        await at.legacy.redis.del(restoredKey);
        await postRefresh(at, refresh);
      },
    ],
  ])('%s ends both, and every family of either', async (_, logOut) => {
    const at = await open(rolling);
    const session = await broughtBack(at);
    await logOut(at, session);
    for (const { access, refresh } of [session.used, session.sibling]) {
      await expect.poll(async () => await me(at, { bearer: access })).toBe(401);
      await expectError(await postRefresh(at, refresh), 400, 'invalid_grant');
      await expectError(await postReturn(at, refresh), 400, 'invalid_grant');
    }
    expect(await me(at, { cookie: session.restored })).toBe(401);
    await at.legacy.redis.del(session.restoredKey);
  });

  it('G5: whose id has gone to somebody else since is neither opened by a retry nor ended with it', async () => {
    const at = await open(rolling);
    const { used, sibling, restored, restoredKey } = await broughtBack(at);
    await at.login('bob');
    await at.legacy.redis.set(restoredKey, (await at.legacy.redis.get(at.legacy.keys.at(-1) ?? '')) ?? '', 'KEEPTTL');
    const bob = await exchangeNative(at, restored);
    await expectError(await postReturn(at, used.refresh), 400, 'invalid_grant');
    expect((await at.post('/auth/logout', { client_id: 'android', refresh_token: used.refresh })).status).toBe(204);
    expect((await at.post('/auth/logout', { client_id: 'android', refresh_token: sibling.refresh })).status).toBe(204);
    await at.bridge.endSubject('u-alice', { why: 'test' });
    expect(await me(at, { cookie: restored })).toBe(200);
    expect(await me(at, { bearer: bob.access })).toBe(200);
    expect((await postRefresh(at, bob.refresh)).status).toBe(200);
    await expectError(await postRefresh(at, sibling.refresh), 400, 'invalid_grant');
    await at.legacy.redis.del(restoredKey);
  });

  it('a retry after a logout that came in between gets nothing, and what was brought back ends', async () => {
    const at = await open(rolling);
    const { used, sibling, restored, restoredKey } = await broughtBack(at);
    // As if the answer had got lost before the two were linked.
    const { redis } = at.legacy;
    for (const key of await redis.keys(`${at.prefix}*:session`)) {
      for (const field of await redis.hkeys(key)) if (field.startsWith('link:')) await redis.hdel(key, field);
    }
    expect((await at.post('/auth/logout', { client_id: 'android', refresh_token: sibling.refresh })).status).toBe(204);
    await expectError(await postReturn(at, used.refresh), 400, 'invalid_grant');
    expect(await me(at, { cookie: restored })).toBe(401);
    expect(await redis.exists(restoredKey)).toBe(0);
  });

  it('X12: a logout by the refresh token that went back leaves a tombstone, and nobody else on the old id is concerned', async () => {
    const at = await open(rolling);
    const cookie = await at.login('alice');
    const key = at.legacy.keys.at(-1) ?? '';
    await at.legacy.redis.pexpire(key, 1500);
    const { refresh } = await exchangeNative(at, cookie);
    await at.legacy.redis.pexpire(key, 1);
    await expect.poll(async () => await at.legacy.redis.exists(key)).toBe(0);
    const restored = cookieHeader(await postReturn(at, refresh));
    const restoredKey = /koa\.sess=([^;]+)/.exec(restored)?.[1] ?? '';
    const record = (await at.legacy.redis.get(restoredKey)) ?? '';
    // The old id is Bob's by now.
    await at.login('bob');
    await at.legacy.redis.set(key, (await at.legacy.redis.get(at.legacy.keys.at(-1) ?? '')) ?? '', 'PX', 60_000);
    const bob = await exchangeNative(at, cookie);
    expect((await at.post('/auth/logout', { client_id: 'android', refresh_token: refresh })).status).toBe(204);
    await at.legacy.redis.set(restoredKey, record, 'PX', 60_000);
    expect(await me(at, { cookie: restored })).toBe(401);
    expect(await me(at, { cookie })).toBe(200);
    expect(await me(at, { bearer: bob.access })).toBe(200);
    expect((await postRefresh(at, bob.refresh)).status).toBe(200);
    await at.legacy.redis.del(restoredKey);
  });

  it('a way back that Redis refuses again and again leaves no links behind that would hide the one that counts', async () => {
    const records = await startRedis();
    const at = await createWorld({ ...rolling, legacy: { redisUrl: records.url } });
    try {
      const { used, sibling } = await outlived(at);
      await at.legacy.redis.config('SET', 'maxmemory', '1');
      for (let time = 0; time < 20; time++) await expectError(await postReturn(at, used.refresh), 503, 'temporarily_unavailable');
      await at.legacy.redis.config('SET', 'maxmemory', '0');
      const restored = cookieHeader(await postReturn(at, used.refresh));
      expect(await me(at, { cookie: restored })).toBe(200);
      expect((await at.post('/auth/logout', { client_id: 'android', refresh_token: sibling.refresh })).status).toBe(204);
      expect(await me(at, { cookie: restored })).toBe(401);
    } finally {
      await at.close();
      await records.stop();
    }
  });

  it('F6: a part that is out of its grace does not get the session that a later one went back to', async () => {
    const at = await open({
      configure: (config) => rolling.configure({ ...config, tokens: { ...config.tokens, reuseGraceSeconds: 0 } }),
    });
    const cookie = await at.login('alice');
    const key = at.legacy.keys.at(-1) ?? '';
    const first = await exchangeNative(at, cookie);
    const second = await refreshNative(at, first.refresh);
    await at.legacy.redis.pexpire(key, 1500);
    const third = await refreshNative(at, second.refresh);
    await at.legacy.redis.pexpire(key, 1);
    await expect.poll(async () => await at.legacy.redis.exists(key)).toBe(0);
    const restored = cookieHeader(await postReturn(at, third.refresh));
    for (const { refresh } of [first, second]) await expectError(await postReturn(at, refresh), 400, 'invalid_grant');
    expect(cookieHeader(await postReturn(at, third.refresh))).toBe(restored);
    await at.legacy.redis.del(/koa\.sess=([^;]+)/.exec(restored)?.[1] ?? '');
  });

  it('G7: at recall a client whose session cannot be made anew goes on refreshing', async () => {
    const at = await open({
      legacy: { session: { genid: () => `s${Math.floor(Math.random() * 1e9)}` } },
      configure: (config) => rolling.configure({ ...config, sessions: (config.sessions ?? []).map((one) => ({ ...one, idPattern: 's\\d{1,10}' })) }),
    });
    const cookie = await at.login('alice');
    const key = at.legacy.keys.at(-1) ?? '';
    await at.legacy.redis.pexpire(key, 1500);
    const { refresh } = await exchangeNative(at, cookie);
    await at.legacy.redis.pexpire(key, 1);
    await expect.poll(async () => await at.legacy.redis.exists(key)).toBe(0);
    await at.setFlags({ 'auth-migration-stage': 'recall' });
    expect((await postRefresh(at, refresh)).status).toBe(200);
  });
});
