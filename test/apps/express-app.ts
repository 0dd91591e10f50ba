import { createServer } from 'node:http';
import { RedisStore } from 'connect-redis';
import connectRedis6 from 'connect-redis-6';
import express from 'express';
import session from 'express-session';
import { Redis } from 'ioredis';
import passport from 'passport';
import { Strategy } from 'passport-local';
import { createClient } from 'redis';
import { PEOPLE } from '../../scripts/lib/legacy-app.js';
import { appOfServer, type ForeignApp } from './app.js';

declare module 'express-session' {
  interface SessionData {
    profile: { roles: readonly string[]; tenant: string; scope: readonly string[]; loggedInAt: string };
  }
}

/** A store of each kind of connect-redis that people run: 6 takes ioredis, 9 node-redis. 10 has the source of 9 and needs Node.js 22. */
const STORES = {
  async 6(url: string, ttl: number) {
    const client = new Redis(url);
    return { store: new (connectRedis6(session))({ client, ttl }), close: () => client.disconnect() };
  },
  async 9(url: string, ttl: number) {
    const client = createClient({ url });
    await client.connect();
    return { store: new RedisStore({ client, ttl }), close: () => client.destroy() };
  },
} as const;

/** express-session in connect-redis, with logins by Passport: `passport.user` holds the person's id and nothing more. */
export async function startExpressApp(
  redisUrl: string,
  secrets: readonly string[],
  options: Partial<session.SessionOptions> = {},
  { version = 9, lifeSeconds = 86_400 }: { readonly version?: keyof typeof STORES; readonly lifeSeconds?: number } = {},
): Promise<ForeignApp> {
  const { store, close } = await STORES[version](redisUrl, lifeSeconds);
  const authenticator = new passport.Passport();
  authenticator.use(new Strategy({ usernameField: 'name', passwordField: 'name' }, (name, _, done) => done(null, personOf(name) ?? false)));
  authenticator.serializeUser((user, done) => done(null, 'id' in user ? user.id : undefined));
  authenticator.deserializeUser((id, done) => done(null, { id }));

  const app = express();
  app.use(express.urlencoded());
  app.use(session({ store, secret: [...secrets], resave: false, saveUninitialized: false, ...options }));
  app.use(authenticator.session());
  app.post('/login', authenticator.authenticate('local'), (request, response) => {
    const person = personOf(String(request.body.name));
    if (person) request.session.profile = { ...person, loggedInAt: new Date().toISOString() };
    response.redirect('/');
  });
  app.post('/logout', (request, response) => request.session.destroy(() => response.sendStatus(204)));
  app.get('/', (request, response) => {
    response.send(request.user && 'id' in request.user ? `hello, ${request.user.id}` : 'hello, stranger');
  });
  return await appOfServer(createServer(app), async () => close());
}

function personOf(name: string) {
  return PEOPLE[name];
}
