import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { expectError } from '../support/expect-error.js';
import { readKey, resign } from '../support/forge.js';
import type { Instance } from '../support/instance.js';
import { exchangeNative, postAsBrowser, postExchange, postRefresh, refreshCookie, SESSION_TYPE } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, ORIGIN, sharedRedisUrl, type World } from '../support/world.js';

const open = useWorlds();

let world: World;
let other: Instance;
beforeAll(async () => {
  world = await createWorld();
  other = await world.another();
});
afterAll(async () => await world.close());

const CLEARED = [
  expect.stringMatching(/^__Secure-xfr=; Path=\/auth; Expires=Thu, 01 Jan 1970/),
  expect.stringMatching(/^koa\.sess=; Path=\/; Expires=Thu, 01 Jan 1970/),
  expect.stringMatching(/^koa\.sess\.sig=; Path=\/; Expires=Thu, 01 Jan 1970/),
];

async function me(at: Instance, credential: { cookie?: string; bearer?: string }): Promise<number> {
  return (await at.call('/me', credential)).status;
}

/** The key of the record that was written last. */
function lastKey(at: World): string {
  return at.legacy.keys.at(-1) ?? '';
}

describe('Law 6: POST /auth/logout is total', () => {
  it('B10, F7, by sid: by cookie the record, every token of the session and every refresh are over, on every instance', async () => {
    const cookie = await world.login('alice');
    const key = lastKey(world);
    const native = await exchangeNative(world, cookie);
    const pair = refreshCookie(await world.exchange(cookie)) ?? '';
    expect(await me(other, { bearer: native.access })).toBe(200);
    const response = await postAsBrowser(world, '/auth/logout', `${cookie}; ${pair}`);
    expect(response.status).toBe(204);
    expect(response.headers.getSetCookie()).toEqual(CLEARED);
    expect(await world.legacy.redis.exists(key)).toBe(0);
    await expectError(await world.call('/me', { bearer: native.access }), 401, 'invalid_token');
    await expect.poll(async () => await me(other, { bearer: native.access })).toBe(401);
    expect(await me(other, { cookie })).toBe(401);
    await expectError(await postRefresh(other, native.refresh), 400, 'invalid_grant');
    const again = await postAsBrowser(world, '/auth/token', pair, { grant_type: 'refresh_token' });
    expect(await again.json()).toMatchObject({ error: 'invalid_grant' });
  });

  it('by bearer: the session is over as well', async () => {
    const cookie = await world.login('alice');
    const { access, refresh } = await exchangeNative(world, cookie);
    expect((await world.post('/auth/logout', {}, { bearer: access })).status).toBe(204);
    expect(await world.legacy.redis.exists(lastKey(world))).toBe(0);
    expect(await me(world, { cookie })).toBe(401);
    expect(await me(world, { bearer: access })).toBe(401);
    await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
    expect(await (await fetch(world.legacy.url, { headers: { cookie } })).text()).toBe('hello, stranger');
  });

  it.each(['form', 'cookie'])('by refresh token in the %s', async (transport) => {
    const cookie = await world.login('alice');
    const pair = refreshCookie(await world.exchange(cookie)) ?? '';
    const native = await exchangeNative(world, cookie);
    const response =
      transport === 'cookie'
        ? await postAsBrowser(world, '/auth/logout', pair)
        : await world.post('/auth/logout', { client_id: 'android', refresh_token: native.refresh });
    expect(response.status).toBe(204);
    expect(await me(world, { cookie })).toBe(401);
    expect(await me(world, { bearer: native.access })).toBe(401);
  });

  it('answers 204 and clears both cookies also where nothing was left to end', async () => {
    const cookie = await world.login('alice');
    const { access, refresh } = await exchangeNative(world, cookie);
    for (let time = 0; time < 2; time++) {
      const response = await postAsBrowser(world, '/auth/logout', cookie);
      expect(response.status).toBe(204);
      expect(response.headers.getSetCookie()).toEqual(CLEARED);
    }
    expect((await world.post('/auth/logout', { client_id: 'android', refresh_token: refresh }, { bearer: access })).status).toBe(204);
    expect((await postAsBrowser(world, '/auth/logout', 'koa.sess=nonsense; theme=dark')).status).toBe(204);
    expect((await world.call('/auth/logout', { method: 'POST' })).status).toBe(204);
  });

  it('C1, X17: credentials of two persons are 400, audited, and end nothing', async () => {
    const alice = await world.login('alice');
    const bob = await exchangeNative(world, await world.login('bob'));
    const before = world.log.audits('principal.conflict').length;
    const both = { cookie: alice, bearer: bob.access, headers: { origin: ORIGIN } };
    await expectError(await world.post('/auth/logout', {}, both), 400, 'invalid_request');
    await expectError(
      await world.post('/auth/logout', { refresh_token: bob.refresh }, { cookie: alice, headers: { origin: ORIGIN } }),
      400,
      'invalid_request',
    );
    expect(world.log.audits('principal.conflict').slice(before)).toMatchObject([{ where: 'logout' }, { where: 'logout' }]);
    expect(await me(world, { cookie: alice })).toBe(200);
    expect(await me(world, { bearer: bob.access })).toBe(200);
  });

  it.each([['https://evil.example'], ['null'], ['https://app.example.com.evil.example']])(
    'X4, X5: a page at %s logs nobody out and clears no cookie',
    async (origin) => {
      const cookie = await world.login('alice');
      const { result, storeReached } = await world.watching(async () => await world.post('/auth/logout', {}, { cookie, headers: { origin } }));
      await expectError(result, 403, 'invalid_request');
      expect(storeReached).toBe(false);
      expect(await me(world, { cookie })).toBe(200);
    },
  );

  it('a bad bearer is final, and a cookie without an origin is not read', async () => {
    const cookie = await world.login('alice');
    const { access } = await exchangeNative(world, cookie);
    await expectError(
      await world.post('/auth/logout', {}, { cookie, bearer: `${access.slice(0, -4)}AAAA`, headers: { origin: ORIGIN } }),
      401,
      'invalid_token',
    );
    await expectError(await world.post('/auth/logout', { client_id: 'web' }, { cookie }), 403, 'invalid_request');
    await expectError(await world.post('/auth/logout', { client_id: 'android' }, { cookie }), 400, 'invalid_request');
    expect(await me(world, { cookie })).toBe(200);
    expect(await me(world, { bearer: access })).toBe(200);
    // A client that keeps its cookie itself sends it as it does at the exchange.
    const form = { client_id: 'android', subject_token: cookie, subject_token_type: SESSION_TYPE };
    expect((await world.post('/auth/logout', form)).status).toBe(204);
    expect(await me(world, { cookie })).toBe(401);
    expect(await me(world, { bearer: access })).toBe(401);
  });

  it('by a token whose family was revoked: 401 for the bearer, since the session lives; by its refresh token it ends', async () => {
    const cookie = await world.login('alice');
    const { access, refresh } = await exchangeNative(world, cookie);
    await world.post('/auth/revoke', { client_id: 'android', token: refresh });
    await expectError(await world.post('/auth/logout', {}, { bearer: access }), 401, 'invalid_token');
    expect(await me(world, { cookie })).toBe(200);
    expect((await world.post('/auth/logout', { client_id: 'android', refresh_token: refresh })).status).toBe(204);
    expect(await me(world, { cookie })).toBe(401);
  });

  it('works at jwt-only, and GET is 405', async () => {
    const only = await open({ stage: 'jwt-only' });
    const cookie = await only.login('alice');
    expect((await postAsBrowser(only, '/auth/logout', cookie)).status).toBe(204);
    expect(await only.legacy.redis.exists(lastKey(only))).toBe(0);
    const get = await only.call('/auth/logout');
    expect([get.status, get.headers.get('allow'), await get.json()]).toEqual([405, 'POST', { error: 'method_not_allowed' }]);
  });

  it('a token of a release without families ends with its session too', async () => {
    const cookie = await world.login('alice');
    const { access } = await exchangeNative(world, cookie);
    const old = await resign(access, readKey(world.directory), { without: ['fid'] });
    expect(await me(other, { bearer: old })).toBe(200);
    await postAsBrowser(world, '/auth/logout', cookie);
    await expect.poll(async () => await me(other, { bearer: old })).toBe(401);
  });
});

describe('V2: Redis away', () => {
  it.each(['cookie', 'refresh token', 'bearer'])('a logout by %s whose answer got lost is told to everybody by the retry', async (by) => {
    const own = await startTcpProxy(sharedRedisUrl());
    const cut = await open({ redisUrl: own.url });
    const second = await cut.another();
    // The scripts are known to Redis: what is lost is an answer, not the call.
    await postAsBrowser(cut, '/auth/logout', await cut.login('bob'));
    const cookie = await cut.login('alice');
    const { access, refresh } = await exchangeNative(cut, cookie);
    const logOut = async () =>
      by === 'cookie'
        ? await postAsBrowser(cut, '/auth/logout', cookie)
        : by === 'bearer'
          ? await cut.post('/auth/logout', {}, { bearer: access })
          : await cut.post('/auth/logout', { client_id: 'android', refresh_token: refresh });
    own.swallowAnswerTo((command) => /evalsha/i.test(command) && command.includes(':ended'));
    await expectError(await logOut(), 503, 'temporarily_unavailable');
    await own.restore();
    await expect.poll(async () => (await logOut()).status).toBe(204);
    for (const at of [cut, second]) await expect.poll(async () => await me(at, { bearer: access })).toBe(401);
    await own.close();
  });

  it('a legacy logout that could not be told when it was found is told later', async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    const cut = await open({ redisUrl: own.url });
    const { access } = await exchangeNative(cut, await cut.login('alice'));
    await own.cut();
    await cut.legacy.redis.del(lastKey(cut));
    await cut.log.until(({ msg }) => String(msg).startsWith('a watched record could not be looked at'));
    await own.restore();
    await expect.poll(async () => await me(cut, { bearer: access })).toBe(401);
    await own.close();
  });

  it.each(['bridge', 'records'])(
    'the Redis of the %s: logout is 503 and never 204, no cookie is touched, and the retry does it all',
    async (which) => {
      const own = await startTcpProxy(sharedRedisUrl());
      const cut = await open({ redisUrl: own.url });
      const cookie = await cut.login('alice');
      const { access, refresh } = await exchangeNative(cut, cookie);
      const proxy = which === 'bridge' ? own : cut.store;
      await proxy.cut();
      await expectError(await postAsBrowser(cut, '/auth/logout', cookie), 503, 'temporarily_unavailable');
      await expectError(await cut.post('/auth/logout', {}, { bearer: access }), 503, 'temporarily_unavailable');
      await proxy.restore();
      await expect.poll(async () => (await cut.post('/auth/logout', {}, { bearer: access })).status).toBe(204);
      expect(await cut.legacy.redis.exists(lastKey(cut))).toBe(0);
      await expectError(await postRefresh(cut, refresh), 400, 'invalid_grant');
      await expectError(await cut.call('/me', { bearer: access }), 401, 'invalid_token');
      await own.close();
    },
  );
});

describe('Law 6: the legacy app logs out alone', () => {
  it('by deletion: tokens end on every instance, F7: and refreshes too', async () => {
    const cookie = await world.login('alice');
    const { access, refresh } = await exchangeNative(world, cookie);
    expect(await me(other, { bearer: access })).toBe(200);
    await world.legacy.logout(cookie);
    await expect.poll(async () => await me(world, { bearer: access })).toBe(401);
    await expect.poll(async () => await me(other, { bearer: access })).toBe(401);
    await expectError(await postRefresh(other, refresh), 400, 'invalid_grant');
    expect(world.log.audits('session.ended').at(-1)).toMatchObject({ reason: 'legacy-logout' });
  });

  it('G3: in place, record and id stay: tokens end', async () => {
    const cookie = await world.login('alice');
    const key = lastKey(world);
    const { access, refresh } = await exchangeNative(world, cookie);
    await logOutInPlace(world, key);
    await expect.poll(async () => await me(other, { bearer: access })).toBe(401);
    await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
    expect(await world.legacy.redis.exists(key)).toBe(1);
  });

  it('is none where the app itself has shortened a rolling session: it expires, and its tokens go on, at the next refresh as well', async () => {
    const rolling = await open({
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, rolling: true })) }),
    });
    const cookie = await rolling.login('alice');
    const key = lastKey(rolling);
    const { access, refresh } = await exchangeNative(rolling, cookie);
    const text = (await rolling.legacy.redis.get(key)) ?? '';
    const shortened = { ...JSON.parse(text), _expire: Date.now() + 1500, _maxAge: 1500 };
    await rolling.legacy.redis.set(key, JSON.stringify(shortened), 'PX', 1500);
    await expect.poll(async () => await rolling.legacy.redis.exists(key)).toBe(0);
    await expect.poll(async () => await rolling.metrics()).toMatch(/crossfade_record_news_total\{fate="expired"\} 1/);
    expect(await me(rolling, { bearer: access })).toBe(200);
    expect((await postRefresh(rolling, refresh)).status).toBe(200);
    expect(rolling.log.audits('session.ended')).toEqual([]);
  });

  it('is found at the next refresh where no instance is left that had read the record', async () => {
    const cookie = await world.login('alice');
    const gone = await world.another();
    const { access, refresh } = await exchangeNative(gone, cookie);
    await gone.close();
    await world.legacy.logout(cookie);
    expect(await me(other, { bearer: access })).toBe(200);
    await expectError(await postRefresh(other, refresh), 400, 'invalid_grant');
    expect(await me(other, { bearer: access })).toBe(401);
    expect(other.log.audits('session.ended').at(-1)).toMatchObject({ reason: 'legacy-logout' });
  });

  it('is noticed by an instance that only read the cookie of the session', async () => {
    const cookie = await world.login('alice');
    const gone = await world.another();
    const { access } = await exchangeNative(gone, cookie);
    await gone.close();
    expect(await me(other, { cookie })).toBe(200);
    await expect.poll(async () => (await world.legacy.redis.call('PTTL', lastKey(world))) !== -2 && (await watched(other)) > 0).toBe(true);
    await world.legacy.logout(cookie);
    await expect.poll(async () => await me(world, { bearer: access })).toBe(401);
  });

  it('is noticed after the connection that brings the news was lost meanwhile', async () => {
    const cut = await open();
    const cookie = await cut.login('alice');
    const { access } = await exchangeNative(cut, cookie);
    await cut.store.cut();
    await cut.legacy.logout(cookie);
    expect(await me(cut, { bearer: access })).toBe(200);
    await cut.store.restore();
    await expect.poll(async () => await me(cut, { bearer: access })).toBe(401);
  });

  it('X12: a record that a slow request writes again after the logout opens nothing', async () => {
    const cookie = await world.login('alice');
    const key = lastKey(world);
    const record = (await world.legacy.redis.get(key)) ?? '';
    const { refresh } = await exchangeNative(world, cookie);
    await postAsBrowser(world, '/auth/logout', cookie);
    await world.legacy.redis.set(key, record, 'PX', 60_000);
    for (const at of [world, other]) {
      expect(await expectError(await postExchange(at, cookie), 400, 'invalid_request')).toMatchObject({ reason: 'logged-out' });
      const page = await at.call('/', { cookie });
      expect([page.status, await page.json()]).toMatchObject([200, { principal: null, rejection: { credential: 'session', reason: 'logged-out' } }]);
      expect(await me(at, { cookie })).toBe(401);
      await expectError(await postRefresh(at, refresh), 400, 'invalid_grant');
    }
    await world.legacy.redis.del(key);
  });

  it('X12: also while the Redis of the bridge is away, since the instances have heard of the logout', async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    const cut = await open({ redisUrl: own.url });
    const cookie = await cut.login('alice');
    const key = lastKey(cut);
    const record = (await cut.legacy.redis.get(key)) ?? '';
    await postAsBrowser(cut, '/auth/logout', cookie);
    await cut.legacy.redis.set(key, record, 'PX', 60_000);
    await own.cut();
    expect(await me(cut, { cookie })).toBe(401);
    await own.restore();
    await own.close();
  });

  it('G4: a new login of the same person under the same id is accepted with a newer time; the old tokens stay dead', async () => {
    const cookie = await world.login('alice');
    const key = lastKey(world);
    const record = JSON.parse((await world.legacy.redis.get(key)) ?? '');
    const old = await exchangeNative(world, cookie);
    await logOutInPlace(world, key);
    await expect.poll(async () => await me(other, { bearer: old.access })).toBe(401);
    const user = { ...record.user, loggedInAt: record.user.loggedInAt + 1 };
    await world.legacy.redis.set(key, JSON.stringify({ ...record, user }), 'KEEPTTL');
    expect(await me(other, { cookie })).toBe(200);
    const fresh = await exchangeNative(other, cookie);
    expect(fresh.sid).toBe(old.sid);
    for (const at of [world, other]) {
      expect(await me(at, { bearer: fresh.access })).toBe(200);
      expect(await me(at, { bearer: old.access })).toBe(401);
    }
    await expectError(await postRefresh(world, old.refresh), 400, 'invalid_grant');
    expect((await postRefresh(world, fresh.refresh)).status).toBe(200);
  });

  it('G4: without a time of the login it is accepted after resurrectionSeconds', async () => {
    const untimed = (resurrectionSeconds: number) =>
      open({
        configure: (config) => ({
          ...config,
          tokens: { ...config.tokens, resurrectionSeconds },
          sessions: (config.sessions ?? []).map((session) => ({ ...session, principal: { subject: 'user.id' } })),
        }),
      });
    const soon = await untimed(0);
    const late = await untimed(120);
    for (const [at, status] of [
      [soon, 200],
      [late, 400],
    ] as const) {
      const cookie = await at.login('alice');
      const key = lastKey(at);
      const record = (await at.legacy.redis.get(key)) ?? '';
      const { access } = await exchangeNative(at, cookie);
      await logOutInPlace(at, key);
      await expect.poll(async () => await me(at, { bearer: access })).toBe(401);
      await at.legacy.redis.set(key, record, 'KEEPTTL');
      expect((await postExchange(at, cookie)).status).toBe(status);
      expect(await me(at, { bearer: access })).toBe(401);
    }
  });

  it("G5: the same id in the hands of another person: Alice's family ends, Bob is Bob", async () => {
    const cookie = await world.login('alice');
    const key = lastKey(world);
    const alice = await exchangeNative(world, cookie);
    await world.login('bob');
    await world.legacy.redis.set(key, (await world.legacy.redis.get(lastKey(world))) ?? '', 'KEEPTTL');
    await expect.poll(async () => await me(other, { bearer: alice.access })).toBe(401);
    await expectError(await postRefresh(world, alice.refresh), 400, 'invalid_grant');
    const bob = await exchangeNative(other, cookie);
    expect(bob.sid).toBe(alice.sid);
    for (const at of [world, other])
      expect(await (await at.call('/me', { bearer: bob.access })).json()).toMatchObject({ principal: { subject: 'u-bob' } });
    expect((await postRefresh(world, bob.refresh)).status).toBe(200);
    // Alice's own logout, late, does not reach Bob's session.
    await world.post('/auth/logout', { client_id: 'android', refresh_token: alice.refresh }, {});
    expect(await me(world, { cookie })).toBe(200);
  });

  it('G6: a new id at a step-up: the old family ends, the new cookie exchanges at once', async () => {
    const before = await world.login('alice');
    const old = await exchangeNative(world, before);
    const after = await world.login('alice');
    await world.legacy.logout(before);
    const fresh = await exchangeNative(other, after);
    expect(fresh.sid).not.toBe(old.sid);
    await expect.poll(async () => await me(other, { bearer: old.access })).toBe(401);
    expect(await me(world, { bearer: fresh.access })).toBe(200);
  });
});

describe('X11: an exchange racing a logout', () => {
  it.each(['the legacy app', 'the bridge'])(
    'of %s, 200 times in both orders, leaves no live token',
    async (by) => {
      const racing = await open();
      const second = await racing.another();
      const survivors: { access: string; refresh: string }[] = [];
      for (let round = 0; round < 200; round++) {
        const cookie = await racing.login('alice');
        const logOut = async () =>
          by === 'the bridge' ? void (await postAsBrowser(second, '/auth/logout', cookie)) : void (await racing.legacy.redis.del(lastKey(racing)));
        const exchange = async () => await postExchange(racing, cookie);
        const [response] =
          round % 2 ? await Promise.all([exchange(), logOut()]) : await Promise.all([logOut(), exchange()]).then(([, answer]) => [answer]);
        const body: unknown = await response?.json();
        if (body !== null && typeof body === 'object' && 'access_token' in body && 'refresh_token' in body) {
          survivors.push({ access: String(body.access_token), refresh: String(body.refresh_token) });
        }
      }
      // The exchange may have been faster; then what it gave must have ended.
      for (const { access, refresh } of survivors) {
        await expect.poll(async () => [await me(racing, { bearer: access }), await me(second, { bearer: access })]).toEqual([401, 401]);
        await expectError(await postRefresh(second, refresh), 400, 'invalid_grant');
      }
      expect(survivors.length).toBeLessThan(200);
    },
    60_000,
  );
});

async function logOutInPlace(at: World, key: string): Promise<void> {
  await at.editRecord((record) => Reflect.deleteProperty(record, 'user'), key);
}

async function watched(at: Instance): Promise<number> {
  return Number(/^crossfade_watched_records (\d+)/m.exec(await at.metrics())?.[1] ?? 0);
}
