import { once } from 'node:events';
import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import { connect as connectHttp2, createServer as createHttp2Server } from 'node:http2';
import { text } from 'node:stream/consumers';
import express from 'express';
import { expect, it, onTestFinished } from 'vitest';
import { closeServer, urlOf } from '../../scripts/lib/legacy-app.js';
import { type ConnectMount, CrossfadeError } from '../../src/index.js';
import { exchangeNative, TOKEN_EXCHANGE } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import { ORIGIN } from '../support/world.js';

const open = useWorlds();

async function listen(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(async () => await closeServer(server));
  return urlOf(server);
}

const cookiesOf = (response: Response) => response.headers.getSetCookie().map((line) => line.slice(0, line.indexOf('=')));
const LOGOUT = { method: 'POST', headers: { origin: ORIGIN } };

it('all cookies are set and Vary is kept where the app has set headers before, on bare node:http and in Express', async () => {
  const world = await open();
  const plain = await (await world.call('/auth/logout', LOGOUT)).headers.getSetCookie();
  expect(plain).toHaveLength(3);
  const before = (response: ServerResponse) =>
    response.setHeader('X-Frame-Options', 'DENY').setHeader('Vary', 'Accept').setHeader('Set-Cookie', 'own=1');
  const bare = await listen((request, response) => {
    before(response);
    world.bridge.answer(request, response);
  });
  const app = express();
  app.use((_request, response, next) => {
    before(response);
    next();
  });
  app.use(world.bridge.connect().routes);
  for (const url of [bare, await listen(app)]) {
    const response = await fetch(`${url}/auth/logout`, LOGOUT);
    expect([response.status, response.headers.get('x-frame-options'), response.headers.get('vary')]).toEqual([204, 'DENY', 'Accept, Origin']);
    expect(response.headers.getSetCookie()).toEqual(['own=1', ...plain]);
  }
});

it('where the app has answered first nothing is written, and the process lives', async () => {
  const world = await open();
  const app = express();
  app.use((_request, response, next) => {
    next();
    response.status(503).end('too slow');
  });
  const { authenticate, routes } = world.bridge.connect();
  app.use(authenticate, routes);
  const bare = await listen((request, response) => {
    world.bridge.answer(request, response);
    response.writeHead(503).end('too slow');
  });
  const cookie = await world.login('alice');
  const unhandled: unknown[] = [];
  const note = (error: unknown) => void unhandled.push(error);
  process.on('unhandledRejection', note);
  onTestFinished(() => void process.off('unhandledRejection', note));
  const form = new URLSearchParams({ grant_type: TOKEN_EXCHANGE, client_id: 'web' });
  for (const url of [await listen(app), bare]) {
    const response = await fetch(`${url}/auth/token`, { method: 'POST', headers: { origin: ORIGIN, cookie }, body: form });
    expect([response.status, await response.text()]).toEqual([503, 'too slow']);
    await fetch(`${url}/me`, { headers: { cookie } });
  }
  await expect.poll(async () => await world.metrics()).toContain('crossfade_exchanges_total{client="web",outcome="granted"} 2');
  expect(unhandled).toEqual([]);
});

it('a form over HTTP/2 needs no length', async () => {
  const world = await open();
  const { refresh } = await exchangeNative(world, await world.login('alice'));
  const server = createHttp2Server((request, response) => void world.bridge.answer(request, response)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const session = connectHttp2(`http://127.0.0.1:${address !== null && typeof address === 'object' ? address.port : 0}`);
  onTestFinished(() => {
    session.close();
    server.close();
  });
  const post = async (path: string, fields: Record<string, string>) => {
    const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/x-www-form-urlencoded' });
    stream.end(new URLSearchParams(fields).toString());
    const [head]: Record<string, unknown>[] = await once(stream, 'response');
    return { status: head?.[':status'], cookies: head?.['set-cookie'], body: await text(stream) };
  };
  const logout = await post('/auth/logout', { client_id: 'android', refresh_token: refresh });
  expect(logout).toMatchObject({ status: 204, cookies: { length: 3 } });
  expect(await post('/auth/token', { grant_type: 'refresh_token', client_id: 'android', refresh_token: refresh })).toMatchObject({
    status: 400,
    body: '{"error":"invalid_grant"}',
  });
  expect((await post('/auth/token', { grant_type: 'x'.repeat(17_000) })).status).toBe(413);
});

const ANSWERS: Readonly<Record<string, (response: ServerResponse) => unknown>> = {
  'of an object': (response) => response.writeHead(200, { 'X-More': 'one', 'Set-Cookie': ['a=1', 'b=2'], 'cache-control': 'max-age=9' }).end(),
  'of a list': (response) =>
    response.writeHead(200, 'Fine', ['X-More', 'one', 'Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'Cache-Control', 'max-age=9']).end(),
  'of nothing': (response) => response.setHeader('X-More', 'one').setHeader('Set-Cookie', ['a=1', 'b=2']).writeHead(200).end(),
};

it.each(Object.keys(ANSWERS))('a nudge changes no other header, with writeHead %s', async (name) => {
  const world = await open({ stage: 'dual' });
  const { authenticate } = world.bridge.connect();
  const url = await listen((request, response) => authenticate(request, response, () => void ANSWERS[name]?.(response)));
  const cookie = await world.login('alice');
  const quiet = await fetch(url, { headers: { cookie } });
  await world.setFlags({ 'auth-migration-stage': 'jwt-preferred' });
  const nudged = await fetch(url, { headers: { cookie, 'x-client-id': 'android' } });
  expect([quiet.headers.get('auth-migration'), nudged.headers.get('auth-migration')]).toEqual([null, expect.stringContaining('exchange=')]);
  expect(nudged.headers.get('cache-control')).toBe('no-store');
  for (const response of [quiet, nudged]) {
    expect(response.headers.get('x-more')).toBe('one');
    expect(cookiesOf(response)).toEqual(['a', 'b']);
  }
});

it('an answer that is a failure nudges nobody; what failed behind is answered 503 with the headers from before the handler', async () => {
  const world = await open({ stage: 'jwt-preferred' });
  const { authenticate, errors }: ConnectMount = world.bridge.connect();
  const app = express();
  app.use((_request, response, next) => {
    response.cookie('before', '1');
    next();
  });
  app.use(authenticate);
  app.get('/broken', (_request, response) => void response.status(500).end());
  app.get('/behind', (_request, response) => {
    response.set({ 'Content-Encoding': 'gzip', ETag: '"x"', 'Transfer-Encoding': 'chunked' }).cookie('session', 'x');
    response.statusMessage = 'Weird';
    throw new CrossfadeError('temporarily_unavailable', { reason: 'redis' });
  });
  app.get('/other', () => {
    throw new TypeError('a fault of the app');
  });
  app.use(errors);
  app.use(((error, _request, response, _next) => void response.status(418).end(error.message)) satisfies express.ErrorRequestHandler);
  const url = await listen(app);
  const headers = { cookie: await world.login('alice'), 'x-client-id': 'android' };
  const broken = await fetch(`${url}/broken`, { headers });
  expect([broken.status, broken.headers.get('auth-migration')]).toEqual([500, null]);
  const behind = await fetch(`${url}/behind`, { headers });
  expect([behind.status, behind.statusText, behind.headers.get('content-encoding'), behind.headers.get('etag')]).toEqual([
    503,
    'Service Unavailable',
    null,
    null,
  ]);
  expect([cookiesOf(behind), behind.headers.get('auth-migration')]).toEqual([['before'], null]);
  expect(await behind.json()).toEqual({ error: 'temporarily_unavailable', reason: 'redis' });
  expect((await fetch(`${url}/other`, { headers })).status).toBe(418);
});

it('counts a 401 of a handler to a request with a good token, as behind Koa', async () => {
  const world = await open();
  const { authenticate } = world.bridge.connect();
  const url = await listen((request, response) => authenticate(request, response, () => response.writeHead(401).end()));
  const { access } = await exchangeNative(world, await world.login('alice'));
  await fetch(url, { headers: { authorization: `Bearer ${access}` } });
  await expect.poll(async () => await world.metrics()).toContain('crossfade_tokens_refused_by_app_total{client="android"} 1');
});

it('is not there in mode: observe', async () => {
  const world = await open({ configure: (config) => ({ ...config, mode: 'observe' }) });
  expect(() => world.bridge.connect()).toThrow('mode: observe decides nothing');
});
