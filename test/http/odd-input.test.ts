import { Redis } from 'ioredis';
import { decodeJwt } from 'jose';
import Keygrip from 'keygrip';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { expectError } from '../support/expect-error.js';
import { rawRequest } from '../support/raw-request.js';
import { cookiesOf, exchangeNative, postAsBrowser, postReturn, refreshCookie, refreshNative, TOKEN_EXCHANGE } from '../support/tokens.js';
import { rememberCookie } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, ORIGIN, sharedRedisUrl, type World } from '../support/world.js';

const open = useWorlds();
let world: World;
beforeAll(async () => {
  world = await createWorld();
});
afterAll(async () => await world.close());

async function principalOf(at: World, headers: Record<string, string>): Promise<unknown> {
  const response = await rawRequest(`${at.url}/`, { headers });
  return JSON.parse(response.text).principal;
}

describe('Authorization headers of front ends that hold no token', () => {
  it.each([
    'Bearer',
    'Bearer ',
    'bearer null',
    'Bearer undefined',
    'Bearer NaN',
    'Bearer false',
    'Bearer [object Object]',
    'Bearer [object Promise]',
    'Bearer "null"',
    'Bearer ""',
    'Bearer (null)',
    'Bearer {{token}}',
    'Bearer ${token}',
  ])('%s is no bearer: the cookie decides, and without one the request is anonymous', async (authorization) => {
    const cookie = await world.login('alice');
    expect(await principalOf(world, { authorization, cookie })).toMatchObject({ via: 'session', subject: 'u-alice' });
    expect(await principalOf(world, { authorization })).toBeNull();
    await expectError(await world.call('/me', { headers: { authorization } }), 401, 'missing_credential');
    expect((await world.call('/auth/verify', { headers: { authorization, cookie } })).headers.get('x-auth-subject')).toBe('u-alice');
  });

  it('exchanges a session beside an empty bearer', async () => {
    const cookie = await world.login('alice');
    expect((await world.exchange(cookie, {}, { authorization: 'Bearer null' })).status).toBe(200);
  });

  it.each(['Bearer a.b.c, Bearer a.b.c', 'Basic dTpw, Bearer a.b.c', 'Bearer sk_live_1, Basic dTpw'])(
    'refuses two headers that a proxy has joined: %s [B8]',
    async (authorization) => {
      const cookie = await world.login('alice');
      const { result, storeReached, handlerReached } = await world.watching(() => world.call('/', { headers: { authorization, cookie } }));
      await expectError(result, 400, 'invalid_request');
      expect({ storeReached, handlerReached }).toEqual({ storeReached: false, handlerReached: false });
    },
  );

  it.each(['access%5Ftoken', '%61ccess_token', '%61%63%63%65%73%73%5f%74%6f%6b%65%6e'])(
    'refuses a token in the query named %s [B8]',
    async (name) => {
      const cookie = await world.login('alice');
      const { result, handlerReached } = await world.watching(() => world.call(`/?${name}=x`, { cookie }));
      await expectError(result, 400, 'invalid_request');
      expect(handlerReached).toBe(false);
    },
  );
});

describe('parameters without a value count as omitted (RFC 6749, section 3.2)', () => {
  it('exchanges with every optional parameter left empty, and keeps the whole scope and the return', async () => {
    const empty = { scope: '', audience: '', resource: '', requested_token_type: '', actor_token: '', client_secret: '' };
    const tokens = await exchangeNative(world, await world.login('alice'), empty);
    expect(tokens.scope).toBe('read:orders write:orders');
    expect((await postReturn(world, tokens.refresh)).status).toBe(204);
  });

  it('takes the request cookie where subject_token and its type are empty', async () => {
    const response = await world.exchange(await world.login('alice'), { subject_token: '', subject_token_type: '' });
    expect(response.status).toBe(200);
  });

  it('refreshes with an empty scope as with none', async () => {
    const { refresh } = await exchangeNative(world, await world.login('alice'));
    expect((await refreshNative(world, refresh, { scope: '', resource: '' })).scope).toBe('read:orders write:orders');
  });

  it.each([
    ['/auth/token', { grant_type: '' }],
    ['/auth/token', { grant_type: 'refresh_token', client_id: 'android', refresh_token: '' }],
    ['/auth/session', { client_id: 'android', refresh_token: '' }],
    ['/auth/revoke', { client_id: 'android', token: '' }],
  ])('answers %s with an empty required parameter 400 invalid_request', async (path, form) => {
    await expectError(await world.post(path, form), 400, 'invalid_request');
  });

  it('still refuses a parameter that has two values [X7]', async () => {
    const body = new URLSearchParams([
      ['grant_type', TOKEN_EXCHANGE],
      ['scope', 'read:orders'],
      ['scope', 'write:orders'],
    ]);
    await expectError(await world.call('/auth/token', { method: 'POST', body }), 400, 'invalid_request');
  });
});

/** A browser's refresh cookies, in this order. */
async function browser(name: string, at = world): Promise<{ cookie: string; pair: string }> {
  const cookie = await at.login(name);
  return { cookie, pair: refreshCookie(await at.exchange(cookie)) ?? '' };
}

async function refreshBy(pairs: readonly string[], at = world): Promise<Response> {
  return await postAsBrowser(at, '/auth/token', pairs.join('; '), { grant_type: 'refresh_token' });
}

describe('several refresh cookies in one request', () => {
  const junk = ['__Secure-xfr=stale', '__Secure-xfr=xfr1.a.b.c.d', `__Secure-xfr=xfr1.${'A'.repeat(32)}.x.y.z`];

  it.each([0, 1, 2, 3])('uses the good one at place %i', async (place) => {
    const { pair } = await browser('alice');
    const response = await refreshBy([...junk.slice(0, place), pair, ...junk.slice(place)]);
    expect(response.status).toBe(200);
    expect(refreshCookie(response)).toBeDefined();
  });

  it('a stale part beside the current one of its family is no reuse', async () => {
    const at = await open({ configure: (config) => ({ ...config, tokens: { ...config.tokens, reuseGraceSeconds: 0 } }) });
    const { pair: first } = await browser('alice', at);
    const second = refreshCookie(await refreshBy([first], at)) ?? '';
    const third = refreshCookie(await refreshBy([second], at)) ?? '';
    const response = await refreshBy([first, third], at);
    expect(response.status).toBe(200);
    expect(at.log.audits('family.revoked')).toEqual([]);
    // Alone it is reuse, as ever [F6].
    expect((await refreshBy([first], at)).status).toBe(400);
    expect(at.log.audits('family.revoked')).toMatchObject([{ reason: 'reused' }]);
  });

  it('two good ones of different principals are 400, and nothing is cleared or consumed', async () => {
    const [alice, bob] = [await browser('alice'), await browser('bob')];
    const response = await refreshBy([alice.pair, bob.pair]);
    await expectError(response.clone(), 400, 'invalid_request');
    expect(response.headers.getSetCookie()).toEqual([]);
    expect((await refreshBy([alice.pair])).status).toBe(200);
    expect((await refreshBy([bob.pair])).status).toBe(200);
  });

  it('a dead one of another principal does not stand in the way of the good one, in whichever order', async () => {
    const records = await startRedis();
    onTestFinished(async () => await records.stop());
    const admin = new Redis(records.url);
    onTestFinished(() => admin.disconnect());
    // As on a Cluster: a logout at the app is noticed at the next refresh only.
    await admin.call('ACL', 'SETUSER', 'default', '-client|tracking');
    const at = await open({ legacy: { redisUrl: records.url } });
    for (const isFirst of [true, false]) {
      const alice = await browser('alice', at);
      await at.legacy.redis.del(at.legacy.keys.at(-1) ?? '');
      const bob = await browser('bob', at);
      const response = await refreshBy(isFirst ? [alice.pair, bob.pair] : [bob.pair, alice.pair], at);
      expect(response.status).toBe(200);
    }
  });

  it('five are 400, however good one of them is', async () => {
    const { pair } = await browser('alice');
    const response = await refreshBy([...junk, '__Secure-xfr=fourth', pair]);
    await expectError(response.clone(), 400, 'invalid_request');
    expect(response.headers.getSetCookie()).toEqual([]);
  });

  it('without a good one the answer clears ours', async () => {
    const response = await refreshBy(junk);
    expect([response.status, await response.json()]).toEqual([400, expect.objectContaining({ error: 'invalid_grant' })]);
    expect(response.headers.getSetCookie().join()).toMatch(/^__Secure-xfr=; /);
  });

  it('the return uses the good one as well', async () => {
    const { pair } = await browser('alice');
    expect((await postAsBrowser(world, '/auth/session', [...junk, pair].join('; '))).status).toBe(204);
  });

  it('a logout ends the sessions of all of them, and refuses those of two principals', async () => {
    const { pair, cookie } = await browser('alice');
    const other = await browser('bob');
    await expectError(await postAsBrowser(world, '/auth/logout', [pair, other.pair].join('; ')), 400, 'invalid_request');
    expect((await world.call('/me', { cookie })).status).toBe(200);
    expect((await postAsBrowser(world, '/auth/logout', ['__Secure-xfr=stale', pair].join('; '))).status).toBe(204);
    expect((await refreshBy([pair])).status).toBe(400);
    await expectError(await world.call('/me', { cookie }), 401, 'missing_credential');
  });
});

describe('a POST with Origin: null', () => {
  it('is allowed with Sec-Fetch-Site: same-origin, as a page with Referrer-Policy: no-referrer sends it', async () => {
    const cookie = await world.login('alice');
    const response = await world.exchange(cookie, { client_id: 'web' }, { origin: 'null', 'sec-fetch-site': 'same-origin' });
    expect(response.status).toBe(200);
  });

  it.each(['app.example.com', 'kiosk.example.com'])('is of the client whose pages are on %s, where it names none', async (host) => {
    const auth = await open({
      configure: (config) => ({
        ...config,
        issuer: 'https://auth.example.com',
        clients: (config.clients ?? []).map((client) => (client.id === 'kiosk' ? { ...client, exchanges: true } : client)),
      }),
    });
    const headers = {
      host,
      origin: 'null',
      'sec-fetch-site': 'same-origin',
      cookie: await auth.login('alice'),
      'content-type': 'application/x-www-form-urlencoded',
    };
    const form = new URLSearchParams({ grant_type: TOKEN_EXCHANGE }).toString();
    expect((await rawRequest(`${auth.url}/auth/token`, { method: 'POST', headers, body: form })).status).toBe(200);
    const elsewhere = { ...headers, host: 'elsewhere.example.com' };
    expect((await rawRequest(`${auth.url}/auth/token`, { method: 'POST', headers: elsewhere, body: form })).status).toBe(400);
  });

  it.each([undefined, 'cross-site', 'same-site', 'none'])('is refused with Sec-Fetch-Site: %s [X5]', async (site) => {
    const cookie = await world.login('alice');
    const headers = { origin: 'null', ...(site === undefined ? {} : { 'sec-fetch-site': site }) };
    const { result, storeReached, issued } = await world.watching(() => world.exchange(cookie, { client_id: 'web' }, headers));
    await expectError(result, 403, 'invalid_request');
    expect({ storeReached, issued }).toEqual({ storeReached: false, issued: 0 });
  });

  it('is refused for a client without pages, even where no cookie came', async () => {
    await expectError(await world.post('/auth/logout', { client_id: 'web' }, { headers: { origin: 'null' } }), 403, 'invalid_request');
  });
});

describe('methods and bodies that libraries expect', () => {
  it.each(['TRACE', 'PUT', 'PURGE', 'PROPFIND', 'LOCK'])('answers %s on an endpoint 405 with Allow', async (method) => {
    const response = await rawRequest(`${world.url}/auth/token`, { method });
    expect([response.status, response.headers['allow']]).toEqual([405, 'POST']);
  });

  it('answers a revocation with an empty JSON object', async () => {
    const { refresh } = await exchangeNative(world, await world.login('alice'));
    const response = await world.post('/auth/revoke', { client_id: 'android', token: refresh });
    expect([response.status, response.headers.get('content-type'), await response.json()]).toEqual([200, 'application/json; charset=utf-8', {}]);
  });
});

describe('app.keys with a hash of its own', () => {
  it.each([
    [{ algorithm: 'sha256' }, ['sha256', 'base64']],
    [{ algorithm: 'sha512', encoding: 'hex' }, ['sha512', 'hex']],
  ] as const)('reads and writes cookies signed as %j says', async (signature, [algorithm, encoding]) => {
    const secrets = ['a-secret-of-the-app-3f8a61', 'an-older-one-77aa12'];
    const at = await open({
      legacy: { redisUrl: sharedRedisUrl(), secrets },
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, signature })) }),
    });
    const keygrip = new Keygrip(secrets, algorithm, encoding);
    const id = (await at.login('alice')).split(';')[0] ?? '';
    const signed = (pair: string) => `${pair}; koa.sess.sig=${keygrip.sign(pair)}`;
    rememberCookie(signed(id));
    expect((await at.call('/me', { cookie: signed(id) })).status).toBe(200);
    const { refresh } = await exchangeNative(at, signed(id));
    const back = cookiesOf(await postReturn(at, refresh));
    expect(keygrip.verify(id, /koa\.sess\.sig=([^;]+)/.exec(back)?.[1] ?? '')).toBe(true);
    // The hash that the app does not use proves nothing.
    const { result, storeReached } = await at.watching(() => at.call('/me', { cookie: `${id}; koa.sess.sig=${new Keygrip(secrets).sign(id)}` }));
    await expectError(result, 401, 'missing_credential');
    expect(storeReached).toBe(false);
  });
});

describe('ids beyond 2^53 in JSON records', () => {
  async function put(at: World, text: string): Promise<string> {
    const cookie = await at.login('alice');
    await at.legacy.redis.set(at.legacy.keys.at(-1) ?? '', text, 'KEEPTTL');
    return cookie;
  }
  const record = (id: string, loggedInAt = 1_700_000_000_000): string =>
    `{"user":{"id":${id},"scope":["read:orders"],"loggedInAt":${loggedInAt}},"_expire":${Date.now() + 3_600_000}, "_maxAge":3600000}`;

  it.each([
    ['9007199254740993', '9007199254740993'],
    ['12345678901234567890', '12345678901234567890'],
    ['-9223372036854775808', '-9223372036854775808'],
    ['9007199254740991', '9007199254740991'],
    ['8', '8'],
    ['8.0', '8'],
    ['"9007199254740993"', '9007199254740993'],
  ])('%s is the subject %s', async (id, subject) => {
    const cookie = await put(world, record(id));
    expect(await principalOf(world, { cookie })).toMatchObject({ subject, authTime: 1_700_000_000 });
  });

  it.each(['8.5', '1e300', '9007199254740993.0', '"\\u200b\\u2060"', '" \\t "', '"\\u3164"'])('%s is no id', async (id) => {
    const cookie = await put(world, record(id));
    const response = await world.call('/', { cookie });
    expect(await response.json()).toMatchObject({ principal: null, rejection: { credential: 'session', reason: 'unmappable-record' } });
  });

  it('a return writes the record back with only its end changed', async () => {
    const at = await open({
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, rolling: true })) }),
    });
    const cookie = await put(at, record('9007199254740993', Date.now()));
    const key = at.legacy.keys.at(-1) ?? '';
    const before = (await at.legacy.redis.get(key)) ?? '';
    // It is about to end: that it is gone soon after is no logout.
    await at.legacy.redis.pexpire(key, 1500);
    const { refresh, access } = await exchangeNative(at, cookie);
    expect(decodeJwt(access).sub).toBe('9007199254740993');
    await at.legacy.redis.pexpire(key, 1);
    await expect.poll(async () => await at.legacy.redis.exists(key)).toBe(0);
    const restored = cookiesOf(await postReturn(at, refresh));
    const newKey = /koa\.sess=([^;]+)/.exec(restored)?.[1] ?? '';
    const after = (await at.legacy.redis.get(newKey)) ?? '';
    await at.legacy.redis.del(newKey);
    expect(after).not.toBe(before);
    expect(after.replace(/"_expire":\d+/, '')).toBe(before.replace(/"_expire":\d+/, ''));
  });
});

describe('a session whose token would be too large', () => {
  const roles = Array.from({ length: 250 }, (_, n) => `department-${n}-administrator-of-orders`);

  it('Law 1: is served by session at jwt-only, gets no nudge, and the operator is told how many', async () => {
    const at = await open({ stage: 'jwt-only' });
    const cookie = await at.login('alice');
    await at.editRecord(({ user }) => Object.assign(user, { roles }));
    const response = await at.call('/me', { cookie, headers: { origin: ORIGIN } });
    expect([response.status, response.headers.get('auth-migration')]).toEqual([200, null]);
    await expectError(await at.exchange(cookie), 400, 'invalid_request');
    expect(await at.metrics()).toMatch(/crossfade_sessions_without_token_total\{client="web",reason="token-too-large"\} 1/);
    expect(at.log.all.some((line) => String(line['msg']).includes('over 8192 bytes: map fewer roles'))).toBe(true);
    // All others are told to exchange first, as ever.
    await expectError(await at.call('/me', { cookie: await at.login('bob'), headers: { origin: ORIGIN } }), 401, 'session_not_accepted');
  });

  it('agrees with the exchange to the byte', async () => {
    const at = await open({ stage: 'jwt-only' });
    const cookie = await at.login('alice');
    const served = new Set<number>();
    for (let length = 5540; length < 5660; length += 4) {
      const one = 'r'.repeat(1000);
      const list = [...Array.from({ length: 5 }, (_, n) => `${n}${one}`), 's'.repeat(length - 5005)];
      await at.editRecord(({ user }) => Object.assign(user, { roles: list }));
      const { status } = await at.call('/me', { cookie, headers: { origin: ORIGIN } });
      expect([length, (await at.exchange(cookie)).status]).toEqual([length, status === 401 ? 200 : 400]);
      served.add(status);
    }
    expect([...served].sort()).toEqual([200, 401]);
  });
});
