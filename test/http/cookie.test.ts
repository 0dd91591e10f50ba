import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { expectError } from '../support/expect-error.js';
import { writeKey } from '../support/keys.js';
import { remember } from '../support/transcript.js';
import { createWorld, sharedRedisUrl, type World } from '../support/world.js';

let world: World;
beforeAll(async () => {
  world = await createWorld();
});
afterAll(async () => await world.close());

describe('the cookie', () => {
  it('makes the principal that the config maps, and nothing else of the record', async () => {
    const response = await world.call('/', { cookie: await world.login('alice'), headers: { 'x-client-id': 'web' } });
    expect(await response.json()).toEqual({
      principal: {
        subject: 'u-alice',
        tenant: 'acme',
        roles: ['admin', 'billing'],
        scope: ['read:orders', 'write:orders'],
        authTime: expect.any(Number),
        sid: expect.stringMatching(/^[\w-]{32}$/),
        client: 'web',
        via: 'session',
        expiresAt: expect.any(Number),
      },
      rejection: null,
      session: null,
    });
  });

  it('C1, Law 4: cookie of Alice and bearer of Bob: Bob, and the conflict is counted and audited', async () => {
    const alice = await world.login('alice');
    const bobsToken = await world.token(await world.login('bob'));
    const from = world.log.all.length;
    const response = await world.call('/', { cookie: alice, bearer: bobsToken });
    expect(await response.json()).toMatchObject({ principal: { subject: 'u-bob', via: 'jwt' } });
    expect(await world.log.until((line) => line['audit'] === 'principal.conflict', from)).toMatchObject({ where: 'cookie-and-bearer' });
    expect(await world.metrics()).toMatch(/crossfade_principal_conflicts_total\{where="cookie-and-bearer"\} [1-9]/);
  });

  it('the cookie and the bearer of one session are no conflict, and the store is not asked', async () => {
    const cookie = await world.login('alice');
    const bearer = await world.token(cookie);
    const { storeReached } = await world.watching(() => world.call('/', { cookie, bearer }));
    expect(storeReached).toBe(false);
  });

  it('C2: an invalid bearer beside a valid cookie is 401, never the cookie', async () => {
    const { result, storeReached, handlerReached } = await world.watching(async () =>
      world.call('/', { cookie: await world.login('alice'), bearer: 'eyJhbGciOiJub25lIn0.e30.' }),
    );
    await expectError(result, 401, 'invalid_token');
    expect({ storeReached, handlerReached }).toEqual({ storeReached: false, handlerReached: false });
  });

  it('C4: of two cookies of one name the valid one counts; two valid ones of different persons are malformed', async () => {
    const alice = await world.login('alice');
    const bob = await world.login('bob');
    const stale = 'koa.sess=11111111-1111-4111-8111-111111111111';
    for (const cookie of [`${stale}; ${alice}`, `${alice}; ${stale}`]) {
      expect(await (await world.call('/', { cookie })).json()).toMatchObject({ principal: { subject: 'u-alice' } });
    }
    const { result, handlerReached } = await world.watching(() => world.call('/', { cookie: `${alice}; ${bob}` }));
    await expectError(result, 400, 'invalid_request');
    expect(handlerReached).toBe(false);
    const verify = await world.call('/auth/verify', { cookie: `${alice}; ${bob}` });
    expect({ status: verify.status, challenge: verify.headers.get('www-authenticate') }).toEqual({
      status: 401,
      challenge: 'Bearer error="invalid_request"',
    });
    await expectError(await world.exchange(`${alice}; ${bob}`), 400, 'invalid_request');
    const again = await world.login('alice');
    expect(await (await world.call('/', { cookie: `${alice}; ${again}` })).json()).toMatchObject({ principal: { subject: 'u-alice' } });
  });

  it('C8: a cookie that was signed with the secret before the rotation is accepted', async () => {
    const [before, after] = ['the-secret-before-the-rotation', 'the-secret-after-the-rotation'];
    remember(before, after);
    const rotated = await createWorld({
      legacy: { secrets: [before] },
      prepare: (directory) => {
        writeKey(join(directory, 'keys'), 'first.pem');
        writeFileSync(join(directory, 'session-secrets'), `${after}\n${before}\n`);
      },
    });
    try {
      const { result } = await rotated.watching(async () => rotated.call('/', { cookie: await rotated.login('alice') }));
      expect(await result.json()).toMatchObject({ principal: { subject: 'u-alice' } });
    } finally {
      await rotated.close();
    }
  });

  it('Law 3, C9: a stale, unknown, badly signed or logged-out cookie on a public route gets the page, anonymous, with the reason', async () => {
    const loggedOut = await world.login('alice');
    await world.legacy.logout(loggedOut);
    const expired = await world.login('alice');
    const [key = ''] = world.legacy.keys.slice(-1);
    await world.legacy.redis.set(key, JSON.stringify({ user: { id: 'u-alice' }, _expire: Date.now() - 1 }), 'KEEPTTL');
    const cookies: Record<string, string> = {
      'unknown-session': loggedOut,
      expired,
      'bad-signature': (await world.login('alice')).replace(/.$/, '!'),
      'bad-id': 'koa.sess=../../x; koa.sess.sig=x',
      'nobody-logged-in': await world.legacy.visit(),
    };
    for (const [reason, cookie] of Object.entries(cookies)) {
      const page = await world.call('/', { cookie });
      expect({ status: page.status, body: await page.json() }).toMatchObject({
        status: 200,
        body: { principal: null, rejection: { credential: 'session', reason } },
      });
      const { result, handlerReached } = await world.watching(() => world.call('/me', { cookie }));
      await expectError(result, 401, 'missing_credential');
      expect(result.headers.get('www-authenticate')).toBe('Bearer');
      expect(handlerReached).toBe(false);
    }
    expect(await world.metrics()).toContain('crossfade_rejections_total{credential="session",reason="bad-signature"}');
  });

  it('C7, for koa-session: what else the record says of an end does not count while its own authority, the TTL, lives', async () => {
    const endless = await createWorld({ legacy: { session: { maxAge: 'session' } } });
    try {
      const cookie = await endless.login('alice');
      const [key = ''] = endless.legacy.keys;
      const record: unknown = JSON.parse((await endless.legacy.redis.get(key)) ?? '{}');
      const past = new Date(0).toISOString();
      await endless.legacy.redis.set(
        key,
        JSON.stringify({ ...(record instanceof Object ? record : {}), _expire: past, expires: past, cookie: { expires: past } }),
        'EX',
        60,
      );
      expect(await (await endless.call('/', { cookie })).json()).toMatchObject({ principal: { subject: 'u-alice', expiresAt: expect.any(Number) } });
    } finally {
      await endless.close();
    }
  });

  it('C10: a stale cookie beside a valid bearer changes nothing', async () => {
    const cookie = await world.login('alice');
    const bearer = await world.token(cookie);
    await world.legacy.logout(cookie);
    expect(await (await world.call('/', { cookie, bearer })).json()).toMatchObject({
      principal: { subject: 'u-alice', via: 'jwt' },
      rejection: null,
    });
  });
});

describe('Redis away', () => {
  it('Law 8: what Redis repeats of a command in its error stays out of the log', async () => {
    const hardened = await startRedis({ args: ['--rename-command', 'MGET', '', '--rename-command', 'GET', ''] });
    const world = await createWorld({ legacy: { redisUrl: hardened.url } });
    try {
      const cookie = await world.login('alice');
      await expectError(await world.call('/', { cookie }), 503, 'temporarily_unavailable');
      const line = await world.log.until((found) => found['msg'] === 'requests are answered 503');
      expect(line).toMatchObject({ reason: 'redis', err: { name: 'ReplyError', message: 'ERR' } });
    } finally {
      await world.close();
      await hardened.stop();
    }
  });

  it("is ready while the records can be read, whatever the bridge's own Redis does", async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    const world = await createWorld({ redisUrl: own.url });
    try {
      const cookie = await world.login('alice');
      await own.cut();
      expect((await world.call('/', { cookie })).status).toBe(200);
      expect(await expectError(await world.exchange(cookie), 503, 'temporarily_unavailable')).toMatchObject({ reason: 'redis' });
      // Why it is away is known a moment later.
      await expect
        .poll(async () => await world.bridge.readiness())
        .toEqual({
          ready: true,
          canIssue: false,
          parts: { redis: 'away', records: 'up', signing: 'healthy', flags: 'live', events: 'read' },
          problems: [expect.stringMatching(/^bridge: Redis is away \(127\.0\.0\.1:\d+: /), expect.stringMatching(/^events: Redis is away/)],
        });
      await world.store.cut();
      expect(await world.bridge.readiness()).toMatchObject({ ready: false, canIssue: false, parts: { records: 'away' } });
      await own.restore();
    } finally {
      await world.close();
      await own.close();
    }
  });

  it('Law 1, C5: away or silent, a cookie is 503 within the command timeout, and no cookie is touched', async () => {
    const away = await createWorld();
    try {
      const cookie = await away.login('alice');
      expect((await away.call('/', { cookie })).status).toBe(200);
      const faults: Record<string, () => Promise<void> | void> = { silent: () => away.store.silence(), away: async () => await away.store.cut() };
      for (const [what, fault] of Object.entries(faults)) {
        await fault();
        const { result, handlerReached } = await away.watching(() => away.call('/', { cookie, signal: AbortSignal.timeout(5000) }));
        expect(await expectError(result, 503, 'temporarily_unavailable')).toEqual({ error: 'temporarily_unavailable', reason: 'redis' });
        expect({ what, handlerReached, retryAfter: result.headers.get('retry-after') }).toEqual({
          what,
          handlerReached: false,
          retryAfter: expect.stringMatching(/^([1-9]|10)$/),
        });
        await expectError(await away.exchange(cookie), 503, 'temporarily_unavailable');
        await expectError(await away.call('/auth/verify', { cookie }), 503, 'temporarily_unavailable');
      }
      const from = away.log.all.length;
      await away.store.restore();
      await away.log.until((line) => line['msg'] === 'redis is back', from);
      expect((await away.call('/', { cookie })).status).toBe(200);
    } finally {
      await away.close();
    }
  });

  it('Law 1, C6: without a cookie an anonymous request passes at once, and a bearer is verified as ever', async () => {
    const away = await createWorld();
    try {
      const bearer = await away.token(await away.login('alice'));
      await away.store.cut();
      const { result, storeReached } = await away.watching(() => away.call('/'));
      expect({ status: result.status, storeReached }).toEqual({ status: 200, storeReached: false });
      expect(await (await away.call('/orders', { bearer })).json()).toMatchObject({ principal: { subject: 'u-alice', via: 'jwt' } });
    } finally {
      await away.close();
    }
  });

  it('a read is one round trip, for one cookie and for several', async () => {
    const cookie = await world.login('alice');
    await world.call('/', { cookie });
    for (const header of [cookie, `koa.sess=11111111-1111-4111-8111-111111111111; ${cookie}`]) {
      const before = world.store.sends;
      expect((await world.call('/me', { cookie: header })).status).toBe(200);
      expect(world.store.sends - before).toBe(1);
    }
  });

  it('an anonymous request never reaches the store, whatever other cookies it has', async () => {
    const { storeReached } = await world.watching(() => world.call('/', { cookie: 'theme=dark; koa.sess.sig=x; koa.sessx=y' }));
    expect(storeReached).toBe(false);
  });

  it('C3: with keys in doubt the cookie of the same session answers for a bearer, the cookie of another one does not', async () => {
    const before = await createWorld();
    const cookie = await before.login('alice');
    const bearer = await before.token(cookie);
    const other = await before.login('alice');
    const doubting = await createWorld({
      prepare: (directory) => rmSync(join(directory, 'keys'), { recursive: true }),
      legacy: { secrets: before.secrets },
    });
    try {
      const same = await doubting.call('/', { cookie, bearer });
      expect({ status: same.status, body: await same.json() }).toMatchObject({
        status: 200,
        body: { principal: { subject: 'u-alice', via: 'session' } },
      });
      expect(await doubting.metrics()).toContain('crossfade_session_answered_for_bearer_total 1');
      expect(doubting.log.audits('session.answered')).toHaveLength(1);
      for (const beside of [other, undefined]) {
        const { result, handlerReached } = await doubting.watching(() =>
          doubting.call('/', beside === undefined ? { bearer } : { bearer, cookie: beside }),
        );
        expect(await expectError(result, 503, 'temporarily_unavailable')).toMatchObject({ reason: 'keys' });
        expect(handlerReached).toBe(false);
      }
    } finally {
      await doubting.close();
      await before.close();
    }
  });
});
