import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createRemoteJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rawRequest } from '../../scripts/lib/raw-request.js';
import { IDENTITY_HEADERS } from '../../src/endpoints/verify-endpoint.js';
import { runCli } from '../support/cli.js';
import { writeKey } from '../support/keys.js';
import { exchangeNative } from '../support/tokens.js';
import { rememberToken } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, ISSUER, type LegacyRecord, type World, type WorldOptions } from '../support/world.js';

const ORDERS = 'https://orders.internal';
const BILLING = 'https://billing.internal';
const services: NonNullable<World['config']['services']> = [
  { id: 'orders', audience: ORDERS, upstream: 'jwt' },
  { id: 'billing', audience: BILLING },
];

const open = useWorlds();
const withServices = async (more: Partial<World['config']> = {}, options: WorldOptions = {}) =>
  await open({ ...options, configure: (config) => ({ ...config, services, ...more }) });

let world: World;
beforeAll(async () => {
  world = await createWorld({ configure: (config) => ({ ...config, services }) });
});
afterAll(async () => await world.close());

const verify = async (settings: string, credentials: Parameters<World['call']>[1] = {}, at: World = world) =>
  await at.call(`/auth/verify${settings}`, credentials);

/** The token that a service behind gets. */
function upstreamOf(response: Response): string {
  const [, token = ''] = /^Bearer (.+)$/.exec(response.headers.get('authorization') ?? '') ?? [];
  if (token) rememberToken(token);
  return token;
}

describe('settings in the URL that the proxy asks', () => {
  it('scope: 200 for who has all of them, 403 insufficient_scope for who has not, 401 for nobody', async () => {
    const [alice, bob] = [await world.login('alice'), await world.login('bob')];
    expect((await verify('?scope=read:orders', { cookie: bob })).status).toBe(200);
    for (const spelled of ['?scope=read:orders+write:orders', '?scope=read%3Aorders%20write%3Aorders']) {
      expect((await verify(spelled, { cookie: alice })).status).toBe(200);
      const refused = await verify(spelled, { cookie: bob });
      expect({ status: refused.status, challenge: refused.headers.get('www-authenticate'), subject: refused.headers.get('x-auth-subject') }).toEqual({
        status: 403,
        challenge: 'Bearer error="insufficient_scope", scope="read:orders write:orders"',
        subject: '',
      });
    }
    const bearer = await world.token(await world.login('bob'));
    expect((await verify('?scope=write:orders', { bearer })).status).toBe(403);
    for (const policy of ['', '&anonymous=allow']) expect((await verify(`?scope=read:orders${policy}`)).status).toBe(401);
  });

  it('A2: anonymous=allow: 200 with every identity header there and empty; deny refuses, whatever the config says', async () => {
    const allowed = await verify('?anonymous=allow');
    expect({ status: allowed.status, body: await allowed.text(), length: allowed.headers.get('content-length') }).toEqual({
      status: 200,
      body: '',
      length: '0',
    });
    for (const name of [...IDENTITY_HEADERS, 'Authorization']) expect(allowed.headers.get(name), name).toBe('');
    expect((await verify('')).status).toBe(401);
    // Law 3: a bad bearer is final all the same.
    expect((await verify('?anonymous=allow', { bearer: 'a.b.c' })).status).toBe(401);
    const open = await withServices({ verify: { anonymous: 'allow' } });
    expect((await verify('', {}, open)).status).toBe(200);
    expect((await verify('?anonymous=deny', {}, open)).status).toBe(401);
  });

  it.each([
    ['?anonymous=maybe', 'anonymous must be allow or deny'],
    ['?service=nobody', 'no such service is configured'],
    ['?service=orders&service=billing', 'a setting stands twice'],
    ['?scope=read:orders&scope=write:orders', 'a setting stands twice'],
    ['?scope=%22', 'scope is none'],
    ['?page=2', 'does the client’s own query get here?'],
    [';scope=a;scope=b/x', 'a setting stands twice'],
  ])('%s is no setting: 503 with Retry-After, since neither 200 nor 401 would be true, and the log says why', async (settings, why) => {
    const from = world.log.all.length;
    const fresh = await withServices();
    const response = await verify(settings, { cookie: await fresh.login('alice') }, fresh);
    expect({ status: response.status, body: await response.json() }).toEqual({
      status: 503,
      body: { error: 'temporarily_unavailable', reason: 'settings' },
    });
    expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(JSON.stringify(await fresh.log.until((line) => line['reason'] === 'settings'))).toContain(why);
    expect(world.log.all.slice(from).filter((line) => line['reason'] === 'settings')).toEqual([]);
  });

  it('the client’s own query counts nowhere: not behind a deeper path, not where a proxy has appended it', async () => {
    // As Envoy asks: with the path and the query of the client.
    for (const own of ['/orders/1?anonymous=allow', '/?anonymous=allow', '/x?scope=', '/auth/verify?anonymous=allow'])
      expect((await verify(own)).status, own).toBe(401);
    // As Caddy asks if it was not told a query of its own.
    const appended = { headers: { 'x-forwarded-uri': '/orders?anonymous=allow', 'x-forwarded-method': 'GET' } };
    expect((await verify('?anonymous=allow', appended)).status).toBe(503);
    for (const uri of ['/orders?anonymous=%61llow', '/orders?anonymous=allow#x'])
      expect((await verify('?anonymous=allow', { headers: { 'x-forwarded-uri': uri } })).status).toBe(503);
    // Nor with a header by which it would say otherwise, and whoever the proxy is to us.
    const cleverer = { headers: { ...appended.headers, 'x-original-uri': '/' } };
    expect((await verify('?anonymous=allow', cleverer)).status).toBe(503);
    const strict = await withServices({ http: { trustProxy: ['10.0.0.0/8'] } });
    expect((await verify('?anonymous=allow', cleverer, strict)).status).toBe(503);
    expect((await verify('?anonymous=allow', { headers: { 'x-forwarded-uri': '/orders?x=1' } })).status).toBe(200);
  });

  it('for a proxy that appends the client’s path, settings are parameters of the segment, out of the client’s reach', async () => {
    const bob = await world.login('bob');
    expect((await verify(';scope=read:orders/deep/path?page=2', { cookie: bob })).status).toBe(200);
    expect((await verify(';scope=read:orders%20write:orders/deep/path?scope=read:orders', { cookie: bob })).status).toBe(403);
    expect((await verify(';anonymous=allow')).status).toBe(200);
    expect((await verify(';anonymous=deny/x;anonymous=allow')).status).toBe(401);
    expect((await verify(';service=orders/x', { cookie: bob })).headers.get('x-auth-upstream')).toBe('jwt');
    expect((await world.call('/auth/verifyother;anonymous=allow')).headers.get('x-auth-subject')).toBeNull();
    // Another path, as a proxy has matched it that passes on what the client wrote.
    for (const astray of ['/../token', '/%2e%2e/token', '/..%2ftoken', '/x/./y', '/..', '\\..\\x', '/..;/x']) {
      const response = await rawRequest(`${world.url}/auth/verify;service=orders${astray}`, { headers: { cookie: bob } });
      expect([astray, response.status, response.headers['authorization']]).toEqual([astray, 503, undefined]);
    }
  });

  it.each(['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'HEAD'])(
    'A6: %s with a deep original path, as Envoy sends it, is answered as GET is',
    async (method) => {
      const cookie = await world.login('alice');
      const headers = { cookie, 'content-length': '0', 'content-type': 'application/json' };
      for (const path of ['/auth/verify', '/auth/verify/a/b%20c/../d?x=1&y=%00', `/auth/verify/${'deep/'.repeat(200)}`]) {
        const good = await rawRequest(`${world.url}${path}`, { method, headers });
        expect({ path, status: good.status, subject: good.headers['x-auth-subject'], text: good.text }).toEqual({
          path,
          status: 200,
          subject: 'u-alice',
          text: '',
        });
        expect((await rawRequest(`${world.url}${path}`, { method, headers: { 'content-length': '0' } })).status).toBe(401);
      }
    },
  );

  it('B8: a token in the query of the original request is 401, from a trusted proxy', async () => {
    const cookie = await world.login('alice');
    for (const name of ['x-original-uri', 'x-forwarded-uri']) {
      const response = await verify('', { cookie, headers: { [name]: '/orders?access_token=x' } });
      expect({ status: response.status, challenge: response.headers.get('www-authenticate') }).toEqual({
        status: 401,
        challenge: 'Bearer error="invalid_request"',
      });
    }
    const strict = await withServices({ http: { trustProxy: ['10.0.0.0/8'] } });
    const own = await strict.login('alice');
    expect((await verify('', { cookie: own, headers: { 'x-original-uri': '/orders?access_token=x' } }, strict)).status).toBe(200);
  });

  it('the original method counts from trusted proxies only', async () => {
    const navigation = { accept: 'text/html' };
    const final = await withServices({}, { stage: 'jwt-only' });
    const cookie = await final.login('alice');
    const client = { 'x-client-id': 'web' };
    expect((await verify('', { cookie, headers: { ...client, ...navigation } }, final)).status).toBe(401);
    const asked = (headers: Record<string, string>, at: World, own: string) =>
      rawRequest(`${at.url}/auth/verify`, { headers: { cookie: own, ...client, ...navigation, ...headers } });
    expect((await asked({}, final, cookie)).status).toBe(200);
    expect((await asked({ 'x-original-method': 'POST' }, final, cookie)).status).toBe(401);
    // One of the two is the proxy's, the other may be the client's.
    expect((await asked({ 'x-original-method': 'GET', 'x-forwarded-method': 'POST' }, final, cookie)).status).toBe(401);
    const strict = await withServices({ http: { trustProxy: ['10.0.0.0/8'] } }, { stage: 'jwt-only' });
    expect((await asked({ 'x-original-method': 'POST' }, strict, await strict.login('alice'))).status).toBe(200);
  });

  it('A3: CR, LF, commas, spaces and letters beyond ASCII in an identity value are percent-encoded', async () => {
    const odd = await open({
      bridge: { principal: async () => ({ subject: 'Zoë\r\nX-Auth-Roles: admin', tenant: 'a b', roles: ['x,y', 'ü z', '%'] }) },
    });
    const response = await verify('', { cookie: await odd.login('alice') }, odd);
    expect(response.status).toBe(200);
    expect(response.headers.get('x-auth-subject')).toBe('Zo%C3%AB%0D%0AX-Auth-Roles%3A%20admin');
    expect(response.headers.get('x-auth-tenant')).toBe('a%20b');
    expect(response.headers.get('x-auth-roles')).toBe('x%2Cy %C3%BC%20z %25');
  });

  it('A1: identity headers that come in are nobody’s word', async () => {
    const forged = { 'x-auth-subject': 'u-root', 'x-auth-roles': 'admin', 'x-auth-scope': 'write:orders' };
    expect((await verify('', { headers: forged })).status).toBe(401);
    const response = await verify('', { headers: forged, cookie: await world.login('bob') });
    expect({ subject: response.headers.get('x-auth-subject'), roles: response.headers.get('x-auth-roles') }).toEqual({
      subject: 'u-bob',
      roles: 'member',
    });
  });

  it('what the client sent in Authorization goes on where the service has no token of its own: its bearer, Basic, or a foreign one', async () => {
    const bearer = await world.token(await world.login('alice'));
    expect((await verify('', { bearer })).headers.get('authorization')).toBe(`Bearer ${bearer}`);
    expect((await verify('', { cookie: await world.login('alice') })).headers.get('authorization')).toBe('');
    for (const authorization of ['Basic dTpw', 'Bearer sk_live_4711'])
      expect((await verify('?anonymous=allow', { headers: { authorization } })).headers.get('authorization')).toBe(authorization);
    expect((await verify('', { bearer: 'a.b.c' })).headers.get('authorization')).toBeNull();
  });
});

describe('service: tokens for the service, and tokens of its own', () => {
  it('a token that was exchanged for a service is accepted where the proxy asks for that service, and nowhere else', async () => {
    const bearer = await world.token(await world.login('alice'), { audience: BILLING });
    expect((await verify('?service=billing', { bearer })).status).toBe(200);
    expect((await verify('?service=billing', { bearer })).headers.get('authorization')).toBe(`Bearer ${bearer}`);
    for (const elsewhere of ['', '?service=orders']) expect((await verify(elsewhere, { bearer })).status).toBe(401);
    expect((await verify('?service=billing', { bearer: await world.token(await world.login('alice')) })).status).toBe(200);
  });

  it('upstream: jwt: whatever the client sent, the service gets an RFC 9068 token for its own audience, of the same person', async () => {
    const cookie = await world.login('alice');
    const bearer = await world.token(cookie);
    for (const credentials of [{ cookie }, { bearer }, { bearer: await world.token(cookie, { audience: ORDERS }) }]) {
      const response = await verify('?service=orders', credentials);
      expect({ status: response.status, upstream: response.headers.get('x-auth-upstream'), cache: response.headers.get('cache-control') }).toEqual({
        status: 200,
        upstream: 'jwt',
        cache: 'no-store',
      });
      const token = upstreamOf(response);
      const { payload, protectedHeader } = await jwtVerify(token, createRemoteJWKSet(new URL(`${world.url}/.well-known/jwks.json`)), {
        issuer: ISSUER,
        audience: ORDERS,
        typ: 'at+jwt',
      });
      expect(protectedHeader.alg).toBe('ES256');
      expect(payload).toMatchObject({
        sub: 'u-alice',
        tenant: 'acme',
        roles: ['admin', 'billing'],
        scope: 'read:orders write:orders',
        sid: decodeJwt(bearer)['sid'],
      });
      expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBeLessThanOrEqual(300);
      // It is for the service, and opens nothing at the bridge.
      expect((await world.call('/me', { bearer: token })).status).toBe(401);
    }
  });

  it('Law 2: a narrowed bearer gives a token as narrow, which is another one; and it ends with what it is made of', async () => {
    const cookie = await world.login('alice');
    const whole = upstreamOf(await verify('?service=orders', { cookie }));
    const narrow = upstreamOf(await verify('?service=orders', { bearer: await world.token(cookie, { scope: 'read:orders' }) }));
    expect(decodeJwt(whole)['scope']).toBe('read:orders write:orders');
    expect(decodeJwt(narrow)['scope']).toBe('read:orders');
    const ending = await world.login('bob');
    const key = world.legacy.keys.at(-1) ?? '';
    await world.legacy.redis.pexpire(key, 20_000);
    const { exp = 0 } = decodeJwt(upstreamOf(await verify('?service=orders', { cookie: ending })));
    expect(exp).toBeLessThanOrEqual(Date.now() / 1000 + 20);
  });

  it('is minted once per session and service, however many ask at once, and kept until 80 % of its life are over', async () => {
    let ahead = 0;
    const clock = { now: () => Date.now() + ahead };
    const fleet = await withServices({}, { bridge: { clock } });
    const cookie = await fleet.login('alice');
    const ask = async () => upstreamOf(await verify('?service=orders', { cookie }, fleet));
    const tokens = await Promise.all(Array.from({ length: 20 }, ask));
    expect(new Set(tokens).size).toBe(1);
    const [first = ''] = tokens;
    expect(await fleet.metrics()).toMatch(/crossfade_upstream_tokens_total\{service="orders",outcome="minted"\} 1$/m);
    const { iat = 0, exp = 0 } = decodeJwt(first);
    ahead = (exp - iat) * 0.75 * 1000;
    expect(await ask()).toBe(first);
    ahead = (exp - iat) * 0.85 * 1000;
    expect(await ask()).not.toBe(first);
  });

  it('B10: what was made of a bearer ends with its family, and what was made of a session with the session', async () => {
    const cookie = await world.login('alice');
    const ofSession = upstreamOf(await verify('?service=orders', { cookie }));
    const { access, refresh } = await exchangeNative(world, cookie);
    const ofBearer = upstreamOf(await verify('?service=orders', { bearer: access }));
    expect(upstreamOf(await verify('?service=orders', { bearer: access }))).toBe(ofBearer);
    expect((await world.post('/auth/revoke', { client_id: 'android', token: refresh })).status).toBe(200);
    for (const bearer of [access, ofBearer]) expect((await verify('?service=orders', { bearer })).status).toBe(401);
    expect(upstreamOf(await verify('?service=orders', { cookie }))).toBe(ofSession);
    const next = await exchangeNative(world, cookie);
    expect((await world.post('/auth/logout', {}, { bearer: next.access })).status).toBe(204);
    for (const credentials of [{ cookie }, { bearer: next.access }, { bearer: ofSession }]) {
      const refused = await verify('?service=orders', credentials);
      expect({ status: refused.status, authorization: refused.headers.get('authorization') }).toEqual({ status: 401, authorization: null });
    }
  });

  it('follows the session as it is now: its scope, and its end', async () => {
    const cookie = await world.login('alice');
    const key = world.legacy.keys.at(-1) ?? '';
    const ask = async () => decodeJwt(upstreamOf(await verify('?service=orders', { cookie })));
    const write = async (change: (record: LegacyRecord) => void) => await world.editRecord(change, key);
    expect(await ask()).toMatchObject({ scope: 'read:orders write:orders' });
    await write(({ user }) => user.scope.pop());
    expect(await ask()).toMatchObject({ scope: 'read:orders' });
    const end = Date.now() + 30_000;
    await write((record) => {
      record._expire = end;
    });
    expect((await ask()).exp).toBeLessThanOrEqual(end / 1000);
  });

  it('a login under the id of one that was logged out gets another token, also where nothing else tells the two apart', async () => {
    const timeless = await withServices({ tokens: { resurrectionSeconds: 1 } }, {});
    const plain = await timeless.another({
      configure: (config) => ({ ...config, sessions: config.sessions.map((session) => ({ ...session, principal: { subject: 'user.id' } })) }),
    });
    const cookie = await timeless.login('alice');
    const key = timeless.legacy.keys.at(-1) ?? '';
    const text = (await timeless.legacy.redis.get(key)) ?? '';
    const ask = async () => await plain.call('/auth/verify?service=orders', { cookie });
    const first = upstreamOf(await ask());
    expect(upstreamOf(await ask())).toBe(first);
    expect((await plain.post('/auth/logout', {}, { cookie, headers: { origin: ISSUER } })).status).toBe(204);
    await timeless.legacy.redis.set(key, text, 'PX', 600_000);
    await expect.poll(async () => (await ask()).status).toBe(200);
    const second = upstreamOf(await ask());
    expect(second).not.toBe('');
    expect(second).not.toBe(first);
  });

  it('a token that would be over 8 KiB is none: a proxy would fail on the header', async () => {
    const roles = Array.from({ length: 200 }, (_, n) => `role-${n}-${'x'.repeat(60)}`);
    const many = await withServices({}, { bridge: { principal: async () => ({ subject: 'u-alice', roles }) } });
    const response = await verify('?service=orders', { cookie: await many.login('alice') }, many);
    expect({
      status: response.status,
      upstream: response.headers.get('x-auth-upstream'),
      authorization: response.headers.get('authorization'),
    }).toEqual({
      status: 200,
      upstream: 'unavailable',
      authorization: '',
    });
  });

  it('is dropped when the key that signed it was revoked', async () => {
    const fleet = await withServices({ keys: { publishSeconds: 0 } });
    const cookie = await fleet.login('bob');
    const first = upstreamOf(await verify('?service=orders', { cookie }, fleet));
    writeKey(join(fleet.directory, 'keys'), 'second.pem');
    await fleet.bridge.reloadKeys();
    expect(upstreamOf(await verify('?service=orders', { cookie }, fleet))).toBe(first);
    const file = join(fleet.directory, 'crossfade.yaml');
    writeFileSync(file, JSON.stringify({ ...fleet.config, fleetSecretFile: 'fleet-secret' }));
    const { kid = '' } = decodeProtectedHeader(first);
    expect(await runCli(['keys', 'revoke', '--why', 'test', '--config', file, '--', kid])).toMatchObject({ status: 0 });
    await expect.poll(async () => upstreamOf(await verify('?service=orders', { cookie }, fleet))).not.toBe(first);
    const second = upstreamOf(await verify('?service=orders', { cookie }, fleet));
    expect(decodeProtectedHeader(second).kid).not.toBe(kid);
  });

  it('A5: from an address outside trustProxy: identity, and no token', async () => {
    const strict = await withServices({ http: { trustProxy: ['10.0.0.0/8'] } });
    const cookie = await strict.login('alice');
    const response = await verify('?service=orders', { cookie }, strict);
    expect({
      status: response.status,
      subject: response.headers.get('x-auth-subject'),
      upstream: response.headers.get('x-auth-upstream'),
      authorization: response.headers.get('authorization'),
    }).toEqual({ status: 200, subject: 'u-alice', upstream: '', authorization: '' });
    expect(await strict.metrics()).not.toContain('outcome="minted"');
  });

  it('signing broken: the identity goes on, X-Auth-Upstream says unavailable, and the client’s own bearer is not passed for it', async () => {
    const broken = await withServices({}, { prepare: () => undefined });
    expect(broken.bridge.signing().canSign).toBe(false);
    const cookie = await broken.login('alice');
    const response = await verify('?service=orders', { cookie }, broken);
    expect({
      status: response.status,
      subject: response.headers.get('x-auth-subject'),
      upstream: response.headers.get('x-auth-upstream'),
      authorization: response.headers.get('authorization'),
    }).toEqual({ status: 200, subject: 'u-alice', upstream: 'unavailable', authorization: '' });
    expect(await broken.metrics()).toContain('crossfade_upstream_tokens_total{service="orders",outcome="unavailable"} 1');
  });

  it('nobody gets a token: anonymous requests pass without one', async () => {
    const response = await verify('?service=orders&anonymous=allow');
    expect({
      status: response.status,
      authorization: response.headers.get('authorization'),
      upstream: response.headers.get('x-auth-upstream'),
    }).toEqual({
      status: 200,
      authorization: '',
      upstream: '',
    });
  });
});
