import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { expectError } from '../support/expect-error.js';
import { cookiesOf, exchangeNative, postAsBrowser, postRefresh, postReturn, refreshCookie, refreshNative } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, ISSUER, type World } from '../support/world.js';

const open = useWorlds();

let world: World;
beforeAll(async () => {
  world = await createWorld({ legacy: { session: { maxAge: 3_600_000 } } });
});
afterAll(async () => await world.close());

/** The person that the legacy app itself sees behind a cookie. */
async function seenByLegacy(at: World, cookie: string): Promise<string> {
  return await (await fetch(at.legacy.url, { headers: { cookie } })).text();
}

/** Takes the record away in a way that is no logout: as if it had run out. */
async function expireRecord(at: World, key: string): Promise<void> {
  await at.legacy.redis.pexpire(key, 1);
  await expect.poll(async () => await at.legacy.redis.exists(key)).toBe(0);
}

/** A session whose record is gone although nobody logged out, and its refresh token. */
async function dormant(at: World): Promise<{ refresh: string; access: string; sid: string; key: string; cookie: string }> {
  const cookie = await at.login('alice');
  const key = at.legacy.keys.at(-1) ?? '';
  // It is about to end: that it is gone soon after is no surprise.
  await at.legacy.redis.pexpire(key, 1500);
  const tokens = await exchangeNative(at, cookie);
  await expireRecord(at, key);
  return { ...tokens, key, cookie };
}

describe('Law 5: the way back', () => {
  it('gives the cookie of the session that still lives, signed as the legacy app signs', async () => {
    const cookie = await world.login('alice');
    const { refresh, access } = await exchangeNative(world, cookie);
    const response = await postReturn(world, refresh);
    expect(response.status).toBe(204);
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(cookiesOf(response)).toBe(cookie);
    for (const line of response.headers.getSetCookie()) expect(line).toMatch(/; Path=\/; Expires=[^;]+; HttpOnly; Secure; SameSite=Lax$/);
    expect(await seenByLegacy(world, cookiesOf(response))).toBe('hello, u-alice');
    // What was issued goes on: a stage or a way decides what comes next, not what has been.
    expect((await world.call('/me', { bearer: access })).status).toBe(200);
    expect((await postRefresh(world, refresh)).status).toBe(200);
  });

  it('makes a session anew of the dormant copy, under a new id, and closes the family', async () => {
    const rolling = await open({
      legacy: { session: { maxAge: 3_600_000 } },
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, rolling: true })) }),
    });
    const { refresh, key, cookie } = await dormant(rolling);
    const response = await postReturn(rolling, refresh);
    expect(response.status).toBe(204);
    const restored = cookiesOf(response);
    expect(restored).not.toBe(cookie);
    expect(await seenByLegacy(rolling, restored)).toBe('hello, u-alice');
    expect(await (await rolling.call('/me', { cookie: restored })).json()).toMatchObject({ principal: { subject: 'u-alice', via: 'session' } });
    expect(await rolling.legacy.redis.exists(key)).toBe(0);
    const newKey = /koa\.sess=([^;]+)/.exec(restored)?.[1] ?? '';
    expect(newKey).toMatch(/^[0-9a-f]{8}-/);
    const left = await rolling.legacy.redis.pttl(newKey);
    expect(left).toBeGreaterThan(3_500_000);
    expect(left).toBeLessThanOrEqual(3_610_000);
    await expectError(await postRefresh(rolling, refresh), 400, 'invalid_grant');
    expect((await rolling.exchange(restored)).status).toBe(200);
    await rolling.legacy.redis.del(newKey);
  });

  it.each<[what: string, session: object, expires: 'browser' | 'record' | number | undefined, seconds: number | undefined]>([
    ['with the browser, as the app has it', { maxAge: 'session' }, undefined, undefined],
    ['with the session, as the app has it', { maxAge: 7_200_000 }, undefined, 7200],
    ['with the browser, by cookieOptions.expires', { maxAge: 7_200_000 }, 'browser', undefined],
    ['after a time, by cookieOptions.expires', { maxAge: 'session' }, 3600, 3600],
  ])('gives a cookie that ends %s', async (_, session, expires, lifeSeconds) => {
    const at = await open({
      legacy: { session },
      configure: (config) => ({
        ...config,
        sessions: (config.sessions ?? []).map((entry) => ({ ...entry, ...(expires === undefined ? {} : { cookieOptions: { expires } }) })),
      }),
    });
    const { refresh } = await exchangeNative(at, await at.login('alice'));
    const lines = (await postReturn(at, refresh)).headers.getSetCookie();
    expect(lines).toHaveLength(2);
    for (const line of lines) {
      const [, end] = /Expires=([^;]+)/.exec(line) ?? [];
      if (lifeSeconds === undefined) expect(end).toBeUndefined();
      else expect(Math.abs(Date.parse(end ?? '') - Date.now() - lifeSeconds * 1000)).toBeLessThan(60_000);
    }
  });

  it('gives a retry the same session, and two at once one session', async () => {
    const rolling = await open({
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, rolling: true })) }),
    });
    const other = await rolling.another();
    const { refresh } = await dormant(rolling);
    const answers = await Promise.all(Array.from({ length: 10 }, async (_, n) => cookiesOf(await postReturn(n % 2 ? rolling : other, refresh))));
    expect(new Set(answers).size).toBe(1);
    expect(cookiesOf(await postReturn(rolling, refresh))).toBe(answers[0]);
    const key = /koa\.sess=([^;]+)/.exec(answers[0] ?? '')?.[1] ?? '';
    const records = (await rolling.legacy.redis.keys('*')).filter((name) => /^[0-9a-f]{8}-/.test(name));
    expect(records.filter((name) => name === key)).toHaveLength(1);
    await rolling.legacy.redis.del(key);
  });

  it('F10: gives a retry nothing once the restored session was logged out', async () => {
    const rolling = await open({
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, rolling: true })) }),
    });
    const { refresh, access } = await dormant(rolling);
    const restored = cookiesOf(await postReturn(rolling, refresh));
    expect((await postAsBrowser(rolling, '/auth/logout', restored)).status).toBe(204);
    await expectError(await postReturn(rolling, refresh), 400, 'invalid_grant');
    // Its logout reaches what was left of the tokens of the session that it continues.
    await expectError(await rolling.call('/me', { bearer: access }), 401, 'invalid_token');
  });

  it('gives a session that does not roll no longer life than it had', async () => {
    // A Redis of its own, since it is flushed: what only looks like a logout.
    const records = await startRedis();
    const fixed = await createWorld({ legacy: { redisUrl: records.url, session: { maxAge: 3_600_000 } } });
    try {
      const { refresh } = await exchangeNative(fixed, await fixed.login('alice'));
      const record = JSON.parse((await fixed.legacy.redis.get(fixed.legacy.keys.at(-1) ?? '')) ?? '');
      await fixed.legacy.redis.flushall();
      const restored = /koa\.sess=([^;]+)/.exec(cookiesOf(await postReturn(fixed, refresh)))?.[1] ?? '';
      const again = JSON.parse((await fixed.legacy.redis.get(restored)) ?? '');
      expect(again).toEqual({ ...record, _expire: Math.floor(record._expire / 1000) * 1000 });
      expect(await fixed.legacy.redis.pttl(restored)).toBeLessThanOrEqual(3_610_000);
    } finally {
      await fixed.close();
      await records.stop();
    }
  });

  it('is by cookie for a browser, from its own page only', async () => {
    const cookie = await world.login('alice');
    const pair = refreshCookie(await world.exchange(cookie)) ?? '';
    await expectError(await world.post('/auth/session', { client_id: 'web' }, { cookie: pair }), 403, 'invalid_request');
    await expectError(
      await world.post('/auth/session', { client_id: 'web' }, { cookie: pair, headers: { origin: 'https://evil.example' } }),
      403,
      'invalid_request',
    );
    const response = await postAsBrowser(world, '/auth/session', pair);
    expect(response.status).toBe(204);
    expect(cookiesOf(response)).toBe(cookie);
  });

  it('X4: a page elsewhere gets nobody into a session of its own choice, with a token of its own in the form', async () => {
    const { refresh } = await exchangeNative(world, await world.login('bob'));
    const form = { client_id: 'android', refresh_token: refresh };
    await expectError(await world.post('/auth/session', form, { headers: { origin: 'https://evil.example' } }), 403, 'invalid_request');
    await expectError(await world.post('/auth/session', form, { headers: { 'sec-fetch-site': 'cross-site' } }), 403, 'invalid_request');
  });

  it('is open at recall, session-only, shadow and dual, and while signing is broken', async () => {
    const all = await open();
    const { refresh } = await exchangeNative(all, await all.login('alice'));
    for (const stage of ['recall', 'session-only', 'shadow', 'dual']) {
      await all.setFlags({ 'auth-migration-stage': stage });
      expect((await postReturn(all, refresh)).status).toBe(204);
    }
    await all.setFlags({ 'auth-migration-stage': 'jwt-only' });
    const broken = await all.another({ configure: (config) => ({ ...config, keys: { ...config.keys, use: 'verify' } }) });
    expect((await postReturn(broken, refresh)).status).toBe(204);
  });
});

describe('F10: no way back', () => {
  it('for a session that was logged out, on either side; nothing is revived', async () => {
    for (const logOut of [
      async (cookie: string) => await world.legacy.logout(cookie),
      async (cookie: string) => void (await postAsBrowser(world, '/auth/logout', cookie)),
    ]) {
      const cookie = await world.login('alice');
      const key = world.legacy.keys.at(-1) ?? '';
      const { refresh } = await exchangeNative(world, cookie);
      await logOut(cookie);
      // Other tests share this Redis.
      const countKeys = async () => (await world.legacy.redis.keys(`${world.prefix}*`)).length;
      const keys = await countKeys();
      await expectError(await postReturn(world, refresh), 400, 'invalid_grant');
      expect(await world.legacy.redis.exists(key)).toBe(0);
      expect(await countKeys()).toBeLessThanOrEqual(keys);
    }
  });

  it.each([
    ['a narrower scope', { scope: 'read:orders' }],
    ['another audience', { audience: 'https://orders.internal' }],
  ])('for a family that was narrowed by %s', async (_, form) => {
    const { refresh } = await exchangeNative(world, await world.login('alice'), form);
    await expectError(await postReturn(world, refresh), 400, 'unauthorized_client');
    expect((await postRefresh(world, refresh)).status).toBe(200);
  });

  it('for a client without wayBack', async () => {
    const { refresh } = await exchangeNative(world, await world.login('alice'), { client_id: 'ios' });
    await expectError(await postReturn(world, refresh, { client_id: 'ios' }), 400, 'unauthorized_client');
  });

  it("for another client's token, a used one and nonsense", async () => {
    const { refresh } = await exchangeNative(world, await world.login('alice'));
    await expectError(await postReturn(world, refresh, { client_id: 'ios' }), 400, 'invalid_grant');
    await expectError(await postReturn(world, 'nonsense'), 400, 'invalid_grant');
    await expectError(await world.post('/auth/session', { client_id: 'android' }), 400, 'invalid_request');
  });

  it('for a person who is another by now', async () => {
    const { refresh, access } = await exchangeNative(world, await world.login('alice'));
    const key = world.legacy.keys.at(-1) ?? '';
    await world.login('bob');
    const bob = (await world.legacy.redis.get(world.legacy.keys.at(-1) ?? '')) ?? '';
    await world.legacy.redis.set(key, bob, 'KEEPTTL');
    await expectError(await postReturn(world, refresh), 400, 'invalid_grant');
    await expect.poll(async () => (await world.call('/me', { bearer: access })).status).toBe(401);
    expect(await world.legacy.redis.get(key)).toBe(bob);
  });

  it.each(['jwt-preferred', 'jwt-only'])('at %s', async (stage) => {
    const above = await open({ stage });
    const { refresh } = await exchangeNative(above, await above.login('alice'));
    expect(await expectError(await postReturn(above, refresh), 400, 'unauthorized_client')).toMatchObject({ stage, reason: 'flag' });
    expect((await postRefresh(above, refresh)).status).toBe(200);
  });

  it('while the records are away: 503, and no cookie', async () => {
    const away = await open();
    const { refresh } = await exchangeNative(away, await away.login('alice'));
    await away.store.cut();
    await expectError(await postReturn(away, refresh), 503, 'temporarily_unavailable');
    await away.store.restore();
    await expect.poll(async () => (await postReturn(away, refresh)).status).toBe(204);
  });
});

describe('G7: recall', () => {
  it('sends a client that knows the way back there, consuming nothing; others go on refreshing', async () => {
    const called = await open();
    const knows = await exchangeNative(called, await called.login('alice'));
    const narrowed = await exchangeNative(called, await called.login('alice'), { scope: 'read:orders' });
    const doesNot = await exchangeNative(called, await called.login('bob'), { client_id: 'ios' });
    await called.setFlags({ 'auth-migration-stage': 'recall' });

    const body = await expectError(await postRefresh(called, knows.refresh), 400, 'unauthorized_client');
    expect(body).toMatchObject({ stage: 'recall', reason: 'flag', return_uri: `${ISSUER}/auth/session` });
    expect((await postReturn(called, knows.refresh)).status).toBe(204);

    const ios = await refreshNative(called, doesNot.refresh, { client_id: 'ios' });
    expect((await called.call('/me', { bearer: ios.access })).status).toBe(200);
    expect((await postRefresh(called, narrowed.refresh)).status).toBe(200);

    // Back at dual everybody goes on with what they hold.
    await called.setFlags({ 'auth-migration-stage': 'dual' });
    expect((await refreshNative(called, knows.refresh)).family).toBe(knows.family);
  });

  it('nudges clients back that know the way, on every response that a token opened', async () => {
    const called = await open();
    const knows = await exchangeNative(called, await called.login('alice'));
    const doesNot = await exchangeNative(called, await called.login('bob'), { client_id: 'ios' });
    await called.setFlags({ 'auth-migration-stage': 'recall' });
    const nudged = await called.call('/me', { bearer: knows.access });
    expect(nudged.status).toBe(200);
    expect(nudged.headers.get('auth-migration')).toBe(`stage=recall, return="${ISSUER}/auth/session"`);
    expect(nudged.headers.get('cache-control')).toBe('no-store');
    expect((await called.call('/auth/verify', { bearer: knows.access })).headers.get('auth-migration')).toContain('return=');
    expect((await called.call('/me', { bearer: doesNot.access })).headers.get('auth-migration')).toBeNull();
  });
});
