import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { inject } from 'vitest';
import { type LegacyApp, PEOPLE, startLegacyApp } from '../../scripts/lib/legacy-app.js';
import { startTcpProxy, type TcpProxy } from '../../scripts/lib/tcp-proxy.js';
import type { ConfigInput } from '../../src/config/config.js';
import { type Instance, type InstanceOptions, startInstance } from './instance.js';
import { writeKey } from './keys.js';
import { remember, rememberCookie, rememberToken } from './transcript.js';

export const ORIGIN = 'https://app.example.com';
export const ISSUER = 'https://app.example.com';
export const AUDIENCE = 'https://api.example.com';

/** Secrets of the confidential clients. */
export const CLIENT_SECRETS = {
  'orders-api': 'the-secret-of-orders-api-2f6cbd1e6b7b4d7e',
  login: 'the-secret-of-login-9a1f0be27cd64c55',
} as const;

export interface WorldOptions extends InstanceOptions {
  /** Changes the config before the bridge starts. */
  readonly configure?: (config: ConfigInput) => ConfigInput;
  /** Redis as the bridge sees it for keys of its own. Default: the run's. */
  readonly redisUrl?: string;
  /** What the flag gives to everybody. Default: dual. */
  readonly stage?: string;
  /** Prepares the files before the bridge starts. */
  readonly prepare?: (directory: string) => void;
}

/** A legacy app that logs people in, and a Koa app with the bridge in front of its handlers. */
export interface World extends Instance {
  readonly directory: string;
  readonly config: ConfigInput;
  readonly legacy: LegacyApp;
  /** The legacy app's cookie secrets. */
  readonly secrets: readonly string[];
  /** What the bridge's own keys start with. */
  readonly prefix: string;
  /** What stands between the bridge and the records, so that it can be taken away, and asked whether anything was read. */
  readonly store: TcpProxy;
  /** Starts another instance of the same fleet: same config, same Redis. Closed with the world. */
  another(options?: InstanceOptions & { readonly configure?: (config: ConfigInput) => ConfigInput }): Promise<Instance>;
  /** Logs somebody in at the legacy app; the cookie is remembered as a secret. */
  login(name: string): Promise<string>;
  /** The browser form of the exchange, from the client's own origin. */
  exchange(cookie: string, form?: Record<string, string>, headers?: Record<string, string>): Promise<Response>;
  /** Runs `ask` and says whether anything was read from the store and whether a handler was reached. */
  watching<T>(ask: () => Promise<T>): Promise<{ result: T; storeReached: boolean; handlerReached: boolean; issued: number }>;
  /** The access token of an exchange that must succeed. */
  token(cookie: string, form?: Record<string, string>): Promise<string>;
  /** Replaces the flags file and waits until every instance has read it. */
  setFlags(flagValues: Record<string, unknown>): Promise<void>;
  /** A file of the world's directory. */
  readFile(name: string): string;
  /** Changes a record as it stands in Redis, by default that of the last login. It keeps its life. */
  editRecord(change: (record: LegacyRecord) => void, key?: string): Promise<void>;
}

/** What koa-session keeps of a login at the legacy app. */
export interface LegacyRecord {
  user: { id: string; tenant: string; roles: string[]; scope: string[]; loggedInAt: number };
  _expire: number;
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
  const clients = clientsOf(directory);
  if (!options.prepare) writeKey(join(directory, 'keys'), 'first.pem');
  options.prepare?.(directory);

  const store = await startTcpProxy(options.legacy?.redisUrl ?? sharedRedisUrl());
  const plain = baseConfig(options.redisUrl ?? sharedRedisUrl(), store.url, keyPrefix, clients);
  const config = options.configure?.(plain) ?? plain;
  const app = { secrets, redis: legacy.redis };
  const first = await startInstance(config, directory, app, options);
  const others: Instance[] = [];
  // Makes every flags file another one, so that there is a change to wait for.
  let turn = 0;

  const world: World = {
    ...first,
    directory,
    config,
    legacy,
    secrets,
    prefix: `${keyPrefix}v1:`,
    store,
    async another({ configure, ...changed } = {}) {
      const instance = await startInstance(configure?.(config) ?? config, directory, app, { ...options, ...changed });
      others.push(instance);
      return instance;
    },
    async watching(ask) {
      const before = { sent: store.sentBytes, reached: first.reached(), issued: first.log.audits('exchange.granted').length };
      const result = await ask();
      return {
        result,
        storeReached: store.sentBytes !== before.sent,
        handlerReached: first.reached() !== before.reached,
        issued: first.log.audits('exchange.granted').length - before.issued,
      };
    },
    async login(name) {
      const cookie = await legacy.login(name);
      rememberCookie(cookie);
      return cookie;
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
      const instances = [first, ...others].map(({ log }) => ({ log, from: log.all.length }));
      turn += 1;
      writeFileSync(join(directory, 'flags.json.new'), flagsText({ ...flagValues, 'test-turn': turn }));
      renameSync(join(directory, 'flags.json.new'), join(directory, 'flags.json'));
      await Promise.all(instances.map(async ({ log, from }) => await log.until((line) => line['audit'] === 'flags.changed', from)));
    },
    async editRecord(change, key = legacy.keys.at(-1) ?? '') {
      const record: LegacyRecord = JSON.parse((await legacy.redis.get(key)) ?? '');
      change(record);
      await legacy.redis.set(key, JSON.stringify(record), 'KEEPTTL');
    },
    readFile: (name) => readFileSync(join(directory, name), 'utf8'),
    async close() {
      for (const instance of [...others, first]) await instance.close();
      await store.close();
      await legacy.close();
      await removeKeys(`${keyPrefix}*`);
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return world;
}

function baseConfig(redisUrl: string, storeUrl: string, keyPrefix: string, clients: NonNullable<ConfigInput['clients']>): ConfigInput {
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
    // Every test fails from the same address.
    limits: { failuresPerAddressPerMinute: 1_000_000 },
    rollout: { flags: { file: 'flags.json' } },
    clients,
    services: [{ id: 'orders', audience: 'https://orders.internal' }],
  };
}

const CLIENTS: NonNullable<ConfigInput['clients']> = [
  { id: 'web', origins: [ORIGIN], refreshTransport: 'cookie', exchanges: true, wayBack: true },
  { id: 'ios', exchanges: true, minVersion: '4.2.0', match: { userAgent: 'AcmeiOS/*' } },
  { id: 'android', exchanges: true, wayBack: true },
  { id: 'kiosk', origins: ['https://kiosk.example.com'] },
  { id: 'orders-api', type: 'confidential', secretHashFile: 'orders-api.sha256', introspect: true },
  { id: 'login', type: 'confidential', secretHashFile: 'login.sha256', issue: true },
];

/** The clients of every world, with the files that their secrets need. */
export function clientsOf(directory: string): NonNullable<ConfigInput['clients']> {
  for (const [id, secret] of Object.entries(CLIENT_SECRETS))
    writeFileSync(join(directory, `${id}.sha256`), createHash('sha256').update(secret).digest('hex'));
  remember(...Object.values(CLIENT_SECRETS));
  return CLIENTS;
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
