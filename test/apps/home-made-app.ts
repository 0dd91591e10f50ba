import { randomBytes, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { bodyParser } from '@koa/bodyparser';
import { sign, unsign } from 'cookie-signature';
import { Redis } from 'ioredis';
import Koa, { type Context } from 'koa';
import { PEOPLE } from '../../scripts/lib/legacy-app.js';
import { appOfServer, type ForeignApp } from './app.js';

type Person = (typeof PEOPLE)[string];

/** How somebody made sessions at home, without a library for it. */
export interface HomeMade {
  /** The cookie's value for an id, and back. */
  readonly put: (ctx: Context, id: string) => void;
  readonly take: (ctx: Context) => string | undefined;
  readonly newId: () => string;
  readonly write: (redis: Redis, id: string, person: Person) => Promise<unknown>;
  /** The subject of the session. */
  readonly read: (redis: Redis, id: string) => Promise<string | undefined>;
  readonly remove: (redis: Redis, id: string) => Promise<unknown>;
}

const HOUR = 3600;

/** The fields of a hash that each use prolongs, an unsigned cookie that ends with the browser. */
export function rollingHash(lifeSeconds: number): HomeMade {
  return {
    ...hashOfFields,
    async write(redis, id, person) {
      await hashOfFields.write(redis, id, person);
      await redis.expire(`app:{${id}}:session`, lifeSeconds);
    },
    async read(redis, id) {
      await redis.expire(`app:{${id}}:session`, lifeSeconds);
      return await hashOfFields.read(redis, id);
    },
  };
}

/** The fields of a hash, an unsigned cookie, an id in the middle of the key. */
export const hashOfFields: HomeMade = {
  put: (ctx, id) => ctx.append('Set-Cookie', `sid=${id}; Path=/; HttpOnly`),
  take: (ctx) => ctx.cookies.get('sid'),
  newId: () => randomBytes(24).toString('base64url'),
  write: async (redis, id, { id: user, ...rest }) =>
    await redis
      .multi()
      .hset(`app:{${id}}:session`, { user, tenant: rest.tenant, roles: JSON.stringify(rest.roles), scope: rest.scope.join(' '), at: Date.now() })
      .expire(`app:{${id}}:session`, HOUR)
      .exec(),
  read: async (redis, id) => (await redis.hget(`app:{${id}}:session`, 'user')) ?? undefined,
  remove: async (redis, id) => await redis.del(`app:{${id}}:session`),
};

/** JSON in a string that says itself when it ends, and a cookie that Express signed; `mark` is what `res.cookie` puts in front. */
export function jsonWithEnd(secret: string, mark = 's:'): HomeMade {
  return {
    put: (ctx, id) => ctx.append('Set-Cookie', `app_session=${encodeURIComponent(`${mark}${sign(id, secret)}`)}; Path=/; HttpOnly`),
    take(ctx) {
      const value = decodeURIComponent(ctx.cookies.get('app_session') ?? '');
      return value.startsWith(mark) ? unsign(value.slice(mark.length), secret) || undefined : undefined;
    },
    newId: () => randomUUID(),
    write: async (redis, id, { id: user, ...rest }) =>
      await redis.set(
        `login-${id}`,
        JSON.stringify({ account: { uid: user, ...rest, since: new Date().toISOString() }, meta: { until: Math.floor(Date.now() / 1000) + HOUR } }),
      ),
    async read(redis, id) {
      const record = JSON.parse((await redis.get(`login-${id}`)) ?? '{}');
      return record.meta?.until > Date.now() / 1000 ? record.account.uid : undefined;
    },
    remove: async (redis, id) => await redis.del(`login-${id}`),
  };
}

/** JSON in one field of a hash, and a cookie that Koa signed. */
export const jsonInField: HomeMade = {
  put: (ctx, id) => void ctx.cookies.set('session', id, { signed: true }),
  take: (ctx) => ctx.cookies.get('session', { signed: true }),
  newId: () => randomBytes(16).toString('hex'),
  write: async (redis, id, { id: user, ...rest }) =>
    await redis
      .multi()
      .hset(`s:${id}`, { data: JSON.stringify({ user, ...rest, loggedInAt: Date.now() }), device: 'laptop' })
      .expire(`s:${id}`, HOUR)
      .exec(),
  async read(redis, id) {
    const [data, device] = await redis.hmget(`s:${id}`, 'data', 'device');
    return data && device === 'laptop' ? JSON.parse(data).user : undefined;
  },
  remove: async (redis, id) => await redis.del(`s:${id}`),
};

export function formOf(ctx: Context): { readonly name: string } {
  const { body } = ctx.request;
  return { name: body instanceof Object && 'name' in body ? String(body.name) : '' };
}

export async function startHomeMadeApp(redisUrl: string, secrets: readonly string[], { put, take, ...records }: HomeMade): Promise<ForeignApp> {
  const redis = new Redis(redisUrl);
  redis.on('error', () => undefined); // The Redis of a test ends before the app.
  const app = new Koa();
  app.keys = [...secrets];
  app.use(bodyParser());
  app.use(async (ctx) => {
    const id = take(ctx);
    const { name } = formOf(ctx);
    const person = PEOPLE[name];
    if (ctx.path === '/login' && person) {
      const fresh = records.newId();
      await records.write(redis, fresh, person);
      put(ctx, fresh);
      ctx.redirect('/');
    } else if (ctx.path === '/logout') {
      if (id !== undefined) await records.remove(redis, id);
      ctx.status = 204;
    } else ctx.body = `hello, ${(id === undefined ? undefined : await records.read(redis, id)) ?? 'stranger'}`;
  });
  return await appOfServer(createServer(app.callback()), async () => redis.disconnect());
}
