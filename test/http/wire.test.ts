import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createHttp2Server } from 'node:http2';
import Koa from 'koa';
import { expect, it, onTestFinished } from 'vitest';
import { closeServer, urlOf } from '../../scripts/lib/legacy-app.js';
import { useWorlds } from '../support/use-worlds.js';
import { ask, endpointRequests, guardedRequests, makeCredentials, type RecordedRequest } from '../support/wire.js';
import type { World } from '../support/world.js';

// What Koa answered is on record: status, headers and body are the same through every way to mount the bridge.

const open = useWorlds();

/** Serves the same over HTTP/1 and HTTP/2. */
async function listen(listener: RequestListener): Promise<{ url: string; http2Url: string }> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  const http2 = createHttp2Server((request, response) => void Reflect.apply(listener, undefined, [request, response])).listen(0, '127.0.0.1');
  await Promise.all([once(server, 'listening'), once(http2, 'listening')]);
  const address = http2.address();
  onTestFinished(async () => {
    await closeServer(server);
    http2.close();
  });
  return { url: urlOf(server), http2Url: `http://127.0.0.1:${address !== null && typeof address === 'object' ? address.port : 0}` };
}

async function recordOf(at: { url: string; http2Url: string }, requests: readonly RecordedRequest[]): Promise<string> {
  const answers: string[] = [];
  for (const request of requests) answers.push(await ask(at, request));
  return answers.join('\n');
}

function koaApp(world: World): RequestListener {
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
  return (request, response) => void callback(request, response);
}

it.each<[string, (world: World) => RequestListener]>([['Koa', koaApp]])('%s: the endpoints', async (_, app) => {
  const world = await open();
  const at = await listen(app(world));
  await expect(await recordOf(at, endpointRequests(await makeCredentials(world)))).toMatchFileSnapshot('../fixtures/wire-endpoints.txt');
});

it.each<[string, (world: World) => RequestListener]>([['Koa', koaApp]])('%s: routes of the app', async (_, app) => {
  const world = await open();
  const at = await listen(app(world));
  await expect(await recordOf(at, guardedRequests(await makeCredentials(world)))).toMatchFileSnapshot('../fixtures/wire-guarded.txt');
});
