import { createHash, randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bodyParser } from '@koa/bodyparser';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import Keygrip from 'keygrip';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { expectError } from '../support/expect-error.js';
import { writeKey } from '../support/keys.js';
import { rawRequest } from '../support/raw-request.js';
import { TOKEN_EXCHANGE } from '../support/tokens.js';
import { remember } from '../support/transcript.js';
import { AUDIENCE, createWorld, ISSUER, ORIGIN, type World } from '../support/world.js';

const SESSION_TYPE = 'urn:crossfade:params:oauth:token-type:session';
const EVIL = 'https://evil.example';
const CLIENT_SECRET = 'a-client-secret-of-enough-bits-4b1c9d';

let world: World;
beforeAll(async () => {
  remember(CLIENT_SECRET);
  world = await createWorld({
    prepare: (directory) => {
      writeFileSync(join(directory, 'batch.sha256'), createHash('sha256').update(CLIENT_SECRET).digest('hex'));
      writeKeyFile(directory);
    },
    configure: (config) => ({
      ...config,
      clients: [...(config.clients ?? []), { id: 'batch', type: 'confidential', secretHashFile: 'batch.sha256', exchanges: true }],
    }),
  });
});
afterAll(async () => await world.close());

function writeKeyFile(directory: string): void {
  writeKey(join(directory, 'keys'), 'first.pem');
}

/** The form that a native client sends: the session in the body, no cookie, no origin. */
async function exchangeBody(subjectToken: string, form: Record<string, string> = {}, headers: Record<string, string> = {}): Promise<Response> {
  return await world.call('/auth/token', {
    method: 'POST',
    headers,
    body: new URLSearchParams({
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      client_id: 'ios',
      subject_token: subjectToken,
      subject_token_type: SESSION_TYPE,
      ...form,
    }),
  });
}

describe('what the exchange grants', () => {
  it('turns the session of a browser into an RFC 9068 access token with the claims that the config maps', async () => {
    const cookie = await world.login('alice');
    const response = await world.exchange(cookie);
    expect(response.status).toBe(200);
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(response.headers.get('access-control-allow-origin')).toBe(ORIGIN);
    const token = await world.token(cookie);
    expect(decodeProtectedHeader(token)).toEqual({ alg: 'ES256', typ: 'at+jwt', kid: expect.stringMatching(/^[\w-]{43}$/) });
    const claims = decodeJwt(token);
    expect(claims).toEqual({
      iss: ISSUER,
      aud: AUDIENCE,
      sub: 'u-alice',
      client_id: 'web',
      tenant: 'acme',
      roles: ['admin', 'billing'],
      scope: 'read:orders write:orders',
      sid: expect.stringMatching(/^[\w-]{32}$/),
      fid: expect.stringMatching(/^\d{13}[\w-]{16}$/),
      auth_time: expect.any(Number),
      iat: expect.any(Number),
      exp: (claims.iat ?? 0) + 600,
      jti: expect.stringMatching(/^[\w-]{22}$/),
    });
  });

  it('takes the session from subject_token, for clients that keep their cookie themselves', async () => {
    const response = await exchangeBody(await world.login('bob'));
    expect(await response.json()).toMatchObject({
      access_token: expect.any(String),
      issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      token_type: 'Bearer',
      expires_in: 600,
      scope: 'read:orders',
    });
  });

  it('gives a principal without scope a token without scope', async () => {
    const response = await world.exchange(await world.login('carol'));
    expect(await response.json()).not.toHaveProperty('scope');
  });

  it('narrows the scope on request, and takes the audience of a registered service', async () => {
    const token = await world.token(await world.login('alice'), { scope: 'read:orders', audience: 'https://orders.internal' });
    expect(decodeJwt(token)).toMatchObject({ scope: 'read:orders', aud: 'https://orders.internal' });
  });

  it('authenticates a confidential client by its secret, in the header or in the body, and by nothing else', async () => {
    const cookie = await world.login('alice');
    const basic = `Basic ${Buffer.from(`batch:${CLIENT_SECRET}`).toString('base64')}`;
    const form = new URLSearchParams({
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token: cookie,
      subject_token_type: SESSION_TYPE,
    });
    const granted = await world.call('/auth/token', { method: 'POST', headers: { authorization: basic }, body: form });
    expect(granted.status).toBe(200);
    expect((await exchangeBody(cookie, { client_id: 'batch', client_secret: CLIENT_SECRET })).status).toBe(200);

    for (const wrong of [
      { client_id: 'batch' },
      { client_id: 'batch', client_secret: 'wrong' },
      { client_id: 'nobody' },
      { client_id: 'ios', client_secret: 'x' },
    ]) {
      const { result, issued, storeReached } = await world.watching(() => exchangeBody(cookie, wrong));
      await expectError(result, 401, 'invalid_client');
      expect(result.headers.get('www-authenticate')).toMatch(/^Basic /);
      expect({ issued, storeReached }).toEqual({ issued: 0, storeReached: false });
    }
    const named = await world.call('/auth/token', { method: 'POST', headers: { 'x-client-id': 'batch' }, body: form });
    await expectError(named, 401, 'invalid_client');
  });

  it('never outlives the session that it came from', async () => {
    const cookie = await world.login('alice');
    const end = Math.floor(Date.now() / 1000) + 60;
    await world.editRecord((record) => Object.assign(record, { _expire: end * 1000 + 999 }));
    expect(decodeJwt(await world.token(cookie)).exp).toBe(end);
  });
});

describe('bad exchanges', () => {
  it('X1: without any session it is refused', async () => {
    const { result, issued } = await world.watching(() => world.exchange(''));
    await expectError(result, 400, 'invalid_request');
    expect(issued).toBe(0);
  });

  it('X2: a bad cookie signature is refused before the store is asked, in the cookie and in subject_token', async () => {
    const cookie = (await world.login('alice')).replace(/\.sig=.*/, '.sig=AAAAAAAAAAAAAAAAAAAAAAAAAAA');
    for (const ask of [() => world.exchange(cookie), () => exchangeBody(cookie), () => exchangeBody(cookie.split(';')[0] ?? '')]) {
      const { result, storeReached, issued } = await world.watching(ask);
      expect(await expectError(result, 400, 'invalid_request')).toMatchObject({ reason: 'bad-signature' });
      expect({ storeReached, issued }).toEqual({ storeReached: false, issued: 0 });
    }
  });

  it('X3: an expired record is refused', async () => {
    const cookie = await world.login('alice');
    const [key = ''] = world.legacy.keys.slice(-1);
    await world.legacy.redis.set(key, JSON.stringify({ user: { id: 'u-alice' }, _expire: Date.now() - 1, _maxAge: 1000 }), 'KEEPTTL');
    const { result, issued } = await world.watching(() => world.exchange(cookie));
    expect(await expectError(result, 400, 'invalid_request')).toMatchObject({ reason: 'expired' });
    expect(issued).toBe(0);
  });

  it('X4: a cross-site POST that reads or may set a cookie is refused before the store is asked', async () => {
    const cookie = await world.login('alice');
    const own = await world.login('bob');
    const bodyWithToken = { client_id: 'web', subject_token: own, subject_token_type: SESSION_TYPE };
    const crossSite = [
      () => world.exchange(cookie, {}, { origin: EVIL }),
      () => world.exchange(cookie, { client_id: 'web' }, { origin: EVIL }),
      () => world.exchange(cookie, bodyWithToken, { origin: EVIL }),
      () => world.exchange('', bodyWithToken, { origin: EVIL }),
      () => world.exchange(cookie, { client_id: 'web' }, { origin: 'https://kiosk.example.com' }),
      () => raw({ cookie, 'sec-fetch-site': 'cross-site' }, { client_id: 'web' }),
      () => raw({ cookie, 'sec-fetch-site': 'same-site' }, { client_id: 'web' }),
      () => raw({ cookie }, { client_id: 'web' }),
    ];
    for (const ask of crossSite) {
      const { result, storeReached, issued } = await world.watching(ask);
      await expectError(result, 403, 'invalid_request');
      expect({ storeReached, issued }).toEqual({ storeReached: false, issued: 0 });
    }
    expect((await raw({ cookie, 'sec-fetch-site': 'same-origin' }, { client_id: 'web' })).status).toBe(200);
  });

  it('X5: an origin of null, or one that only looks like an allowed one, is refused', async () => {
    const cookie = await world.login('alice');
    for (const origin of [
      'null',
      `${ORIGIN}.evil.example`,
      `${ORIGIN}:8443`,
      'http://app.example.com',
      'https://APP.example.com',
      `${ORIGIN}/`,
      'https://xapp.example.com',
    ]) {
      const { result, storeReached, issued } = await world.watching(() => world.exchange(cookie, { client_id: 'web' }, { origin }));
      await expectError(result, 403, 'invalid_request');
      expect(result.headers.get('access-control-allow-origin')).toBeNull();
      expect({ storeReached, issued }).toEqual({ storeReached: false, issued: 0 });
    }
  });

  it('X6: GET is answered 405 with the methods that there are', async () => {
    const { result, storeReached } = await world.watching(
      async () => await world.call('/auth/token', { cookie: await Promise.resolve('koa.sess=x') }),
    );
    expect(result.status).toBe(405);
    expect(result.headers.get('allow')).toBe('POST');
    expect(storeReached).toBe(false);
  });

  it('X7: a wrong content type, a repeated parameter, an unknown subject_token_type, a missing or unknown grant type', async () => {
    const cookie = await world.login('alice');
    const json = await world.call('/auth/token', {
      method: 'POST',
      cookie,
      headers: { origin: ORIGIN, 'content-type': 'application/json' },
      body: JSON.stringify({ grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange' }),
    });
    await expectError(json, 400, 'invalid_request');
    const twice = new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange' });
    twice.append('scope', 'read:orders');
    twice.append('scope', 'write:orders');
    await expectError(await world.call('/auth/token', { method: 'POST', cookie, headers: { origin: ORIGIN }, body: twice }), 400, 'invalid_request');
    await expectError(await exchangeBody(cookie, { subject_token_type: 'urn:ietf:params:oauth:token-type:jwt' }), 400, 'invalid_request');
    await expectError(await exchangeBody(cookie, { grant_type: 'password' }), 400, 'unsupported_grant_type');
    await expectError(await exchangeBody(cookie, { requested_token_type: 'urn:ietf:params:oauth:token-type:id_token' }), 400, 'invalid_request');
    await expectError(await world.call('/auth/token', { method: 'POST', body: new URLSearchParams({ scope: 'x' }) }), 400, 'invalid_request');
  });

  it('X8: an access token labelled as a session is refused before the store is asked', async () => {
    const token = await world.token(await world.login('alice'));
    const { result, storeReached, issued } = await world.watching(() => exchangeBody(token));
    await expectError(result, 400, 'invalid_request');
    expect({ storeReached, issued }).toEqual({ storeReached: false, issued: 0 });
    await expectError(await exchangeBody(token, { subject_token_type: 'urn:ietf:params:oauth:token-type:access_token' }), 400, 'invalid_request');
  });

  it('X9: an unknown audience or resource, a wider scope, a client that may not exchange', async () => {
    const cookie = await world.login('bob');
    await expectError(await exchangeBody(cookie, { audience: 'https://elsewhere.example' }), 400, 'invalid_target');
    await expectError(await exchangeBody(cookie, { resource: 'https://elsewhere.example' }), 400, 'invalid_target');
    await expectError(await exchangeBody(cookie, { scope: 'read:orders write:orders' }), 400, 'invalid_scope');
    const { result, issued } = await world.watching(() => exchangeBody(cookie, { client_id: 'kiosk' }));
    await expectError(result, 400, 'unauthorized_client');
    expect(issued).toBe(0);
  });

  it('X10: a session in which nobody is logged in is refused', async () => {
    const cookie = await world.legacy.visit();
    const { result, issued } = await world.watching(() => world.exchange(cookie));
    expect(await expectError(result, 400, 'invalid_request')).toMatchObject({ reason: 'nobody-logged-in' });
    expect(issued).toBe(0);
  });

  it('X14: corrupt JSON, a wrong Redis type, an array, a string, __proto__ and constructor members: 400 here, anonymous elsewhere', async () => {
    const { redis } = world.legacy;
    const broken: Record<string, (key: string) => Promise<unknown>> = {
      'corrupt JSON': async (key) => await redis.set(key, '{"user":{"id":"u-al'),
      'an array': async (key) => await redis.set(key, '[{"user":{"id":"u-alice"}}]'),
      'a string': async (key) => await redis.set(key, '"u-alice"'),
      null: async (key) => await redis.set(key, 'null'),
      'nothing at all': async (key) => await redis.set(key, ''),
      'a __proto__ member': async (key) => await redis.set(key, '{"__proto__":{"user":{"id":"u-alice"}}}'),
      'a __proto__ member, escaped': async (key) => await redis.set(key, String.raw`{"user":{"id":"u-alice","\u005f_proto__":{"a":1}}}`),
      'a constructor member': async (key) => await redis.set(key, '{"constructor":{"prototype":{"a":1}},"user":{"id":"u-alice"}}'),
      'a constructor on the way': async (key) => await redis.set(key, '{"user":{"constructor":"x","id":"u-alice"}}'),
      'a hash': async (key) => await redis.hset(key, 'user', 'u-alice'),
      'a list': async (key) => await redis.lpush(key, 'u-alice'),
      'a subject that is an object': async (key) => await redis.set(key, '{"user":{"id":{"a":1}}}'),
      'a tenant that is a list': async (key) => await redis.set(key, '{"user":{"id":"u-alice","tenant":["a"]}}'),
    };
    for (const [what, write] of Object.entries(broken)) {
      const cookie = await world.login('alice');
      const [key = ''] = world.legacy.keys.slice(-1);
      await redis.del(key);
      await write(key);
      const { result, issued } = await world.watching(() => world.exchange(cookie));
      expect({ what, status: result.status, issued }).toEqual({ what, status: 400, issued: 0 });
      expect(await result.json()).toMatchObject({ error: 'invalid_request' });
      const page = await world.call('/', { cookie });
      expect({ what, status: page.status, body: await page.json() }).toMatchObject({
        what,
        status: 200,
        body: { principal: null, rejection: { credential: 'session' } },
      });
    }
  });

  it('X15: a session id that is a path, a pattern, has line ends, is 8 KiB long or names a key of ours is refused unread', async () => {
    const unsigned = await createWorld({
      configure: (config) => ({ ...config, sessions: config.sessions.map((session) => ({ ...session, signed: false })) }),
    });
    try {
      const { keyPrefix = '' } = unsigned.config.redis;
      const somebodyElses = `user:${randomUUID().slice(0, 8)}`;
      await unsigned.legacy.redis.set(somebodyElses, '{"user":{"id":"u-alice"},"_expire":99999999999999}', 'EX', 60);
      for (const id of ['../../etc/passwd', '*', 'a%0d%0aDEL', `${'a'.repeat(8192)}`, `${keyPrefix}v1:jwks`, somebodyElses, '', 'a b']) {
        const { result, storeReached, issued } = await unsigned.watching(() =>
          unsigned.call('/auth/token', {
            method: 'POST',
            body: new URLSearchParams({
              grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
              client_id: 'ios',
              subject_token: `koa.sess=${id}`,
              subject_token_type: SESSION_TYPE,
            }),
          }),
        );
        expect({ id: id.slice(0, 40), status: result.status, storeReached, issued }).toEqual({
          id: id.slice(0, 40),
          status: 400,
          storeReached: false,
          issued: 0,
        });
      }
      // A key of the right shape is read, and is no session all the same.
      const shaped = randomUUID();
      await unsigned.legacy.redis.set(shaped, '{"user":{"id":"u-alice"}}', 'EX', 60);
      const response = await unsigned.call('/', { cookie: `koa.sess=${shaped}` });
      expect(await response.json()).toMatchObject({ principal: null, rejection: { reason: 'unreadable-record' } });
      const cookie = await unsigned.login('alice');
      expect((await unsigned.call('/orders', { cookie: cookie.split(';')[0] ?? '' })).status).toBe(200);
      await unsigned.legacy.redis.del(somebodyElses, shaped);
    } finally {
      await unsigned.close();
    }
  });

  it("X15: a key of ours is refused unread even under the app's own signature", async () => {
    const pair = `koa.sess=${world.config.redis.keyPrefix}v1:jwks`;
    const signature = new Keygrip([...world.secrets]).sign(pair);
    const { result, storeReached, issued } = await world.watching(() => world.exchange(`${pair}; koa.sess.sig=${signature}`));
    expect(await expectError(result, 400, 'invalid_request')).toMatchObject({ reason: 'bad-id' });
    expect({ storeReached, issued }).toEqual({ storeReached: false, issued: 0 });
  });

  it('X16: with signing broken the answer is 503 with Retry-After, and the cookie goes on working', async () => {
    const broken = await createWorld({ prepare: (directory) => writeFileSync(join(directory, 'keys', 'first.pem'), 'not a key', { mode: 0o600 }) });
    try {
      const cookie = await broken.login('alice');
      const { result, issued } = await broken.watching(() => broken.exchange(cookie));
      expect(await expectError(result, 503, 'temporarily_unavailable')).toEqual({ error: 'temporarily_unavailable', reason: 'signing' });
      expect(Number(result.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
      expect(Number(result.headers.get('retry-after'))).toBeLessThanOrEqual(10);
      expect(issued).toBe(0);
      expect((await broken.call('/orders', { cookie })).status).toBe(200);
    } finally {
      await broken.close();
    }
  });

  it('a session whose token would be too large to be accepted keeps its cookie: no token that the bridge itself refuses', async () => {
    const cookie = await world.login('alice');
    const [key = ''] = world.legacy.keys.slice(-1);
    const roles = Array.from({ length: 250 }, (_, n) => `a-role-with-a-rather-long-name-${n}`);
    await world.legacy.redis.set(key, JSON.stringify({ user: { id: 'u-alice', roles }, _expire: Date.now() + 60_000 }), 'KEEPTTL');
    const { result, issued } = await world.watching(() => world.exchange(cookie));
    await expectError(result, 400, 'invalid_request');
    expect(issued).toBe(0);
    expect((await world.call('/me', { cookie })).status).toBe(200);
  });

  it.each([undefined, ['json'] as const])('works behind a body parser of the app (types: %s)', async (enableTypes) => {
    const behind = await createWorld({ first: bodyParser(enableTypes ? { enableTypes: [...enableTypes] } : {}) });
    try {
      const cookie = await behind.login('alice');
      expect((await behind.exchange(cookie)).status).toBe(200);
      const send = async (more: string) =>
        await behind.call('/auth/token', {
          method: 'POST',
          cookie,
          headers: { origin: ORIGIN },
          body: new URLSearchParams(`grant_type=${encodeURIComponent(TOKEN_EXCHANGE)}&${more}`),
        });
      for (const more of ['scope=&scope=read:orders', 'audience=&audience=', 'scope=&scope=&scope=read:orders'])
        expect((await send(more)).status, more).toBe(200);
      await expectError(await send('scope=read:orders&scope=read:orders'), 400, 'invalid_request');
      await expectError(await behind.exchange(cookie, { scope: 'x'.repeat(17_000) }), 413, 'invalid_request');
    } finally {
      await behind.close();
    }
  });

  it('B11: with reject a foreign bearer beside the session is refused here as well', async () => {
    const strict = await createWorld({ configure: (config) => ({ ...config, bearer: { foreign: 'reject' } }) });
    try {
      const { result, issued } = await strict.watching(async () =>
        strict.exchange(await strict.login('alice'), {}, { authorization: 'Bearer sk_live_x' }),
      );
      await expectError(result, 401, 'invalid_token');
      expect(issued).toBe(0);
    } finally {
      await strict.close();
    }
  });

  it('an empty secret is none, and a Basic header that does not decode is a failed authentication', async () => {
    const cookie = await world.login('alice');
    expect((await exchangeBody(cookie, { client_secret: '' })).status).toBe(200);
    await expectError(await exchangeBody(cookie, {}, { authorization: 'Basic !!!' }), 401, 'invalid_client');
  });

  it('a body of over 16 KiB is refused with 413', async () => {
    const response = await exchangeBody(await world.login('alice'), { scope: 'x'.repeat(17_000) });
    await expectError(response, 413, 'invalid_request');
  });

  it('Law 4, X17: session and bearer, or subject_token and cookie, of different persons are refused and audited', async () => {
    const alice = await world.login('alice');
    const bob = await world.login('bob');
    const bobsToken = await world.token(bob);
    const before = world.log.audits('principal.conflict').length;
    const asks = [
      () => world.exchange(alice, {}, { authorization: `Bearer ${bobsToken}` }),
      () => world.exchange(alice, { subject_token: bob, subject_token_type: SESSION_TYPE }),
    ];
    for (const ask of asks) {
      const { result, issued } = await world.watching(ask);
      await expectError(result, 400, 'invalid_request');
      expect(issued).toBe(0);
    }
    expect(world.log.audits('principal.conflict').length).toBe(before + 2);
    expect((await world.exchange(bob, {}, { authorization: `Bearer ${bobsToken}` })).status).toBe(200);
  });
});

describe('stages at the exchange', () => {
  it('is refused below dual with stage and reason, and granted from dual on', async () => {
    const cookie = await world.login('alice');
    for (const stage of ['recall', 'session-only', 'shadow']) {
      await world.setFlags({ 'auth-migration-stage': stage });
      const { result, issued } = await world.watching(() => world.exchange(cookie));
      expect(await expectError(result, 400, 'unauthorized_client')).toMatchObject({ stage, reason: 'flag' });
      expect(issued).toBe(0);
    }
    for (const stage of ['jwt-preferred', 'jwt-only', 'dual']) {
      await world.setFlags({ 'auth-migration-stage': stage });
      expect((await world.exchange(cookie)).status).toBe(200);
    }
  });

  it('the kill switch closes it and leaves cookie and token alone', async () => {
    const cookie = await world.login('alice');
    const token = await world.token(cookie);
    await world.setFlags({ 'auth-migration-stage': 'jwt-only', 'auth-migration-kill-switch': true });
    expect(await expectError(await world.exchange(cookie), 400, 'unauthorized_client')).toMatchObject({
      stage: 'session-only',
      reason: 'kill-switch',
    });
    expect((await world.call('/orders', { cookie })).status).toBe(200);
    expect((await world.call('/orders', { bearer: token })).status).toBe(200);
    await world.setFlags({ 'auth-migration-stage': 'dual' });
  });
});

describe('pages of other origins', () => {
  it("a preflight from a client's origin passes with credentials, from another origin without", async () => {
    const headers = { 'access-control-request-method': 'POST', 'access-control-request-headers': 'content-type' };
    const own = await world.call('/auth/token', { method: 'OPTIONS', headers: { ...headers, origin: ORIGIN } });
    expect({
      status: own.status,
      origin: own.headers.get('access-control-allow-origin'),
      credentials: own.headers.get('access-control-allow-credentials'),
    }).toEqual({
      status: 204,
      origin: ORIGIN,
      credentials: 'true',
    });
    const other = await world.call('/auth/token', { method: 'OPTIONS', headers: { ...headers, origin: EVIL } });
    expect(other.headers.get('access-control-allow-origin')).toBeNull();
  });

  it('lets a page of the client read the errors', async () => {
    const response = await world.exchange('');
    expect(response.headers.get('access-control-allow-origin')).toBe(ORIGIN);
    expect(response.headers.get('access-control-expose-headers')).toContain('Retry-After');
  });
});

/** `fetch` sets Sec-Fetch headers of its own, so these requests are made by hand. */
async function raw(headers: Record<string, string>, form: Record<string, string>): Promise<Response> {
  const body = new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange', ...form }).toString();
  const answer = await rawRequest(`${world.url}/auth/token`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', 'content-length': String(body.length), ...headers },
    body,
  });
  return new Response(answer.text, { status: answer.status });
}
