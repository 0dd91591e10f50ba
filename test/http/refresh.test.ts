import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { decodeJwt } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { expectError } from '../support/expect-error.js';
import type { Instance } from '../support/instance.js';
import { exchangeNative, postAsBrowser, postRefresh, readTokens, refreshCookie, refreshNative, type Tokens } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import { AUDIENCE, createWorld, ORIGIN, sharedRedisUrl, type World } from '../support/world.js';

const open = useWorlds();

let world: World;
beforeAll(async () => {
  world = await createWorld();
});
afterAll(async () => await world.close());

/** The parts of a refresh token, one of them replaced. */
function withPart(token: string, at: number, value: string): string {
  return token
    .split('.')
    .map((part, index) => (index === at ? value : part))
    .join('.');
}

async function statusOfMe(at: Instance, token: string): Promise<number> {
  return (await at.call('/me', { bearer: token })).status;
}

async function familiesOf(at: World, sid: string): Promise<string[]> {
  return await at.legacy.redis.zrange(`${at.prefix}{${sid}}:families`, '0', '-1');
}

describe('a refresh', () => {
  it('gives an access token of the same person and session, and another refresh token', async () => {
    const first = await exchangeNative(world, await world.login('alice'));
    const second = await refreshNative(world, first.refresh);
    expect(second.refresh).toMatch(/^xfr1\.[\w-]{32}\.\d{13}[\w-]{16}\.[\w-]{43}\.[\w-]{43}$/);
    expect(second.refresh.split('.').slice(0, 4)).toEqual(first.refresh.split('.').slice(0, 4));
    expect(second.refresh).not.toBe(first.refresh);
    const [before, after] = [decodeJwt(first.access), decodeJwt(second.access)];
    expect(after).toEqual({ ...before, jti: after.jti, iat: after.iat, exp: after.exp });
    expect(after.jti).not.toBe(before.jti);
    expect(await (await world.call('/me', { bearer: second.access })).json()).toMatchObject({ principal: { subject: 'u-alice', via: 'jwt' } });
  });

  it('is answered as OAuth has it: no-store, Bearer, the scope, the life', async () => {
    const { refresh } = await exchangeNative(world, await world.login('bob'));
    const response = await postRefresh(world, refresh);
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(response.headers.getSetCookie()).toEqual([]);
    expect(await response.json()).toEqual({
      access_token: expect.any(String),
      token_type: 'Bearer',
      expires_in: 600,
      scope: 'read:orders',
      refresh_token: expect.stringMatching(/^xfr1\./),
    });
  });

  it('Law 2: reads roles and scope anew from the record, more or fewer', async () => {
    const cookie = await world.login('alice');
    const { refresh } = await exchangeNative(world, cookie);
    const change = async (roles: string[], scope: string[]) => await world.editRecord(({ user }) => Object.assign(user, { roles, scope }));
    await change(['member'], ['read:orders']);
    const fewer = await refreshNative(world, refresh);
    expect(decodeJwt(fewer.access)).toMatchObject({ roles: ['member'], scope: 'read:orders' });
    await change(['admin', 'owner'], ['read:orders', 'delete:orders']);
    expect(decodeJwt((await refreshNative(world, fewer.refresh)).access)).toMatchObject({
      roles: ['admin', 'owner'],
      scope: 'read:orders delete:orders',
    });
  });

  it('Law 2: a family that was narrowed stays narrow, and loses what the session loses', async () => {
    const cookie = await world.login('alice');
    const { refresh, scope } = await exchangeNative(world, cookie, { scope: 'write:orders' });
    expect(scope).toBe('write:orders');
    const again = await refreshNative(world, refresh);
    expect(again.scope).toBe('write:orders');
    await expectError(await postRefresh(world, again.refresh, { scope: 'read:orders' }), 400, 'invalid_scope');
    await world.editRecord(({ user }) => Object.assign(user, { scope: ['read:orders'] }));
    expect((await refreshNative(world, again.refresh)).scope).toBeUndefined();
  });

  it('Law 2: the family and its access tokens end no later than the session', async () => {
    const short = await open({ legacy: { session: { maxAge: 120_000 } } });
    const { access, refresh, sid, family } = await exchangeNative(short, await short.login('alice'));
    const record = JSON.parse((await short.legacy.redis.get(short.legacy.keys.at(-1) ?? '')) ?? '');
    const sessionEnd = Math.floor(record._expire / 1000);
    expect(decodeJwt(access).exp).toBe(sessionEnd);
    expect(decodeJwt((await refreshNative(short, refresh)).access).exp).toBe(sessionEnd);
    expect(await short.legacy.redis.pexpiretime(`${short.prefix}{${sid}}:family:${family}`)).toBe(sessionEnd * 1000);
  });

  it('Law 2: a rolling session gives a family that may lie unused no longer than the session itself', async () => {
    const rolling = await open({
      legacy: { session: { maxAge: 120_000, rolling: true } },
      configure: (config) => ({
        ...config,
        sessions: (config.sessions ?? []).map((session) => ({ ...session, rolling: true, absoluteTtlSeconds: 600 })),
      }),
    });
    const { access, sid, family } = await exchangeNative(rolling, await rolling.login('alice'));
    const left = await rolling.legacy.redis.pttl(`${rolling.prefix}{${sid}}:family:${family}`);
    expect(left).toBeGreaterThan(110_000);
    expect(left).toBeLessThanOrEqual(120_000);
    const { exp = 0, iat = 0 } = decodeJwt(access);
    expect(exp - iat).toBe(120);
  });

  it('keeps the refresh token of a browser in a cookie that no script can read, and in no body', async () => {
    const cookie = await world.login('alice');
    const exchanged = await world.exchange(cookie);
    expect(await exchanged.json()).not.toHaveProperty('refresh_token');
    const [line = ''] = exchanged.headers.getSetCookie();
    expect(line).toMatch(/^__Secure-xfr=xfr1\.[^;]+; Path=\/auth; Expires=[^;]+; HttpOnly; Secure; SameSite=Strict$/);
    const pair = refreshCookie(exchanged) ?? '';
    const refreshed = await postAsBrowser(world, '/auth/token', `${cookie}; ${pair}`, { grant_type: 'refresh_token' });
    expect(refreshed.status).toBe(200);
    expect(await refreshed.json()).not.toHaveProperty('refresh_token');
    expect(refreshCookie(refreshed)).not.toBe(pair);
  });

  it('takes the token of a browser from the cookie only, and that of a native client from the form only', async () => {
    const cookie = await world.login('alice');
    const pair = refreshCookie(await world.exchange(cookie)) ?? '';
    const token = pair.slice(pair.indexOf('=') + 1);
    await expectError(await postAsBrowser(world, '/auth/token', pair, { grant_type: 'refresh_token', refresh_token: token }), 400, 'invalid_request');
    const native = await exchangeNative(world, cookie);
    const inCookie = { cookie: `__Secure-xfr=${native.refresh}` };
    await expectError(await world.post('/auth/token', { grant_type: 'refresh_token', client_id: 'android' }, inCookie), 400, 'invalid_request');
    expect((await postRefresh(world, native.refresh)).status).toBe(200);
  });

  it.each([['https://evil.example'], ['null'], [undefined]])('X4: the refresh cookie is not read for a page at %s', async (origin) => {
    const pair = refreshCookie(await world.exchange(await world.login('alice'))) ?? '';
    const form = { grant_type: 'refresh_token', client_id: 'web' };
    await expectError(await world.post('/auth/token', form, { cookie: pair, headers: origin ? { origin } : {} }), 403, 'invalid_request');
    expect((await postAsBrowser(world, '/auth/token', pair, { grant_type: 'refresh_token' })).status).toBe(200);
  });

  it('clears the cookie with invalid_grant, and with nothing else', async () => {
    const pair = refreshCookie(await world.exchange(await world.login('alice'))) ?? '';
    const bad = await postAsBrowser(world, '/auth/token', `${pair.slice(0, -4)}AAAA`, { grant_type: 'refresh_token', scope: 'more' });
    expect(await bad.json()).toMatchObject({ error: 'invalid_grant' });
    expect(bad.headers.getSetCookie()).toEqual([expect.stringMatching(/^__Secure-xfr=; Path=\/auth; Expires=Thu, 01 Jan 1970 00:00:00 GMT/)]);
  });

  it('repeats the audience that was granted, and gives no other', async () => {
    const { refresh, access } = await exchangeNative(world, await world.login('alice'), { audience: 'https://orders.internal' });
    expect(decodeJwt(access).aud).toBe('https://orders.internal');
    await expectError(await postRefresh(world, refresh, { audience: AUDIENCE }), 400, 'invalid_target');
    expect(decodeJwt((await refreshNative(world, refresh, { resource: 'https://orders.internal' })).access).aud).toBe('https://orders.internal');
  });

  it('while signing is broken is 503, at any stage, and consumes nothing', async () => {
    const broken = await open();
    const { refresh } = await exchangeNative(broken, await broken.login('alice'));
    const kept = broken.readFile('keys/first.pem');
    const silent = await broken.another({
      configure: (config) => ({ ...config, keys: { ...config.keys, use: 'verify' } }),
    });
    expect(await expectError(await postRefresh(silent, refresh), 503, 'temporarily_unavailable')).toMatchObject({ reason: 'signing' });
    expect(kept).not.toBe('');
    expect((await refreshNative(broken, refresh)).refresh).not.toBe(refresh);
  });
});

describe('F1: what is no refresh token', () => {
  let tokens: Tokens;
  beforeAll(async () => {
    tokens = await exchangeNative(world, await world.login('alice'));
  });

  it.each<[string, (token: Tokens) => string]>([
    ['nonsense', () => 'nonsense'],
    ['an access token', ({ access }) => access],
    ['an unknown session', ({ refresh }) => withPart(refresh, 1, 'A'.repeat(32))],
    ['an unknown family', ({ refresh }) => withPart(refresh, 2, `1700000000000${'A'.repeat(16)}`)],
    ['another version', ({ refresh }) => withPart(refresh, 0, 'xfr2')],
    ['a part too many', ({ refresh }) => `${refresh}.x`],
    ['a Redis key in the place of the session', ({ refresh }) => withPart(refresh, 1, '../../../../../../../../../x:{a}')],
    ['8 KiB', () => `xfr1.${'A'.repeat(8192)}`],
  ])('%s is 400 invalid_grant', async (_, make) => {
    const { result, handlerReached } = await world.watching(async () => await postRefresh(world, make(tokens)));
    await expectError(result, 400, 'invalid_grant');
    expect(handlerReached).toBe(false);
    expect((await familiesOf(world, tokens.sid)).includes(tokens.family)).toBe(true);
  });

  it('F1: one that has expired is 400 invalid_grant', async () => {
    const { refresh, sid, family } = await exchangeNative(world, await world.login('alice'));
    await world.legacy.redis.pexpire(`${world.prefix}{${sid}}:family:${family}`, 1);
    await expect.poll(async () => await world.legacy.redis.exists(`${world.prefix}{${sid}}:family:${family}`)).toBe(0);
    await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
  });

  it('F11: a wrong family secret, or a family id that somebody read in a token, is 400 invalid_grant and touches nothing', async () => {
    const { refresh, access } = await exchangeNative(world, await world.login('alice'));
    const guessed = withPart(withPart(refresh, 3, 'B'.repeat(43)), 4, 'C'.repeat(43));
    await expectError(await postRefresh(world, guessed), 400, 'invalid_grant');
    await expectError(await postRefresh(world, withPart(refresh, 3, 'B'.repeat(43))), 400, 'invalid_grant');
    expect(await statusOfMe(world, access)).toBe(200);
    expect((await postRefresh(world, refresh)).status).toBe(200);
  });

  it("F2: another client's token is 400 invalid_grant, and the family is not touched", async () => {
    const { refresh, access } = await exchangeNative(world, await world.login('alice'));
    await expectError(await postRefresh(world, refresh, { client_id: 'ios' }), 400, 'invalid_grant');
    const pair = `__Secure-xfr=${refresh}`;
    expect((await postAsBrowser(world, '/auth/token', pair, { grant_type: 'refresh_token' })).status).toBe(400);
    expect(await statusOfMe(world, access)).toBe(200);
    const next = await refreshNative(world, refresh);
    // A used one in the hands of another client is no reuse of this one's.
    await refreshNative(world, next.refresh);
    await expectError(await postRefresh(world, refresh, { client_id: 'ios' }), 400, 'invalid_grant');
    expect(await statusOfMe(world, access)).toBe(200);
  });

  it('F3: a wider scope is 400 invalid_scope and consumes nothing', async () => {
    const { refresh } = await exchangeNative(world, await world.login('alice'));
    await expectError(await postRefresh(world, refresh, { scope: 'read:orders write:orders admin' }), 400, 'invalid_scope');
    const narrowed = await readTokens(await postRefresh(world, refresh, { scope: 'read:orders' }));
    expect(narrowed.scope).toBe('read:orders');
    // What one access token lacks, the family still has (RFC 6749, section 6).
    expect((await refreshNative(world, narrowed.refresh)).scope).toBe('read:orders write:orders');
  });
});

describe('one token used more than once', () => {
  it('F4: 50 refreshes of one token at once, through two instances, get one successor and stay one family', async () => {
    const other = await world.another();
    const { refresh, sid, family } = await exchangeNative(world, await world.login('alice'));
    const answers = await Promise.all(Array.from({ length: 50 }, async (_, n) => await refreshNative(n % 2 ? world : other, refresh)));
    expect(new Set(answers.map((answer) => answer.refresh)).size).toBe(1);
    expect(new Set(answers.map((answer) => answer.family))).toEqual(new Set([family]));
    expect(new Set(answers.map((answer) => answer.access)).size).toBe(50);
    expect(await familiesOf(world, sid)).toEqual([family]);
    expect((await refreshNative(other, answers[0]?.refresh ?? '')).family).toBe(family);
  });

  it('F5: the predecessor gives the same successor within the grace, and as long as that was never used', async () => {
    const strict = await open({ configure: (config) => ({ ...config, tokens: { ...config.tokens, reuseGraceSeconds: 0 } }) });
    const { refresh } = await exchangeNative(strict, await strict.login('alice'));
    const { refresh: successor } = await refreshNative(strict, refresh);
    expect((await refreshNative(strict, refresh)).refresh).toBe(successor);
    expect((await refreshNative(strict, refresh)).refresh).toBe(successor);
    // Within the grace also once the successor was used.
    const graceful = await exchangeNative(world, await world.login('alice'));
    const second = await refreshNative(world, graceful.refresh);
    const third = await refreshNative(world, second.refresh);
    expect((await refreshNative(world, graceful.refresh)).refresh).toBe(second.refresh);
    expect((await refreshNative(world, second.refresh)).refresh).toBe(third.refresh);
  });

  it.each<['allow' | 'revoke', number]>([
    ['allow', 3],
    ['revoke', 2],
  ])('F6: with lateRetry: %s, an older part out of its grace ends the family, on every instance, audited', async (lateRetry, uses) => {
    const strict = await open({ configure: (config) => ({ ...config, tokens: { ...config.tokens, reuseGraceSeconds: 0, lateRetry } }) });
    const other = await strict.another();
    const { refresh, access, family } = await exchangeNative(strict, await strict.login('alice'));
    let newest = refresh;
    for (let use = 1; use < uses; use++) newest = (await refreshNative(strict, newest)).refresh;
    expect(await statusOfMe(other, access)).toBe(200);
    const before = other.reached();
    await expectError(await postRefresh(other, refresh), 400, 'invalid_grant');
    expect(other.log.audits('family.revoked')).toMatchObject([{ family, reason: 'reused' }]);
    await expectError(await postRefresh(strict, newest), 400, 'invalid_grant');
    await expectError(await other.call('/me', { bearer: access }), 401, 'invalid_token');
    await expect.poll(async () => await statusOfMe(strict, access)).toBe(401);
    expect(other.reached()).toBe(before);
  });

  it('F6: a part that never was, under the right family secret, ends the family as well', async () => {
    const { refresh, access } = await exchangeNative(world, await world.login('alice'));
    await expectError(await postRefresh(world, withPart(refresh, 4, 'A'.repeat(43))), 400, 'invalid_grant');
    await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
    expect(await statusOfMe(world, access)).toBe(401);
  });

  it('a successor is nowhere in Redis in a form that its keeper could read', async () => {
    const { refresh, sid, family } = await exchangeNative(world, await world.login('alice'));
    const next = await refreshNative(world, refresh);
    const stored = JSON.stringify(await world.legacy.redis.hgetall(`${world.prefix}{${sid}}:family:${family}`));
    for (const secret of [...refresh.split('.').slice(3), next.refresh.split('.')[4] ?? '']) expect(stored).not.toContain(secret);
    expect(stored).not.toContain('u-alice');
  });

  it('law 10: a grant that somebody moved or made in Redis is none', async () => {
    const alice = await exchangeNative(world, await world.login('alice'));
    const bob = await exchangeNative(world, await world.login('bob'));
    const keyOf = ({ sid, family }: Tokens) => `${world.prefix}{${sid}}:family:${family}`;
    const granted = (await world.legacy.redis.hget(keyOf(alice), 'grant')) ?? '';
    const own = (await world.legacy.redis.hget(keyOf(bob), 'grant')) ?? '';
    for (const forged of [granted, 'A'.repeat(80), '']) {
      await world.legacy.redis.hset(keyOf(bob), 'grant', forged);
      await expectError(await postRefresh(world, bob.refresh), 400, 'invalid_grant');
    }
    expect(world.log.audits('value.refused').filter(({ key }) => key === 'family').length).toBeGreaterThanOrEqual(2);
    await world.legacy.redis.hset(keyOf(bob), 'grant', own);
    expect(decodeJwt((await refreshNative(world, bob.refresh)).access).sub).toBe('u-bob');
  });
});

describe('Redis fails', () => {
  it('F8: after the write and before the answer, the retry succeeds with the same successor', async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    const cut = await open({ redisUrl: own.url });
    const { refresh, sid, family } = await exchangeNative(cut, await cut.login('alice'));
    const key = `${cut.prefix}{${sid}}:family:${family}`;
    const before = await cut.legacy.redis.hget(key, 'current');
    own.swallowAnswerTo((command) => /evalsha/i.test(command) && command.includes(family) && command.includes('allow'));
    const lost = await postRefresh(cut, refresh);
    await expectError(lost, 503, 'temporarily_unavailable');
    expect(await cut.legacy.redis.hget(key, 'current')).not.toBe(before);
    await own.restore();
    await expect.poll(async () => (await postRefresh(cut, refresh)).status).toBe(200);
    const [one, two] = [await refreshNative(cut, refresh), await refreshNative(cut, refresh)];
    expect(one.refresh).toBe(two.refresh);
    expect((await refreshNative(cut, one.refresh)).family).toBe(family);
    await own.close();
  });

  it('F8: killed after the write and before the answer, and started again with what it had written', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'crossfade-aof-'));
    const args = ['--appendonly', 'yes', '--appendfsync', 'always', '--dir', directory];
    const first = await startRedis({ args });
    const own = await startTcpProxy(first.url);
    const killed = await createWorld({ redisUrl: own.url });
    let again: PrivateRedis | undefined;
    try {
      const { refresh, family } = await exchangeNative(killed, await killed.login('alice'));
      own.swallowAnswerTo((command) => /evalsha/i.test(command) && command.includes(family) && command.includes('allow'));
      await expectError(await postRefresh(killed, refresh), 503, 'temporarily_unavailable');
      await first.stop();
      again = await startRedis({ port: first.port, args });
      await own.restore();
      await expect.poll(async () => (await postRefresh(killed, refresh)).status).toBe(200);
      const [one, two] = [await refreshNative(killed, refresh), await refreshNative(killed, refresh)];
      expect(one.refresh).toBe(two.refresh);
      expect((await refreshNative(killed, one.refresh)).family).toBe(family);
    } finally {
      await killed.close();
      await own.close();
      await first.stop();
      await again?.stop();
      rmSync(directory, { recursive: true, force: true });
    }
  });

  it.each<[string, (admin: Redis) => Promise<unknown>, (admin: Redis) => Promise<unknown>]>([
    ['read-only', async (admin) => await admin.replicaof('127.0.0.1', '1'), async (admin) => await admin.replicaof('NO', 'ONE')],
    ['full', async (admin) => await admin.config('SET', 'maxmemory', '1'), async (admin) => await admin.config('SET', 'maxmemory', '0')],
    [
      'loading',
      async (admin) => {
        await admin.config('SET', 'key-load-delay', '50000');
        admin.call('DEBUG', 'RELOAD').catch(() => undefined);
      },
      async () => undefined,
    ],
  ])('F9: %s is 503, and the old token stays good', async (_, fault, mend) => {
    const redis = await startRedis({ args: ['--enable-debug-command', 'yes'] });
    const faulty = await createWorld({ redisUrl: redis.url });
    const admin = new Redis(redis.url);
    try {
      const { refresh } = await exchangeNative(faulty, await faulty.login('alice'));
      await fault(admin);
      await expectError(await postRefresh(faulty, refresh), 503, 'temporarily_unavailable');
      await mend(admin);
      await expect.poll(async () => (await postRefresh(faulty, refresh)).status).toBe(200);
    } finally {
      admin.disconnect();
      await faulty.close();
      await redis.stop();
    }
  });

  it('F9: away is 503 for browsers too, and no cookie is touched', async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    const cut = await open({ redisUrl: own.url });
    const pair = refreshCookie(await cut.exchange(await cut.login('alice'))) ?? '';
    await own.cut();
    await expectError(await postAsBrowser(cut, '/auth/token', pair, { grant_type: 'refresh_token' }), 503, 'temporarily_unavailable');
    await own.restore();
    await expect.poll(async () => (await postAsBrowser(cut, '/auth/token', pair, { grant_type: 'refresh_token' })).status).toBe(200);
    await own.close();
  });

  it('records away is 503: roles cannot be read anew', async () => {
    const away = await open();
    const { refresh } = await exchangeNative(away, await away.login('alice'));
    await away.store.cut();
    await expectError(await postRefresh(away, refresh), 503, 'temporarily_unavailable');
    await away.store.restore();
    await expect.poll(async () => (await postRefresh(away, refresh)).status).toBe(200);
  });
});

it('CORS lets a page of the client refresh', async () => {
  const response = await world.call('/auth/session', { method: 'OPTIONS', headers: { origin: ORIGIN, 'access-control-request-method': 'POST' } });
  expect(response.headers.get('access-control-allow-origin')).toBe(ORIGIN);
});
