import { createPrivateKey, createPublicKey, hash, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { calculateJwkThumbprint, exportJWK, SignJWT } from 'jose';
import Koa, { type Middleware } from 'koa';
import createSession from 'koa-session';
import type { Bridge, ConfigInput } from '../../src/index.js';
import type { Algorithm, Fixture } from './fixture.js';

/** What one process is to be. */
export interface AppSettings {
  readonly app: AppName;
  readonly fixture: Fixture;
  readonly redisUrl: string;
  readonly algorithm: Algorithm;
  /** Keeps the bridges of a run apart in one Redis. */
  readonly keyPrefix: string;
  /** How many tokens the bridge remembers; absent: its default. */
  readonly rememberedTokens?: number;
}

/** What every app answers. */
export const BODY = JSON.stringify({ orders: [{ id: 1, total: 42 }] });

/** A peer of `scripts/bench-peers`, which has packages of its own. */
const peer = createRequire(new URL('../bench-peers/package.json', import.meta.url));

export type AppName = keyof typeof APPS;

/** One app each, ready to listen. */
export const APPS = {
  bare: async () => koa(hello),

  'bare-204': async () =>
    koa((ctx) => {
      ctx.status = 204;
    }),

  'throw-401': async () => koa((ctx) => ctx.throw(401)),

  /** What an exchange cannot do without: a signature, and a round trip to Redis. */
  'bare-exchange': async ({ fixture, algorithm, redisUrl }: AppSettings) => {
    const key = privateKey(fixture, algorithm);
    const redis = new Redis(redisUrl);
    return koa(async (ctx) => {
      await redis.get('somebody');
      const signed = new SignJWT({ client_id: 'web', sid: 'somebody' }).setProtectedHeader({ alg: algorithm, typ: 'at+jwt' });
      ctx.body = { access_token: await signed.setIssuedAt().setExpirationTime('10m').sign(key), token_type: 'Bearer', expires_in: 600 };
    });
  },

  'bare-loaded': async (settings: AppSettings) => {
    await createBridge(settings);
    return koa(hello);
  },
  /** What a token that is remembered cannot do without: its SHA-256. */
  'bare-hash': async () =>
    koa((ctx, next) => {
      ctx.state['digest'] = hash('sha256', (ctx.req.headers.authorization ?? '').slice('Bearer '.length), 'binary');
      return next();
    }, hello),

  /** What a session that is read anew each time cannot do without: its record, by one MGET for all of a turn, parsed. */
  'bare-mget': async ({ redisUrl }: AppSettings) => {
    const redis = new Redis(redisUrl);
    let waiting: { readonly key: string; readonly resolve: (text: string | null) => void }[] = [];
    const flush = () => {
      const batch = waiting;
      waiting = [];
      redis.mget(batch.map(({ key }) => key)).then((found) => batch.forEach(({ resolve }, n) => resolve(found[n] ?? null)));
    };
    return koa(async (ctx, next) => {
      const key = /koa\.sess=([^;]*)/.exec(ctx.req.headers.cookie ?? '')?.[1] ?? '';
      const text = await new Promise<string | null>((resolve) => {
        if (waiting.length === 0) setImmediate(flush);
        waiting.push({ key, resolve });
      });
      ctx.state['session'] = JSON.parse(text ?? 'null');
      await next();
    }, hello);
  },

  bridge: async (settings: AppSettings) => koa((await createBridge(settings)).authenticate(), hello),

  'bridge-required': async (settings: AppSettings) => {
    const bridge = await createBridge(settings);
    return koa(bridge.authenticate(), bridge.require(), hello);
  },

  // As `crossfade serve` answers.
  'bridge-endpoints': async (settings: AppSettings): Promise<RequestListener> => {
    const bridge = await createBridge(settings);
    return (request, response) => void bridge.answer(request, response);
  },

  'bridge-beside-koa-session': async (settings: AppSettings) => {
    const bridge = await createBridge(settings);
    const app = new Koa();
    app.keys = [settings.fixture.cookieSecret];
    app.use(bridge.authenticate());
    app.use(createSession({ store: bridge.sessionStore(), externalKey: bridge.externalKey() }, app));
    app.use((ctx) => {
      if (!ctx.session['user']) ctx.throw(401);
      ctx.body = BODY;
    });
    return app.callback();
  },

  /** As people write it: a GET for each request. */
  'koa-session': async ({ fixture, redisUrl }: AppSettings) => {
    const redis = new Redis(redisUrl);
    const app = new Koa();
    app.keys = [fixture.cookieSecret];
    const store = {
      async get(key: string): Promise<unknown> {
        const text = await redis.get(key);
        return text === null ? undefined : JSON.parse(text);
      },
      async set(key: string, record: unknown, maxAge: unknown): Promise<void> {
        await redis.set(key, JSON.stringify(record), 'PX', Number(maxAge));
      },
      async destroy(key: string): Promise<void> {
        await redis.del(key);
      },
    };
    app.use(createSession({ store }, app));
    app.use((ctx) => {
      if (!ctx.session['user']) ctx.throw(401);
      ctx.body = BODY;
    });
    return app.callback();
  },

  'koa-jwt': async (settings: AppSettings) => {
    const { fixture, algorithm } = settings;
    const koaJwt = peer('koa-jwt');
    return koa(koaJwt({ secret: publicKey(settings), algorithms: [algorithm], issuer: fixture.issuer, audience: fixture.audience }), hello);
  },

  'passport-jwt': async (settings: AppSettings) => {
    const { fixture, algorithm } = settings;
    const passport = peer('koa-passport');
    const { Strategy, ExtractJwt } = peer('passport-jwt');
    const options = {
      jwtFromRequest: ExtractJwt.fromAuthHeaderAsBearerToken(),
      secretOrKey: publicKey(settings).export({ type: 'spki', format: 'pem' }),
      algorithms: [algorithm],
      issuer: fixture.issuer,
      audience: fixture.audience,
    };
    passport.use(new Strategy(options, (claims: object, done: (error: null, user: object) => void) => done(null, claims)));
    return koa(passport.initialize(), passport.authenticate('jwt', { session: false }), hello);
  },

  'fastify-jwt': async (settings: AppSettings) => {
    const { fixture, algorithm } = settings;
    const app = peer('fastify')();
    await app.register(peer('@fastify/jwt'), {
      secret: { public: publicKey(settings).export({ type: 'spki', format: 'pem' }) },
      verify: { algorithms: [algorithm], allowedIss: fixture.issuer, allowedAud: fixture.audience, cache: 100_000 },
    });
    app.get('/', { onRequest: async (request: { jwtVerify(): Promise<unknown> }) => await request.jwtVerify() }, async () => BODY);
    await app.ready();
    return (request, response) => app.routing(request, response);
  },

  'express-oauth2-jwt-bearer': async (settings: AppSettings) => {
    const { fixture, algorithm } = settings;
    const express = peer('express');
    const { auth } = peer('express-oauth2-jwt-bearer');
    const app = express();
    const jwk = await exportJWK(publicKey(settings));
    const body = JSON.stringify({ keys: [{ ...jwk, kid: await calculateJwkThumbprint(jwk), alg: algorithm, use: 'sig' }] });
    const jwks = createServer((_, response) => {
      response.setHeader('content-type', 'application/json');
      response.end(body);
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => jwks.once('listening', resolve));
    const address = jwks.address();
    const port = address !== null && typeof address === 'object' ? address.port : 0;
    app.use(
      auth({
        issuer: fixture.issuer,
        audience: fixture.audience,
        jwksUri: `http://127.0.0.1:${port}/jwks`,
        tokenSigningAlg: algorithm,
      }),
    );
    app.get('/', (_: unknown, response: { send(body: string): void }) => response.send(BODY));
    return app;
  },
} satisfies Record<string, (settings: AppSettings) => Promise<RequestListener>>;

function hello(ctx: Koa.Context): void {
  ctx.body = BODY;
}

function koa(...middleware: readonly Middleware[]): RequestListener {
  const app = new Koa();
  for (const one of middleware) app.use(one);
  return app.callback();
}

function privateKey({ directory }: Fixture, algorithm: Algorithm): KeyObject {
  return createPrivateKey(readFileSync(join(directory, algorithm, 'bench.pem')));
}

function publicKey({ fixture, algorithm }: AppSettings): KeyObject {
  return createPublicKey(privateKey(fixture, algorithm));
}

/** The built package, as a user has it. */
async function createBridge({ fixture, redisUrl, algorithm, keyPrefix, rememberedTokens }: AppSettings): Promise<Bridge> {
  const { createBridge: create }: typeof import('../../src/index.js') = await import(new URL('../../dist/index.js', import.meta.url).href);
  const { directory, issuer, audience } = fixture;
  const config: ConfigInput = {
    issuer,
    audience: [audience],
    fleetSecretFile: join(directory, 'fleet-secret'),
    redis: { url: redisUrl, keyPrefix },
    sessions: [
      {
        name: 'web',
        format: 'koa-session',
        cookie: 'koa.sess',
        keyPrefix: '',
        secretsFile: join(directory, 'session-secrets'),
        principal: { subject: 'user.id', tenant: 'user.tenant', roles: 'user.roles', scope: 'user.scope', authTime: 'user.loggedInAt' },
      },
    ],
    keys: { directory: join(directory, algorithm), algorithm, publishSeconds: 0 },
    rollout: { flags: { file: join(directory, 'flags.json') } },
    clients: [{ id: 'web', type: 'public', exchanges: true, wayBack: true, refreshTransport: 'body' }],
    limits: { exchangePerSessionPerMinute: 10_000_000, failuresPerAddressPerMinute: 10_000_000 },
    ...(rememberedTokens === undefined ? {} : { bearer: { rememberedTokens } }),
  };
  return await create(config);
}
