import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { expectError } from '../support/expect-error.js';
import { rawRequest } from '../support/raw-request.js';
import { createWorld, ISSUER, ORIGIN, sharedRedisUrl, type World } from '../support/world.js';

let world: World;
beforeAll(async () => {
  world = await createWorld();
});
afterAll(async () => await world.close());

const EXCHANGE = `${ISSUER}/auth/token`;
const fromWeb = { 'x-client-id': 'web' };

describe('require()', () => {
  it('answers 401 with a bare challenge for nobody, 403 with the scope for too little, and lets the rest pass', async () => {
    const anonymous = await world.watching(() => world.call('/orders'));
    await expectError(anonymous.result, 401, 'missing_credential');
    expect({ challenge: anonymous.result.headers.get('www-authenticate'), handlerReached: anonymous.handlerReached }).toEqual({
      challenge: 'Bearer',
      handlerReached: false,
    });
    const cookie = await world.login('carol');
    for (const credential of [{ cookie }, { bearer: await world.token(cookie) }]) {
      const { result, handlerReached } = await world.watching(() => world.call('/orders', credential));
      await expectError(result, 403, 'insufficient_scope');
      expect({ challenge: result.headers.get('www-authenticate'), handlerReached }).toEqual({
        challenge: 'Bearer error="insufficient_scope", scope="read:orders"',
        handlerReached: false,
      });
      expect((await world.call('/me', credential)).status).toBe(200);
    }
  });

  it('refuses a scope that is none when it is set up, not when somebody comes', () => {
    expect(() => world.bridge.require({ scope: ['read orders'] })).toThrow(/is not a scope/);
    expect(() => world.bridge.require({ scope: 'with"quote' })).toThrow(TypeError);
  });
});

describe('the nudge', () => {
  it('at jwt-preferred tells a session client that can exchange, and nobody else', async () => {
    await world.setFlags({ 'auth-migration-stage': 'jwt-preferred' });
    const cookie = await world.login('alice');
    const nudged = await world.call('/', { cookie, headers: fromWeb });
    expect({ status: nudged.status, nudge: nudged.headers.get('auth-migration'), cache: nudged.headers.get('cache-control') }).toEqual({
      status: 200,
      nudge: `stage=jwt-preferred, exchange="${EXCHANGE}"`,
      cache: 'no-store',
    });
    const verify = await world.call('/auth/verify', { cookie, headers: fromWeb });
    expect({ nudge: verify.headers.get('auth-migration'), cache: verify.headers.get('cache-control') }).toEqual({
      nudge: `stage=jwt-preferred, exchange="${EXCHANGE}"`,
      cache: 'no-store',
    });

    const bearer = await world.token(cookie);
    const silent = [
      { bearer },
      { cookie },
      { cookie, headers: { 'x-client-id': 'kiosk' } },
      { cookie, headers: { 'user-agent': 'AcmeiOS/4.1.0' } },
      {},
    ];
    for (const request of silent) expect((await world.call('/', request)).headers.get('auth-migration')).toBeNull();
    expect((await world.call('/', { cookie, headers: { 'user-agent': 'AcmeiOS/4.2.0' } })).headers.get('auth-migration')).not.toBeNull();
  });

  it('has a rate', async () => {
    const slow = await createWorld({
      stage: 'jwt-preferred',
      configure: (config) => ({ ...config, rollout: { ...config.rollout, nudgesPerSecond: 0.001 } }),
    });
    try {
      const cookie = await slow.login('alice');
      const nudges = [];
      for (let n = 0; n < 5; n++) nudges.push((await slow.call('/', { cookie, headers: fromWeb })).headers.has('auth-migration'));
      expect(nudges).toEqual([true, false, false, false, false]);
    } finally {
      await slow.close();
    }
  });
});

describe('jwt-only', () => {
  beforeAll(async () => await world.setFlags({ 'auth-migration-stage': 'jwt-only' }));

  it('an API call with the cookie is a 401 that names the exchange, which then works', async () => {
    const cookie = await world.login('alice');
    for (const path of ['/', '/orders', '/auth/verify']) {
      const { result, handlerReached } = await world.watching(() => world.call(path, { cookie, headers: fromWeb }));
      expect(await expectError(result, 401, 'session_not_accepted')).toEqual({
        error: 'session_not_accepted',
        stage: 'jwt-only',
        exchange_uri: EXCHANGE,
      });
      expect({ challenge: result.headers.get('www-authenticate'), nudge: result.headers.get('auth-migration'), handlerReached }).toEqual({
        challenge: 'Bearer',
        nudge: `stage=jwt-only, exchange="${EXCHANGE}"`,
        handlerReached: false,
      });
    }
    const bearer = await world.token(cookie);
    expect((await world.call('/orders', { bearer })).status).toBe(200);
  });

  it('a page still opens, and what only looks like one does not', async () => {
    const cookie = await world.login('alice');
    const ask = async (headers: Record<string, string>, method = 'GET') =>
      (await rawRequest(`${world.url}/`, { method, headers: { ...headers, cookie, ...fromWeb } })).status;
    expect(await ask({ 'sec-fetch-mode': 'navigate' })).toBe(200);
    expect(await ask({ 'sec-fetch-mode': 'navigate' }, 'HEAD')).toBe(200);
    expect(await ask({ accept: 'text/html,application/xhtml+xml' })).toBe(200);
    expect(await ask({ 'sec-fetch-mode': 'navigate' }, 'POST')).toBe(401);
    expect(await ask({ 'sec-fetch-mode': 'cors', accept: 'text/html' })).toBe(401);
    expect(await ask({ 'sec-fetch-site': 'same-origin', accept: 'text/html' })).toBe(401);
    expect(await ask({ accept: 'application/json' })).toBe(401);
    expect(await ask({ accept: 'text/html', 'x-original-method': 'POST' })).toBe(401);
  });

  it('an app that was never taught to exchange is never refused its session', async () => {
    const cookie = await world.login('alice');
    for (const headers of [{}, { 'x-client-id': 'kiosk' }, { 'user-agent': 'AcmeiOS/4.1.0' }]) {
      expect((await world.call('/', { cookie, headers })).status).toBe(200);
    }
  });

  it("Law 1: tells nobody to exchange first while the bridge's own Redis is away; the session serves until it is back", async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    const apart = await createWorld({ stage: 'jwt-only', redisUrl: own.url });
    try {
      const cookie = await apart.login('alice');
      const asked = () => apart.call('/me', { cookie, headers: fromWeb });
      await expectError(await asked(), 401, 'session_not_accepted');
      await own.cut();
      await expect.poll(async () => (await asked()).status).toBe(200);
      expect((await apart.exchange(cookie)).status).toBe(503);
      await own.restore();
      await expect.poll(async () => (await asked()).status).toBe(401);
      expect((await apart.exchange(cookie)).status).toBe(200);
    } finally {
      await apart.close();
      await own.close();
    }
  });
});

describe('forward-auth', () => {
  beforeAll(async () => await world.setFlags({ 'auth-migration-stage': 'dual' }));
  const identity = (response: Response) => Object.fromEntries([...response.headers].filter(([name]) => name.startsWith('x-auth-')));
  const empty = {
    'x-auth-subject': '',
    'x-auth-tenant': '',
    'x-auth-client': '',
    'x-auth-roles': '',
    'x-auth-scope': '',
    'x-auth-via': '',
    'x-auth-stage': '',
    'x-auth-upstream': '',
  };

  it('says who a request is in all identity headers, with an empty body', async () => {
    const cookie = await world.login('alice');
    for (const [credential, via] of [
      [{ cookie, headers: fromWeb }, 'session'],
      [{ bearer: await world.token(cookie) }, 'jwt'],
    ] as const) {
      const response = await world.call('/auth/verify', credential);
      expect({ status: response.status, length: response.headers.get('content-length'), text: await response.text() }).toEqual({
        status: 200,
        length: '0',
        text: '',
      });
      expect(identity(response)).toEqual({
        'x-auth-subject': 'u-alice',
        'x-auth-tenant': 'acme',
        'x-auth-client': 'web',
        'x-auth-roles': 'admin billing',
        'x-auth-scope': 'read%3Aorders write%3Aorders',
        'x-auth-via': via,
        'x-auth-stage': 'dual',
        'x-auth-upstream': '',
      });
    }
  });

  it('answers any method and any path below as GET is', async () => {
    const cookie = await world.login('alice');
    for (const method of ['POST', 'DELETE', 'PUT', 'OPTIONS', 'PATCH', 'PROPFIND']) {
      expect((await rawRequest(`${world.url}/auth/verify/deep/path?x=1`, { method, headers: { cookie } })).status).toBe(200);
      expect((await rawRequest(`${world.url}/auth/verify/deep/path`, { method })).status).toBe(401);
    }
  });

  it('a request without a credential is 401 with empty identity headers, or 200 where the config allows anonymous ones', async () => {
    const denied = await world.call('/auth/verify', { headers: { 'x-auth-subject': 'u-forged' } });
    expect({ status: denied.status, challenge: denied.headers.get('www-authenticate'), ...identity(denied) }).toEqual({
      status: 401,
      challenge: 'Bearer',
      ...empty,
    });
    const open = await createWorld({ configure: (config) => ({ ...config, verify: { anonymous: 'allow' } }) });
    try {
      const allowed = await open.call('/auth/verify', { headers: { 'x-auth-subject': 'u-forged' } });
      expect({ status: allowed.status, ...identity(allowed) }).toEqual({ status: 200, ...empty });
      expect((await open.call('/auth/verify', { bearer: 'a.b.c' })).status).toBe(401);
    } finally {
      await open.close();
    }
  });

  it('A3: line ends and other alphabets in an identity value are percent-encoded', async () => {
    const cookie = await world.login('alice');
    const [key = ''] = world.legacy.keys.slice(-1);
    await world.legacy.redis.set(
      key,
      JSON.stringify({ user: { id: 'ü\r\nX-Auth-Roles: admin', roles: ['team lead', 'rôle'] }, _expire: Date.now() + 60_000 }),
      'KEEPTTL',
    );
    const response = await world.call('/auth/verify', { cookie });
    expect(identity(response)).toMatchObject({ 'x-auth-subject': '%C3%BC%0D%0AX-Auth-Roles%3A%20admin', 'x-auth-roles': 'team%20lead r%C3%B4le' });
  });
});

describe('a mapping function', () => {
  it('stands in for the paths; where it throws the answer is 503 and not anonymous', async () => {
    let fail = false;
    let hang = false;
    const mapped = await createWorld({
      configure: (config) => ({ ...config, sessions: config.sessions.map(({ principal: _paths, ...session }) => session) }),
      bridge: {
        principal: async (record, { entry }) => {
          if (hang) await new Promise(() => undefined);
          if (fail) throw new SyntaxError('Unexpected token in u-alice');
          const user = record['user'];
          return user ? { subject: `${entry}:mapped`, roles: ['x'], tenant: 't' } : null;
        },
      },
    });
    try {
      const cookie = await mapped.login('alice');
      expect(await (await mapped.call('/', { cookie })).json()).toMatchObject({ principal: { subject: 'web:mapped', tenant: 't' } });
      expect(await (await mapped.call('/', { cookie: await mapped.legacy.visit() })).json()).toMatchObject({
        rejection: { reason: 'nobody-logged-in' },
      });
      expect((await mapped.exchange(cookie)).status).toBe(200);
      hang = true;
      expect(await expectError(await mapped.call('/', { cookie }), 503, 'temporarily_unavailable')).toMatchObject({ reason: 'mapping' });
      hang = false;
      fail = true;
      const { result, handlerReached } = await mapped.watching(() => mapped.call('/', { cookie }));
      expect(await expectError(result, 503, 'temporarily_unavailable')).toMatchObject({ reason: 'mapping' });
      expect(handlerReached).toBe(false);
      await expectError(await mapped.exchange(cookie, {}, { origin: ORIGIN }), 503, 'temporarily_unavailable');
      await expectError(await mapped.call('/auth/verify', { cookie }), 503, 'temporarily_unavailable');
    } finally {
      await mapped.close();
    }
  });
});
