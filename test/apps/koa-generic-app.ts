import { createServer } from 'node:http';
import { bodyParser } from '@koa/bodyparser';
import { Redis } from 'ioredis';
import Koa from 'koa';
import session from 'koa-generic-session';
import createStore from 'koa-redis';
import { PEOPLE } from '../../scripts/lib/legacy-app.js';
import { appOfServer, type ForeignApp } from './app.js';
import { formOf } from './home-made-app.js';

/** koa-generic-session in koa-redis. */
export async function startKoaGenericApp(redisUrl: string, secrets: readonly string[], options: object = {}): Promise<ForeignApp> {
  const client = new Redis(redisUrl);
  client.on('error', () => undefined); // The Redis of a test ends before the app.
  const app = new Koa();
  app.keys = [...secrets];
  app.use(session({ store: createStore({ client }), ...options }));
  app.use(bodyParser());
  app.use(async (ctx) => {
    if (ctx.path === '/login') {
      await ctx['regenerateSession']();
      ctx['session'].user = { ...PEOPLE[formOf(ctx).name], loggedInAt: Date.now() };
      ctx.redirect('/');
    } else if (ctx.path === '/logout') {
      ctx['session'] = null;
      ctx.status = 204;
    } else ctx.body = ctx['session'].user ? `hello, ${ctx['session'].user.id}` : 'hello, stranger';
  });
  return await appOfServer(createServer(app.callback()), async () => {
    // Told of it the library would wait ten seconds for Redis, and then reject a promise that nobody waits for.
    client.removeAllListeners('end');
    client.disconnect();
  });
}
