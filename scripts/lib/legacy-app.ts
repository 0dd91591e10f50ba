import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type Cluster, Redis } from 'ioredis';
import Koa from 'koa';
import createSession, { type CreateSessionOptions } from 'koa-session';
import session4 from 'koa-session-4';
import session5 from 'koa-session-5';
import session6 from 'koa-session-6';
import Koa2 from 'koa2';

interface Person {
  readonly id: string;
  readonly tenant: string;
  readonly roles: readonly string[];
  readonly scope: readonly string[];
}

/** Who can log in, by name. */
export const PEOPLE: Readonly<Record<string, Person>> = {
  alice: { id: 'u-alice', tenant: 'acme', roles: ['admin', 'billing'], scope: ['read:orders', 'write:orders'] },
  bob: { id: 'u-bob', tenant: 'acme', roles: ['member'], scope: ['read:orders'] },
  carol: { id: 'u-carol', tenant: 'globex', roles: [], scope: [] },
};

/** Beside those with a name there are as many as a demo needs: `person-0`, `person-1`, … */
function findPerson(name: string): Person | undefined {
  return PEOPLE[name] ?? (/^person-\d+$/.test(name) ? { id: `u-${name}`, tenant: 'initech', roles: [], scope: ['read:orders'] } : undefined);
}

export interface LegacyAppOptions {
  readonly redisUrl: string;
  /** The app's `app.keys`, newest first. */
  readonly secrets: readonly string[];
  /** Major version of koa-session. Default: 7. */
  readonly version?: 4 | 5 | 6 | 7;
  /** What the store itself puts in front of the Redis key. */
  readonly storePrefix?: string;
  readonly session?: CreateSessionOptions;
}

export interface LegacyApp {
  readonly url: string;
  readonly server: Server;
  /** Logs in as a browser would, and gives the `Cookie` header that the browser sends from then on. */
  login(name: string): Promise<string>;
  /** A session of somebody who only looked: nobody is logged in. */
  visit(): Promise<string>;
  logout(cookie: string): Promise<void>;
  /** Redis keys of all sessions that were written, in order. */
  readonly keys: readonly string[];
  /** The app's own connection. */
  readonly redis: Redis;
  /** Ends the app and removes its sessions, and what else is named. */
  close(moreKeys?: readonly string[]): Promise<void>;
}

/** A store as people write it for koa-session: JSON under the cookie's value, with the maxAge that koa-session gives. */
function createStore(redis: Redis | Cluster, prefix: string, keys: string[]) {
  return {
    async get(key: string): Promise<unknown> {
      const text = await redis.get(prefix + key);
      return text === null ? undefined : JSON.parse(text);
    },
    async set(key: string, record: unknown, maxAge: unknown): Promise<void> {
      if (!keys.includes(prefix + key)) keys.push(prefix + key);
      if (typeof maxAge === 'number') await redis.set(prefix + key, JSON.stringify(record), 'PX', maxAge);
      else await redis.set(prefix + key, JSON.stringify(record));
    },
    async destroy(key: string): Promise<void> {
      await redis.del(prefix + key);
    },
  };
}

/** koa-session as middleware, writing to Redis. */
export function legacySessions(
  app: Koa,
  redis: Redis | Cluster,
  keys: string[],
  { version = 7, storePrefix = '', session = {} }: Omit<LegacyAppOptions, 'redisUrl' | 'secrets'>,
): Koa.Middleware {
  const options = { maxAge: 86_400_000, store: createStore(redis, storePrefix, keys), ...session };
  const libraries = { 4: session4, 5: session5, 6: session6, 7: createSession };
  return libraries[version](options, app);
}

/** The login form and what is behind it, for an app that has koa-session. */
export function legacyPages(): Koa.Middleware {
  return async function pages(ctx, next) {
    if (ctx.path === '/login' && ctx.method === 'GET') {
      ctx.type = 'html';
      ctx.body = '<!doctype html><title>Log in</title><form method="post"><input name="name"><button>Log in</button></form>';
    } else if (ctx.path === '/login' && ctx.method === 'POST') {
      const chunks: Buffer[] = [];
      for await (const chunk of ctx.req) chunks.push(chunk);
      const person = findPerson(new URLSearchParams(Buffer.concat(chunks).toString()).get('name') ?? '');
      if (!person) {
        ctx.status = 403;
        return;
      }
      ctx.session.user = { ...person, loggedInAt: Date.now() };
      ctx.redirect('/');
    } else if (ctx.path === '/visit') {
      ctx.session.views = (ctx.session.views ?? 0) + 1;
      ctx.body = 'hello, stranger';
    } else if (ctx.path === '/logout' && ctx.method === 'POST') {
      ctx.session = null;
      ctx.status = 204;
    } else {
      await next();
    }
  };
}

export async function startLegacyApp(options: LegacyAppOptions): Promise<LegacyApp> {
  const redis = new Redis(options.redisUrl);
  redis.on('error', () => undefined); // It goes on trying, and requests wait for it.
  const keys: string[] = [];
  // koa-session 4 is a generator function, which Koa 3 no longer takes.
  const app = options.version === 4 ? new Koa2() : new Koa();
  app.keys = [...options.secrets];
  app.use(legacySessions(app, redis, keys, options));
  app.use(legacyPages());
  app.use((ctx) => {
    ctx.body = ctx.session.user ? `hello, ${ctx.session.user.id}` : 'hello, stranger';
  });
  const server = createServer(app.callback()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = urlOf(server);

  return {
    url,
    server,
    keys,
    async login(name) {
      const response = await fetch(`${url}/login`, { method: 'POST', body: new URLSearchParams({ name }), redirect: 'manual' });
      return cookieHeader(response);
    },
    visit: async () => cookieHeader(await fetch(`${url}/visit`)),
    async logout(cookie) {
      await fetch(`${url}/logout`, { method: 'POST', headers: { cookie } });
    },
    redis,
    async close(moreKeys = []) {
      await closeServer(server);
      await Promise.all([...keys, ...moreKeys].map((key) => redis.del(key)));
      redis.disconnect();
    },
  };
}

export function urlOf(server: Server): string {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server is not listening');
  return `http://127.0.0.1:${address.port}`;
}

export async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return;
  const closed = once(server, 'close');
  server.close();
  server.closeAllConnections();
  await closed;
}

/** The `Cookie` header that a browser would send after this response. */
export function cookieHeader(response: Response): string {
  return response.headers
    .getSetCookie()
    .map((line) => line.split(';')[0] ?? '')
    .join('; ');
}
