import { once } from 'node:events';
import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import { createServer as createHttp2Server, type Http2ServerRequest, type Http2ServerResponse } from 'node:http2';
import express from 'express';
import Koa from 'koa';
import { expect, it, onTestFinished } from 'vitest';
import { closeServer, urlOf } from '../../scripts/lib/legacy-app.js';
import type { AnyRequest, AnyResponse, ConnectHandler, ConnectRequest } from '../../src/index.js';
import { useWorlds } from '../support/use-worlds.js';
import { ask, endpointRequests, guardedRequests, makeCredentials, type RecordedRequest } from '../support/wire.js';
import type { World } from '../support/world.js';

// What Koa answered is on record: status, headers and body are the same through every way to mount the bridge.

const open = useWorlds();

interface Mount {
  readonly http1: RequestListener;
  /** Express speaks HTTP/1 only. Default: the same. */
  readonly http2?: Http2Listener;
}
type Http2Listener = (request: Http2ServerRequest, response: Http2ServerResponse) => void;

/** Serves the same over HTTP/1 and HTTP/2. */
async function listen({ http1, http2 }: Mount): Promise<{ url: string; http2Url: string }> {
  const server = createServer(http1).listen(0, '127.0.0.1');
  const other = createHttp2Server((request, response) => void Reflect.apply(http2 ?? http1, undefined, [request, response]));
  other.listen(0, '127.0.0.1');
  await Promise.all([once(server, 'listening'), once(other, 'listening')]);
  const address = other.address();
  onTestFinished(async () => {
    await closeServer(server);
    other.close();
  });
  return { url: urlOf(server), http2Url: `http://127.0.0.1:${address !== null && typeof address === 'object' ? address.port : 0}` };
}

async function recordOf(at: { url: string; http2Url: string }, requests: readonly RecordedRequest[]): Promise<string> {
  const answers: string[] = [];
  for (const request of requests) answers.push(await ask(at, request));
  return answers.join('\n');
}

function koaMount(world: World): Mount {
  const app = new Koa();
  app.silent = true;
  app.use(world.bridge.authenticate());
  app.use(world.bridge.routes());
  const [orders, me] = [world.bridge.require({ scope: 'read:orders' }), world.bridge.require()];
  app.use(async (ctx) => {
    const answer = async () => {
      ctx.body = { principal: ctx.state.principal ?? null, rejection: ctx.state.rejection ?? null };
    };
    if (ctx.path === '/orders') await orders(ctx, answer);
    else if (ctx.path === '/me') await me(ctx, answer);
    else await answer();
  });
  const callback = app.callback();
  return { http1: (request, response) => void callback(request, response) };
}

function connectMount(world: World): Mount {
  const { authenticate, routes, errors, require } = world.bridge.connect();
  const answer: ConnectHandler = ({ crossfade }, response) => {
    const text = JSON.stringify({ principal: crossfade?.principal ?? null, rejection: crossfade?.rejection ?? null });
    response.writeHead(200, { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': text.length }).end(text);
  };
  const app = express();
  app.use(authenticate);
  app.use('/.well-known', routes);
  app.use('/auth', routes);
  // Where a proxy has sent a whole URL, Express knows no path.
  app.use(routes);
  app.get('/orders', require({ scope: 'read:orders' }), answer);
  app.get('/me', require(), answer);
  app.use(answer);
  app.use(errors);
  const needed = require();
  const http2: Http2Listener = (request, response) => {
    // Connect itself is a chain of functions.
    const [asked, answered] = [request, response] as unknown as [ConnectRequest, ServerResponse];
    authenticate(asked, answered, () => routes(asked, answered, () => needed(asked, answered, () => answer(asked, answered, () => undefined))));
  };
  return { http1: app, http2 };
}

function nodeMount(world: World): Mount {
  const answer: Http2Listener & RequestListener = (request: AnyRequest, response: AnyResponse) => {
    if (!world.bridge.answer(request, response)) throw new Error('it was not answered');
  };
  return { http1: answer, http2: answer };
}

it.each<[string, (world: World) => Mount]>([
  ['Koa', koaMount],
  ['Express', connectMount],
  ['node:http', nodeMount],
])('%s: the endpoints', async (_, mount) => {
  const world = await open();
  const at = await listen(mount(world));
  await expect(await recordOf(at, endpointRequests(await makeCredentials(world)))).toMatchFileSnapshot('../fixtures/wire-endpoints.txt');
});

it.each<[string, (world: World) => Mount]>([
  ['Koa', koaMount],
  ['Express', connectMount],
])('%s: routes of the app', async (_, mount) => {
  const world = await open();
  const at = await listen(mount(world));
  await expect(await recordOf(at, guardedRequests(await makeCredentials(world)))).toMatchFileSnapshot('../fixtures/wire-guarded.txt');
});
