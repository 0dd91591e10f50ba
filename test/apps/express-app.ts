import { createServer } from 'node:http';
import { RedisStore } from 'connect-redis';
import express from 'express';
import session from 'express-session';
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

/** express-session in connect-redis, with logins by Passport: `passport.user` holds the person's id and nothing more. */
export async function startExpressApp(
  redisUrl: string,
  secrets: readonly string[],
  options: Partial<session.SessionOptions> = {},
): Promise<ForeignApp> {
  const client = createClient({ url: redisUrl });
  await client.connect();
  const authenticator = new passport.Passport();
  authenticator.use(new Strategy({ usernameField: 'name', passwordField: 'name' }, (name, _, done) => done(null, personOf(name) ?? false)));
  authenticator.serializeUser((user, done) => done(null, 'id' in user ? user.id : undefined));
  authenticator.deserializeUser((id, done) => done(null, { id }));

  const app = express();
  app.use(express.urlencoded());
  app.use(session({ store: new RedisStore({ client }), secret: [...secrets], resave: false, saveUninitialized: false, ...options }));
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
  return await appOfServer(createServer(app), async () => client.destroy());
}

function personOf(name: string) {
  return PEOPLE[name];
}
