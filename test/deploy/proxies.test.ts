import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningProxy, startNginx } from '../../scripts/lib/nginx.js';
import { type RawRequest, rawRequest } from '../../scripts/lib/raw-request.js';
import type { ConfigInput } from '../../src/config/config.js';
import { POST_PATHS } from '../../src/endpoints/own-paths.js';
import { IDENTITY_HEADERS } from '../../src/endpoints/verify-endpoint.js';
import { startCaddy } from '../support/caddy.js';
import { type Echo, type EchoApp, startEchoApp } from '../support/echo-app.js';
import { startFastcgiApp } from '../support/fastcgi-app.js';
import { type Service, startService } from '../support/serve.js';
import { exchangeNative, postExchange } from '../support/tokens.js';
import { createWorld, type World } from '../support/world.js';

const ORDERS = 'https://orders.internal';

let world: World;
let app: EchoApp;
beforeAll(async () => {
  world = await createWorld();
  app = await startEchoApp();
}, 60_000);
afterAll(async () => {
  await app.close();
  await world.close();
});

async function startBridge(more: Partial<ConfigInput> = {}): Promise<Service> {
  return await startService(world, (config) => ({
    ...config,
    services: [{ id: 'orders', audience: ORDERS, upstream: 'jwt' }],
    rollout: { ...config.rollout, defaultStage: 'jwt-preferred', flags: undefined },
    shutdownSeconds: 1,
    ...more,
  }));
}

const NGINX = () => `
  location /api/ { client_max_body_size 4m; include crossfade-guard.conf; proxy_pass ${app.url}; }
  location /orders/ { set $crossfade_settings "?scope=write:orders&service=orders"; include crossfade-guard.conf; proxy_pass ${app.url}; }
  location /public/ { set $crossfade_settings "?anonymous=allow"; include crossfade-guard.conf; proxy_pass ${app.url}; }
  location / { include crossfade-open.conf; proxy_pass ${app.url}; }`;

const CADDY = `
		@orders path /orders/*
		route @orders {
			import crossfade "scope=write:orders&service=orders"
			reverse_proxy 127.0.0.1:3000
		}
		@public path /public/*
		route @public {
			import crossfade "anonymous=allow"
			reverse_proxy 127.0.0.1:3000
		}
`;

/** Paths that one may take for something else, and another for forward-auth. */
const ASTRAY = [
  '/auth/verify;service=orders/../token',
  '/auth/verify;service=orders/%2e%2e/token',
  '/auth/verify;service=orders/..%2ftoken',
  '/auth/verify;service=orders/x/../../token',
  '/auth/verify;service=orders/../../.well-known/jwks.json',
  '/auth/./verify;service=orders',
  '/auth/%76erify;service=orders',
  '/auth/verify%3bservice=orders',
];

/** Every spelling under which an app might take a header for one of the bridge's. */
const FORGED = IDENTITY_HEADERS.flatMap((name) => [
  name,
  name.toLowerCase(),
  name.replaceAll('-', '_'),
  name.toLowerCase().replaceAll('-', '_'),
  name.replace('-', '_'),
  name.replace(/-(?=[^-]+$)/, '_'),
]);

describe.each<[string, (bridge: string) => Promise<RunningProxy>]>([
  ['nginx', async (bridge) => await startNginx([bridge], NGINX())],
  ['Caddy', async (bridge) => await startCaddy({ bridge, app: app.url, routes: CADDY })],
])('the real %s with the shipped configuration', (_name, start) => {
  let service: Service;
  let proxy: RunningProxy;
  beforeAll(async () => {
    service = await startBridge();
    proxy = await start(service.url);
  }, 120_000);
  afterAll(async () => {
    await proxy.stop();
    await service.stop();
  });

  async function ask(path: string, request: RawRequest = {}) {
    const before = app.reached();
    const response = await rawRequest(`${proxy.url}${path}`, request);
    const isReached = app.reached() !== before;
    const seen: Echo | undefined = isReached ? JSON.parse(response.text) : undefined;
    return { ...response, isReached, seen };
  }

  /** What of the request could be taken for the bridge's word. */
  function identityIn(seen: Echo | undefined): Record<string, unknown> {
    return Object.fromEntries(Object.entries(seen?.headers ?? {}).filter(([header, value]) => /^x[-_]auth/.test(header) && value !== ''));
  }

  it('200: the app hears who it is, of cookie and of bearer', async () => {
    const cookie = await world.login('alice');
    const { access } = await tokensOf(cookie);
    for (const headers of [{ cookie }, { authorization: `Bearer ${access}` }]) {
      const { status, seen } = await ask('/api/orders?page=2', { headers });
      expect(status).toBe(200);
      expect(seen).toMatchObject({ method: 'GET', url: '/api/orders?page=2' });
      expect(identityIn(seen)).toMatchObject({ 'x-auth-subject': 'u-alice', 'x-auth-tenant': 'acme', 'x-auth-roles': 'admin billing' });
      expect(seen?.headers.authorization ?? '').toBe('authorization' in headers ? headers.authorization : '');
    }
  });

  it('a POST goes through with its body, once', async () => {
    const cookie = await world.login('alice');
    const before = app.reached();
    const { seen } = await ask('/api/orders', {
      method: 'POST',
      headers: { cookie, 'content-type': 'text/plain', 'content-length': '5' },
      body: 'hello',
    });
    expect(seen).toMatchObject({ method: 'POST', body: 'hello' });
    expect(app.reached()).toBe(before + 1);
  });

  it('an upload of 3 MB goes through, and is not sent to the bridge', async () => {
    const body = 'x'.repeat(3_000_000);
    const headers = { cookie: await world.login('alice'), 'content-type': 'text/plain', 'content-length': String(body.length) };
    const { status, seen } = await ask('/api/upload', { method: 'POST', headers, body });
    expect([status, seen?.body.length]).toEqual([200, body.length]);
  });

  it('401 for nobody and for a bad bearer, with the challenge; the app is not reached (law 3)', async () => {
    const nobody = await ask('/api/orders');
    expect({ status: nobody.status, challenge: nobody.headers['www-authenticate'], isReached: nobody.isReached }).toEqual({
      status: 401,
      challenge: 'Bearer',
      isReached: false,
    });
    const cookie = await world.login('alice');
    const bad = await ask('/api/orders', { headers: { cookie, authorization: 'Bearer a.b.c' } });
    expect({ status: bad.status, challenge: bad.headers['www-authenticate'], isReached: bad.isReached }).toEqual({
      status: 401,
      challenge: 'Bearer error="invalid_token"',
      isReached: false,
    });
  });

  it('Law 4: cookie of Alice and bearer of Bob: the app hears of Bob', async () => {
    const { access } = await tokensOf(await world.login('bob'));
    const { seen } = await ask('/api/me', { headers: { cookie: await world.login('alice'), authorization: `Bearer ${access}` } });
    expect(identityIn(seen)).toMatchObject({ 'x-auth-subject': 'u-bob' });
  });

  it('A2: where anybody may come, a stranger’s request reaches the app without identity; A6: any method does', async () => {
    for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
      const { status, seen } = await ask('/public/a/b%20c/d?x=1', { method, headers: { 'x-auth-subject': 'u-root', 'content-length': '0' } });
      expect({ status, method: seen?.method, url: seen?.url, identity: identityIn(seen) }).toEqual({
        status: 200,
        method,
        url: '/public/a/b%20c/d?x=1',
        identity: {},
      });
      const cookie = await world.login('alice');
      expect(identityIn((await ask('/api/x', { method, headers: { cookie, 'content-length': '0' } })).seen)).toMatchObject({
        'x-auth-subject': 'u-alice',
      });
    }
    expect((await ask('/public/', { headers: { authorization: 'Bearer a.b.c' } })).status).toBe(401);
  });

  it('large headers are asked about as others are', async () => {
    const cookie = await world.login('alice');
    const big = Object.fromEntries(Array.from({ length: 3 }, (_, n) => [`x-big-${n}`, 'x'.repeat(6000)]));
    expect((await ask('/api/x', { headers: { cookie, ...big } })).status).toBe(200);
  });

  it('the headers of the connection take nothing away from what the bridge says', async () => {
    const connection = 'X-Auth-Subject, X-Auth-Tenant, X-Auth-Roles, X-Auth-Scope, X-Auth-Upstream, Authorization';
    const { status, seen } = await ask('/orders/1', { headers: { cookie: await world.login('alice'), connection } });
    if (status === 200)
      expect(identityIn(seen)).toMatchObject({ 'x-auth-subject': 'u-alice', 'x-auth-scope': expect.any(String), 'x-auth-upstream': 'jwt' });
    else expect({ status, seen }).toEqual({ status: 400, seen: undefined });
  });

  it('403 for who lacks the scope of the route', async () => {
    const refused = await ask('/orders/1', { headers: { cookie: await world.login('bob') } });
    expect([refused.status, refused.isReached]).toEqual([403, false]);
  });

  it('the client’s own query gives it nothing', async () => {
    for (const path of ['/api/orders?anonymous=allow', '/orders/1?anonymous=allow&scope=', '/api/;anonymous=allow', '/orders/1?service=x']) {
      const { status, isReached } = await ask(path);
      expect({ path, status, isReached }).toEqual({ path, status: 401, isReached: false });
    }
  });

  it('a service with upstream: jwt gets a token of its own in Authorization, whatever the client sent', async () => {
    const cookie = await world.login('alice');
    const { access } = await tokensOf(cookie);
    for (const headers of [{ cookie }, { authorization: `Bearer ${access}` }, { cookie, authorization: 'Basic dTpw' }]) {
      const { status, seen } = await ask('/orders/1', { headers });
      expect(status).toBe(200);
      expect(identityIn(seen)).toMatchObject({ 'x-auth-subject': 'u-alice', 'x-auth-upstream': 'jwt' });
      const [, payload = ''] = /^Bearer [^.]+\.([^.]+)\./.exec(seen?.headers.authorization ?? '') ?? [];
      expect(JSON.parse(Buffer.from(payload, 'base64url').toString())).toMatchObject({ sub: 'u-alice', aud: ORDERS });
    }
  });

  it('A1: forged identity headers, in any spelling and twice, never reach the app', async () => {
    const forged = FORGED.flatMap((header) => [header, 'u-root', header, 'admin']);
    const host = ['host', new URL(proxy.url).host];
    const cookie = await world.login('bob');
    const guarded = await ask('/api/me', { headers: [...host, 'cookie', cookie, ...forged] });
    expect(guarded.status).toBe(200);
    expect(identityIn(guarded.seen)).toMatchObject({ 'x-auth-subject': 'u-bob', 'x-auth-roles': 'member' });
    expect(JSON.stringify(guarded.seen)).not.toMatch(/u-root|admin/);
    const open = await ask('/login', { headers: [...host, ...forged] });
    expect(open.status).toBe(200);
    expect(identityIn(open.seen)).toEqual({});
    expect((await ask('/api/me', { headers: [...host, ...forged] })).status).toBe(401);
  });

  it('A3: CR, LF and letters beyond ASCII in an identity value reach the app percent-encoded, in one header', async () => {
    const cookie = await world.login('alice');
    await world.editRecord(({ user }) => Object.assign(user, { id: 'Zoë\r\nX-Auth-Roles: root' }));
    const { seen } = await ask('/api/me', { headers: { cookie } });
    expect(identityIn(seen)).toMatchObject({ 'x-auth-subject': 'Zo%C3%AB%0D%0AX-Auth-Roles%3A%20root', 'x-auth-roles': 'admin billing' });
  });

  it('somebody with many roles is nobody to be told to try again for ever', async () => {
    const cookie = await world.login('alice');
    const roles = Array.from({ length: 90 }, (_, n) => `role-${n}-${'x'.repeat(50)}`);
    await world.editRecord(({ user }) => Object.assign(user, { roles }));
    const { status, seen } = await ask('/orders/1', { headers: { cookie } });
    expect([status, String(identityIn(seen)['x-auth-roles']).split(' ').length, identityIn(seen)['x-auth-upstream']]).toEqual([200, 90, 'jwt']);
  });

  it('A5: a bridge that does not know the proxy gives identity, and no token', async () => {
    const strict = await startBridge({ http: { trustProxy: ['10.0.0.0/8'] } });
    const other = await start(strict.url);
    try {
      const cookie = await world.login('alice');
      const response = await rawRequest(`${other.url}/orders/1`, { headers: { cookie, authorization: 'Basic dTpw' } });
      const seen: Echo = JSON.parse(response.text);
      expect(identityIn(seen)).toMatchObject({ 'x-auth-subject': 'u-alice' });
      expect(identityIn(seen)).not.toHaveProperty('x-auth-upstream');
      expect(seen.headers.authorization ?? '').toBe('');
    } finally {
      await other.stop();
      await strict.stop();
    }
  }, 60_000);

  it('a client cannot say which method or path it is asked about, nor from where', async () => {
    const own = {
      'x-original-method': 'GET',
      'x-forwarded-method': 'GET',
      'x-original-uri': '/?access_token=x',
      'x-forwarded-uri': '/?access_token=x',
    };
    expect((await ask('/api/me', { headers: { cookie: await world.login('alice'), ...own } })).status).toBe(200);
    expect((await ask('/api/me?access_token=x', { headers: { cookie: await world.login('alice') } })).status).toBe(401);
  });

  it('the nudge reaches the client, and no cache keeps it', async () => {
    const { status, headers } = await ask('/api/me', { headers: { cookie: await world.login('alice'), 'x-client-id': 'web' } });
    expect(status).toBe(200);
    expect(headers['auth-migration']).toBe(`stage=jwt-preferred, exchange="${service.url}/auth/token"`);
    expect(headers['cache-control']).toContain('no-store');
    expect((await ask('/api/me', { headers: { cookie: await world.login('alice') } })).headers['auth-migration']).toBeUndefined();
  });

  it('/auth/* and the well-known paths go to the bridge, forward-auth does not', async () => {
    const cookie = await world.login('alice');
    const through = {
      post: async (path: string, form: Record<string, string> = {}) =>
        await fetch(proxy.url + path, { method: 'POST', body: new URLSearchParams(form) }),
    };
    const { access } = await tokensOf(cookie, proxy.url);
    expect((await ask('/api/me', { headers: { authorization: `Bearer ${access}` } })).status).toBe(200);
    expect((await through.post('/auth/revoke', { client_id: 'android', token: access })).status).toBe(200);
    expect((await ask('/api/me', { headers: { authorization: `Bearer ${access}` } })).status).toBe(401);
    for (const path of ['/.well-known/jwks.json', '/.well-known/oauth-authorization-server'])
      expect((await fetch(proxy.url + path)).status).toBe(200);
    for (const path of [
      '/auth/verify',
      '/auth/verify?service=orders',
      '/auth/verify/deep',
      '/auth/verify;service=orders',
      '/auth//verify',
      '/auth/x/../verify?service=orders',
      ...ASTRAY,
    ]) {
      const { status, headers, isReached } = await ask(path, { headers: { cookie } });
      const told = Object.keys(headers).filter((header) => header === 'authorization' || header.startsWith('x-auth-'));
      expect({ path, told, isForwardAuth: status === 200 && !isReached && !path.endsWith('jwks.json') }).toEqual({
        path,
        told: [],
        isForwardAuth: false,
      });
    }
  });

  it('every other path under /auth/ is the app’s, whatever it resembles', async () => {
    for (const path of [
      '/auth/google',
      '/auth/google/callback?code=x',
      '/auth/',
      '/auth/verify-email',
      '/auth/verifying/x',
      '/auth/tokens',
      '/auth/token/x',
      '/auth/logout-everywhere',
      '/.well-known/openid-configuration',
      '/.well-known/jwks.json.bak',
    ]) {
      const { isReached, seen } = await ask(path);
      expect({ path, isReached, url: seen?.url }).toEqual({ path, isReached: true, url: path });
    }
    for (const path of POST_PATHS.map((name) => `/auth/${name}`)) {
      const { status, isReached } = await ask(path);
      expect({ path, status, isReached }).toEqual({ path, status: 405, isReached: false });
    }
  });

  it('a refusal is JSON, with its challenge and what the client must do', async () => {
    const cookie = await world.login('bob');
    for (const [path, headers, status, error] of [
      ['/api/me', {}, 401, 'missing_credential'],
      ['/api/me', { accept: 'application/json, text/plain, */*' }, 401, 'missing_credential'],
      ['/api/me', { authorization: 'Bearer a.b.c' }, 401, 'invalid_token'],
      ['/orders/1', { cookie }, 403, 'insufficient_scope'],
    ] as const) {
      const response = await ask(path, { headers });
      expect([response.status, response.headers['content-type'], JSON.parse(response.text).error, response.isReached]).toEqual([
        status,
        expect.stringContaining('application/json'),
        error,
        false,
      ]);
      const challenge = String(response.headers['www-authenticate'] ?? '');
      expect([path, challenge]).toEqual([path, error === 'missing_credential' ? 'Bearer' : expect.stringContaining(`error="${error}"`)]);
      expect(response.headers['cache-control']).toContain('no-store');
    }
  });

  it('A4, law 1: a bridge that says 503 is 503 with its own Retry-After at the client', async () => {
    const cookie = await world.login('alice');
    await world.store.cut();
    try {
      const { status, headers, isReached } = await ask('/api/me', { headers: { cookie } });
      expect({ status, isReached, cookies: headers['set-cookie'] }).toEqual({ status: 503, isReached: false, cookies: undefined });
      expect(Number(headers['retry-after'])).toBeGreaterThanOrEqual(1);
      expect((await ask('/login', { headers: { cookie } })).status).toBe(200);
    } finally {
      await world.store.restore();
    }
  });

  it('A4, law 1: a bridge that is away is 503 with Retry-After at the client, and the app is not reached', async () => {
    const cookie = await world.login('alice');
    await expect.poll(async () => (await ask('/api/me', { headers: { cookie } })).status).toBe(200);
    await service.stop();
    for (const path of ['/api/me', '/orders/1']) {
      const { status, headers, isReached, text } = await ask(path, { headers: { cookie } });
      expect({ status, retry: headers['retry-after'], isReached, cookies: headers['set-cookie'], body: text }).toEqual({
        status: 503,
        retry: expect.stringMatching(/^\d+$/),
        isReached: false,
        cookies: undefined,
        body: '{"error":"temporarily_unavailable","reason":"bridge"}',
      });
    }
    expect((await ask('/login')).status).toBe(200);
    for (const [path, method] of [
      ['/auth/token', 'POST'],
      ['/.well-known/jwks.json', 'GET'],
      ['/.well-known/oauth-authorization-server', 'GET'],
    ] as const) {
      const response = await fetch(proxy.url + path, { method });
      expect([path, response.status, response.headers.has('retry-after')]).toEqual([path, 503, true]);
    }
  });

  async function tokensOf(cookie: string, at = service.url) {
    return await exchangeNative(
      { ...world, post: async (path, form = {}) => await fetch(at + path, { method: 'POST', body: new URLSearchParams(form) }) },
      cookie,
    );
  }
});

/** Bytes as they are, and what comes back until the other side ends. */
async function send(host: string, port: number, text: string): Promise<string> {
  const socket = connect(port, host);
  socket.write(text);
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

describe('the real nginx whose server has settings of its own', () => {
  let service: Service;
  let proxy: RunningProxy;
  beforeAll(async () => {
    service = await startBridge();
    const server = `
      server_name app.example.com;
      client_max_body_size 1k;
      proxy_cache all; proxy_cache_valid any 10m; proxy_cache_key $uri; proxy_ignore_headers Cache-Control Vary Set-Cookie;
      proxy_intercept_errors on; error_page 400 401 403 = /page;
      proxy_buffering off; proxy_next_upstream off;
      limit_req zone=slow burst=2 nodelay;
      location = /page { return 200 "a page"; }
      location /api/ { limit_req zone=wide burst=1000 nodelay; client_max_body_size 4m; proxy_cache off; include crossfade-guard.conf; proxy_pass ${app.url}; }
      location /host/ { include crossfade-open.conf; limit_req zone=wide burst=1000 nodelay; proxy_cache off; proxy_pass ${app.url}; }`;
    proxy = await startNginx(
      [service.url],
      server,
      undefined,
      (directory) =>
        `proxy_cache_path ${directory}/cache keys_zone=all:1m; limit_req_zone $binary_remote_addr zone=slow:1m rate=1r/m; limit_req_zone $binary_remote_addr zone=wide:1m rate=1000r/s;`,
    );
  }, 60_000);
  afterAll(async () => {
    await proxy.stop();
    await service.stop();
  });

  const ask = async (path: string, request: RawRequest = {}) => await rawRequest(`${proxy.url}${path}`, request);

  it('an upload of 3 MB goes through where its location takes it', async () => {
    const body = 'x'.repeat(3_000_000);
    const headers = { cookie: await world.login('alice'), 'content-type': 'text/plain', 'content-length': String(body.length) };
    const { status, text } = await ask('/api/upload', { method: 'POST', headers, body });
    expect([status, text.slice(0, 200)]).toEqual([200, expect.any(String)]);
    expect(JSON.parse(text).body).toHaveLength(body.length);
  });

  it('no answer of the bridge is kept for somebody else', async () => {
    const subjects: unknown[] = [];
    for (const name of ['alice', 'bob', 'alice']) {
      const { text } = await ask('/api/me', { headers: { cookie: await world.login(name) } });
      subjects.push(JSON.parse(text).headers['x-auth-subject']);
    }
    expect(subjects).toEqual(['u-alice', 'u-bob', 'u-alice']);
    expect((await ask('/api/me')).status).toBe(401);
  });

  it('a rate that is meant for pages does not hold for what the bridge is asked', async () => {
    const cookie = await world.login('alice');
    const statuses = await Promise.all(Array.from({ length: 20 }, async () => (await ask('/api/me', { headers: { cookie } })).status));
    expect(new Set(statuses)).toEqual(new Set([200]));
  });

  it('no page of an error takes the place of what the bridge answers', async () => {
    const response = await fetch(`${proxy.url}/auth/token`, { method: 'POST', body: new URLSearchParams({ grant_type: 'none' }) });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: expect.any(String) });
  });

  it('the app hears a host also where HTTP/1.0 names none', async () => {
    const text = await new Promise<string>((resolve, reject) => {
      const { hostname, port } = new URL(proxy.url);
      const socket = connect(Number(port), hostname, () => socket.write('GET /host/x HTTP/1.0\r\n\r\n'));
      let said = '';
      socket.on('data', (chunk) => {
        said += String(chunk);
      });
      socket.on('end', () => resolve(said));
      socket.on('error', reject);
    });
    const { headers } = JSON.parse(text.slice(text.indexOf('{')));
    expect([headers.host, headers['x-forwarded-host']]).toEqual(['app.example.com', 'app.example.com']);
  });
});

describe('nginx, where a refusal may be a page', () => {
  let service: Service;
  let proxy: RunningProxy;
  beforeAll(async () => {
    service = await startBridge({ rollout: { defaultStage: 'jwt-only', flags: undefined } });
    proxy = await startNginx(
      [service.url],
      `location /own/ { set $crossfade_login_page /login; include crossfade-guard.conf; proxy_pass ${app.url}; }
       location = /login { include crossfade-open.conf; proxy_pass ${app.url}; }
       location /errors/ { proxy_intercept_errors on; include crossfade-guard.conf; proxy_pass ${app.url}; }
       location / { set $crossfade_settings "?scope=read:orders"; include crossfade-guard.conf; proxy_pass ${app.url}; }`,
    );
  }, 60_000);
  afterAll(async () => {
    await proxy.stop();
    await service.stop();
  });
  const ask = async (path: string, headers: Record<string, string>) => await rawRequest(`${proxy.url}${path}`, { headers });
  const browser = { accept: 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8' };

  it('a browser that asks for a page gets one, with the challenge', async () => {
    const { status, headers, text } = await ask('/', browser);
    expect([status, headers['content-type'], headers['www-authenticate']]).toEqual([401, expect.stringContaining('text/html'), 'Bearer']);
    expect(text).toContain('<title>401');
  });

  it('a browser gets the app’s own page where it names one; a program is told what to do all the same', async () => {
    const { status, text, headers } = await ask('/own/x', browser);
    expect([status, JSON.parse(text).url, headers['www-authenticate']]).toEqual([401, '/login', 'Bearer']);
    expect((await rawRequest(`${proxy.url}/own/x`, { method: 'POST', headers: { ...browser, 'content-length': '0' } })).text).toContain('<title>401');
    const told = await ask('/own/x', { cookie: await world.login('alice'), 'x-client-id': 'web', 'sec-fetch-mode': 'cors' });
    expect([told.status, JSON.parse(told.text), told.headers['auth-migration'], told.headers['cache-control']]).toEqual([
      401,
      { error: 'session_not_accepted' },
      expect.stringContaining('exchange='),
      'no-store',
    ]);
  });

  it('an error of the app itself is not taken for the bridge’s, where nginx intercepts errors', async () => {
    const { access } = await exchangeNative(
      { ...world, post: async (path, form = {}) => await fetch(service.url + path, { method: 'POST', body: new URLSearchParams(form) }) },
      await world.login('alice'),
    );
    for (const status of [401, 403, 500]) {
      const answer = await ask(`/errors/?status=${status}`, { authorization: `Bearer ${access}` });
      expect([answer.status, answer.headers['retry-after'], answer.text.includes('error":"')]).toEqual([status, undefined, false]);
    }
  });

  it('at jwt-only, "exchange first" reaches the client with the code of the bridge and where to exchange', async () => {
    const { status, headers, text } = await ask('/api', { cookie: await world.login('alice'), 'x-client-id': 'web', 'sec-fetch-mode': 'cors' });
    expect([status, JSON.parse(text), headers['auth-migration']]).toEqual([
      401,
      { error: 'session_not_accepted' },
      expect.stringContaining('exchange='),
    ]);
    expect(headers['cache-control']).toBe('no-store');
  });
});

describe('nginx in front of an app that speaks FastCGI', () => {
  it('hears who it is from the bridge alone, guarded and open', async () => {
    const service = await startBridge();
    const php = await startFastcgiApp();
    const params = 'fastcgi_param REQUEST_URI $request_uri;';
    const nginx = await startNginx(
      [service.url],
      `location /api/ { include crossfade-guard.conf; ${params} fastcgi_pass ${php.address}; }
       location / { include crossfade-open.conf; ${params} fastcgi_pass ${php.address}; }`,
    );
    try {
      const forged = Object.fromEntries([...IDENTITY_HEADERS].map((header) => [header.toLowerCase(), 'root']));
      const known = JSON.parse((await rawRequest(`${nginx.url}/api/x`, { headers: { ...forged, cookie: await world.login('bob') } })).text);
      expect(known).toMatchObject({ REQUEST_URI: '/api/x', HTTP_X_AUTH_SUBJECT: 'u-bob', HTTP_X_AUTH_ROLES: 'member', HTTP_X_AUTH_VIA: 'session' });
      const stranger = JSON.parse((await rawRequest(`${nginx.url}/login`, { headers: forged })).text);
      for (const seen of [known, stranger]) expect(Object.values(seen)).not.toContain('root');
      expect((await rawRequest(`${nginx.url}/api/x`, { headers: forged })).status).toBe(401);
    } finally {
      await nginx.stop();
      await php.close();
      await service.stop();
    }
  }, 60_000);
});

describe('nginx in front of an app that still authenticates by itself', () => {
  let service: Service;
  let nginx: RunningProxy;
  beforeAll(async () => {
    service = await startBridge();
    nginx = await startNginx(
      [service.url],
      `location /cross-origin/ { if ($request_method = OPTIONS) { set $crossfade_settings "?anonymous=allow"; } include crossfade-guard.conf; proxy_pass ${app.url}; }
       location / { set $crossfade_settings "?anonymous=allow"; error_page 500 = @without_crossfade; include crossfade-guard.conf; proxy_pass ${app.url}; }
       location @without_crossfade { include crossfade-beside.conf; include crossfade-open.conf; proxy_pass ${app.url}; }`,
    );
  });
  afterAll(async () => {
    await nginx.stop();
    await service.stop();
  });

  it('a preflight reaches the app where the location lets it, and nothing else without a credential does', async () => {
    const preflight = { origin: 'https://other.example', 'access-control-request-method': 'GET' };
    const path = `${nginx.url}/cross-origin/x`;
    expect(JSON.parse((await rawRequest(path, { method: 'OPTIONS', headers: preflight })).text)).toMatchObject({
      method: 'OPTIONS',
      url: '/cross-origin/x',
    });
    for (const method of ['GET', 'POST'])
      expect((await rawRequest(path, { method, headers: { ...preflight, 'content-length': '0' } })).status).toBe(401);
  });

  it('a request of HTTP/1.0, which names no host, is asked about as others are', async () => {
    const { hostname, port } = new URL(nginx.url);
    const answer = await send(hostname, Number(port), `GET /cross-origin/x HTTP/1.0\r\nCookie: ${await world.login('alice')}\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
  });

  it('the bridge is there: the app hears whom it found, and of strangers as well', async () => {
    const cookie = await world.login('alice');
    const known: Echo = JSON.parse((await rawRequest(nginx.url, { headers: { cookie } })).text);
    expect(known.headers).toMatchObject({ 'x-auth-subject': 'u-alice', cookie });
    const stranger: Echo = JSON.parse((await rawRequest(nginx.url, { headers: { 'x-auth-subject': 'u-root' } })).text);
    expect(stranger.headers['x-auth-subject'] ?? '').toBe('');
    expect((await rawRequest(nginx.url, { headers: { cookie, authorization: 'Bearer a.b.c' } })).status).toBe(401);
  });

  it('the bridge is away, or says 503: the cookie passes on, with empty identity headers; a POST keeps its body; a bearer is 503', async () => {
    const cookie = await world.login('alice');
    const without = async () => {
      const forged = { 'x-auth-subject': 'u-root', 'x-auth-roles': 'admin' };
      const response = await rawRequest(`${nginx.url}/x?y=1`, {
        method: 'POST',
        headers: { cookie, 'content-length': '5', authorization: 'Basic dTpw', ...forged },
        body: 'hello',
      });
      const seen: Echo = JSON.parse(response.text);
      expect({ status: response.status, ...seen }).toMatchObject({ status: 200, method: 'POST', url: '/x?y=1', body: 'hello' });
      expect(seen.headers).toMatchObject({ cookie, authorization: 'Basic dTpw' });
      for (const header of IDENTITY_HEADERS) expect(seen.headers[header.toLowerCase()] ?? '').toBe('');
      const before = app.reached();
      const bearer = await rawRequest(nginx.url, { headers: { cookie, authorization: 'Bearer whatever' } });
      expect({ status: bearer.status, reached: app.reached() - before }).toEqual({ status: 503, reached: 0 });
      expect(bearer.headers['retry-after']).toBeDefined();
    };
    await world.store.cut();
    try {
      const response = await rawRequest(nginx.url, { headers: { cookie } });
      expect([response.status, JSON.parse(response.text).headers.cookie]).toEqual([200, cookie]);
    } finally {
      await world.store.restore();
    }
    await service.stop();
    await without();
    expect((await postExchange(world, cookie)).status).toBe(200);
  });
});
