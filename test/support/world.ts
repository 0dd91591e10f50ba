import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import Koa from 'koa';
import Koa2 from 'koa2';
import { inject } from 'vitest';
import { closeServer, type LegacyApp, type LegacyAppOptions, legacySessions, PEOPLE, startLegacyApp, urlOf } from '../../scripts/lib/legacy-app.js';
import { type Bridge, type BridgeOptions, createBridge } from '../../src/bridge.js';
import type { ConfigInput } from '../../src/config/config.js';
import { resolveConfig } from '../../src/config/load.js';
import { createLog } from '../../src/telemetry/log.js';
import { writeKey } from './keys.js';
import { LogLines } from './log-lines.js';
import { startTcpProxy, type TcpProxy } from './tcp-proxy.js';
import { record, remember, rememberCookie, rememberToken } from './transcript.js';

export const ORIGIN = 'https://app.example.com';
export const ISSUER = 'https://app.example.com';
export const AUDIENCE = 'https://api.example.com';

export interface WorldOptions {
  /** Changes the config before the bridge starts. */
  readonly configure?: (config: ConfigInput) => ConfigInput;
  readonly legacy?: Partial<LegacyAppOptions>;
  /** Redis as the bridge sees it for keys of its own. Default: the run's. */
  readonly redisUrl?: string;
  readonly bridge?: BridgeOptions;
  readonly koa?: 2 | 3;
  /** What the flag gives to everybody. Default: dual. */
  readonly stage?: string;
  /** Prepares the files before the bridge starts. */
  readonly prepare?: (directory: string) => void;
  /** Middleware of the app's own, before everything else. */
  readonly first?: Koa.Middleware;
  /** Puts a koa-session of the app's own, on the legacy app's records, before or after `authenticate()`. */
  readonly koaSession?: 'before' | 'after';
}

/** A legacy app that logs people in, and a Koa app with the bridge in front of its handlers. */
export interface World {
  readonly directory: string;
  readonly config: ConfigInput;
  readonly legacy: LegacyApp;
  /** The legacy app's cookie secrets. */
  readonly secrets: readonly string[];
  readonly bridge: Bridge;
  readonly url: string;
  readonly log: LogLines;
  /** What stands between the bridge and the records, so that it can be taken away, and asked whether anything was read. */
  readonly store: TcpProxy;
  /** How often a handler behind the bridge was reached. */
  reached(): number;
  /** Logs somebody in at the legacy app; the cookie is remembered as a secret. */
  login(name: string): Promise<string>;
  call(path: string, init?: RequestInit & { readonly cookie?: string; readonly bearer?: string }): Promise<Response>;
  /** The browser form of the exchange, from the client's own origin. */
  exchange(cookie: string, form?: Record<string, string>, headers?: Record<string, string>): Promise<Response>;
  /** Runs `ask` and says whether anything was read from the store and whether a handler was reached. */
  watching<T>(ask: () => Promise<T>): Promise<{ result: T; storeReached: boolean; handlerReached: boolean; issued: number }>;
  /** The access token of an exchange that must succeed. */
  token(cookie: string, form?: Record<string, string>): Promise<string>;
  /** Replaces the flags file and waits until the bridge has read it. */
  setFlags(flagValues: Record<string, unknown>): Promise<void>;
  metrics(): Promise<string>;
  /** A file of the world's directory. */
  readFile(name: string): string;
  close(): Promise<void>;
}

export function sharedRedisUrl(): string {
  return inject('redisUrl');
}

export async function createWorld(options: WorldOptions = {}): Promise<World> {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-world-'));
  const secrets = options.legacy?.secrets ?? [randomBytes(24).toString('base64url'), randomBytes(24).toString('base64url')];
  const legacy = await startLegacyApp({ redisUrl: sharedRedisUrl(), ...options.legacy, secrets });
  const fleetSecret = randomBytes(32).toString('base64url');
  const keyPrefix = `crossfade-test-${randomUUID()}:`;
  remember(fleetSecret, ...secrets, ...Object.values(PEOPLE).map(({ id }) => id));

  mkdirSync(join(directory, 'keys'));
  writeFileSync(join(directory, 'fleet-secret'), `${fleetSecret}\n`);
  writeFileSync(join(directory, 'session-secrets'), `${secrets.join('\n')}\n`);
  writeFileSync(join(directory, 'flags.json'), flagsText({ 'auth-migration-stage': options.stage ?? 'dual' }));
  if (!options.prepare) writeKey(join(directory, 'keys'), 'first.pem');
  options.prepare?.(directory);

  const store = await startTcpProxy(options.legacy?.redisUrl ?? sharedRedisUrl());
  const plain = baseConfig(options.redisUrl ?? sharedRedisUrl(), store.url, keyPrefix);
  const config = options.configure?.(plain) ?? plain;
  const log = new LogLines();
  const bridge = await createBridge(resolveConfig(config, { baseDir: directory }), {
    log: createLog({ destination: log, level: 'debug' }),
    ...options.bridge,
  });

  let reached = 0;
  // Makes every flags file another one, so that there is a change to wait for.
  let turn = 0;
  const app: Koa = options.koa === 2 ? new Koa2() : new Koa();
  app.silent = true;
  app.keys = [...secrets];
  if (options.first) app.use(options.first);
  if (options.koaSession === 'before') app.use(legacySessions(app, legacy.redis, [], {}));
  app.use(bridge.authenticate());
  app.use(bridge.routes());
  if (options.koaSession === 'after') app.use(legacySessions(app, legacy.redis, [], {}));
  const orders = bridge.require({ scope: 'read:orders' });
  const me = bridge.require();
  app.use(async (ctx) => {
    const answer = async () => {
      reached += 1;
      ctx.body = { principal: ctx.state.principal ?? null, rejection: ctx.state.rejection ?? null, session: ctx['session']?.user?.id ?? null };
    };
    if (ctx.path === '/orders') await orders(ctx, answer);
    else if (ctx.path === '/me') await me(ctx, answer);
    else await answer();
  });
  const server = createServer(app.callback()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = urlOf(server);

  const world: World = {
    directory,
    config,
    legacy,
    secrets,
    bridge,
    url,
    log,
    store,
    reached: () => reached,
    async watching(ask) {
      const before = { sent: store.sentBytes, reached, issued: log.audits('exchange.granted').length };
      const result = await ask();
      return {
        result,
        storeReached: store.sentBytes !== before.sent,
        handlerReached: reached !== before.reached,
        issued: log.audits('exchange.granted').length - before.issued,
      };
    },
    async login(name) {
      const cookie = await legacy.login(name);
      rememberCookie(cookie);
      return cookie;
    },
    async call(path, { cookie, bearer, headers, ...init } = {}) {
      const sent = new Headers(headers);
      if (cookie !== undefined) sent.set('cookie', cookie);
      if (bearer !== undefined) sent.set('authorization', `Bearer ${bearer}`);
      return await fetch(url + path, { redirect: 'manual', ...init, headers: sent });
    },
    exchange: async (cookie, form = {}, headers = {}) =>
      await world.call('/auth/token', {
        method: 'POST',
        cookie,
        headers: { origin: ORIGIN, ...headers },
        body: new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange', ...form }),
      }),
    async token(cookie, form) {
      const response = await world.exchange(cookie, form);
      const body: unknown = await response.json();
      const token = body !== null && typeof body === 'object' && 'access_token' in body ? body.access_token : undefined;
      if (typeof token !== 'string') throw new Error(`the exchange was refused: ${response.status} ${JSON.stringify(body)}`);
      rememberToken(token);
      return token;
    },
    async setFlags(flagValues) {
      const from = log.all.length;
      turn += 1;
      writeFileSync(join(directory, 'flags.json.new'), flagsText({ ...flagValues, 'test-turn': turn }));
      renameSync(join(directory, 'flags.json.new'), join(directory, 'flags.json'));
      await log.until((line) => line['audit'] === 'flags.changed', from);
    },
    readFile: (name) => readFileSync(join(directory, name), 'utf8'),
    metrics: async () => await bridge.metrics.registry.metrics(),
    async close() {
      record(await world.metrics());
      await closeServer(server);
      await bridge.close();
      await store.close();
      await legacy.close();
      await removeKeys(`${keyPrefix}*`);
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return world;
}

function baseConfig(redisUrl: string, storeUrl: string, keyPrefix: string): ConfigInput {
  return {
    issuer: ISSUER,
    audience: [AUDIENCE],
    fleetSecretFile: 'fleet-secret',
    redis: { url: redisUrl, keyPrefix },
    sessions: [
      {
        name: 'web',
        cookie: 'koa.sess',
        secretsFile: 'session-secrets',
        redis: { url: storeUrl },
        principal: { subject: 'user.id', tenant: 'user.tenant', roles: 'user.roles', scope: 'user.scope', authTime: 'user.loggedInAt' },
      },
    ],
    tokens: { expiryJitter: 0 },
    rollout: { flags: { file: 'flags.json' } },
    clients: [
      { id: 'web', origins: [ORIGIN], refreshTransport: 'cookie', exchanges: true, wayBack: true },
      { id: 'ios', exchanges: true, minVersion: '4.2.0', match: { userAgent: 'AcmeiOS/*' } },
      { id: 'kiosk', origins: ['https://kiosk.example.com'] },
    ],
    services: [{ id: 'orders', audience: 'https://orders.internal' }],
  };
}

function flagsText(flagValues: Record<string, unknown>): string {
  return JSON.stringify({ flagValues });
}

/** The bridge's own keys of one world: the Redis may be the user's. */
async function removeKeys(pattern: string): Promise<void> {
  const redis = new Redis(sharedRedisUrl());
  await Promise.all((await redis.keys(pattern)).map((key) => redis.del(key)));
  redis.disconnect();
}
