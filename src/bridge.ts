import { randomBytes } from 'node:crypto';
import type { Middleware } from 'koa';
import type { LDClient } from 'launchdarkly-node-server-sdk';
import { type Clock, systemClock } from './clock.js';
import { type Config, ConfigError, type ConfigInput, type RedisTarget, type SessionConfig } from './config/config.js';
import { unmappedSessions } from './config/cross-checks.js';
import { isResolved, resolveConfig } from './config/load.js';
import { deriveKey } from './config/secret.js';
import type { Readiness } from './http/admin.js';
import { createAnswers } from './http/answer.js';
import { createAuthenticate } from './http/authenticate.js';
import { createAuthenticator } from './http/authenticator.js';
import { createPeers } from './http/peer.js';
import { createRequire, type RequireOptions } from './http/require.js';
import { createOwnPaths, createRoutes } from './http/routes.js';
import { createTokenEndpoint } from './http/token-endpoint.js';
import { createVerifyEndpoint } from './http/verify-endpoint.js';
import { createJwksEndpoint, createMetadataEndpoint, JWKS_PATH } from './http/well-known.js';
import { storedJwksSchema } from './keys/jwks.js';
import { type SigningReport, startSigning } from './keys/signing.js';
import { connectRedis, type RedisConnection } from './redis/connection.js';
import { SignedValue } from './redis/signed-value.js';
import { createClientRegistry } from './rollout/clients.js';
import { openFileFlagSource } from './rollout/flag-file.js';
import { flagSnapshotSchema } from './rollout/flag-store.js';
import { createFlags, type FlagSource, noFlags } from './rollout/flags.js';
import { openLaunchDarklySource, useLaunchDarklyClient } from './rollout/launchdarkly.js';
import { createRollout } from './rollout/rollout.js';
import { createKoaSessionFormat } from './sessions/koa-session.js';
import { createFunctionMapping, createPathMapping, type MappingFunction } from './sessions/mapping.js';
import { createSessionReader, type SessionEntry } from './sessions/reader.js';
import { createAudit } from './telemetry/audit.js';
import { createLog, type Log } from './telemetry/log.js';
import { createMetrics, type Metrics } from './telemetry/metrics.js';
import { createIssuer, type RandomSource } from './tokens/issue.js';
import { createProbe } from './tokens/probe.js';
import { createVerifier } from './tokens/verify.js';

export interface BridgeOptions {
  /** Stands in for `sessions[].principal`. */
  readonly principal?: MappingFunction;
  /** A LaunchDarkly client that the app already has, instead of `rollout.flags`. It stays the app's to close. */
  readonly launchdarkly?: LDClient;
  /** Default: pino on standard output, level `info`. */
  readonly log?: Log;
  /** Default: metrics of their own, at `bridge.metrics.registry`. */
  readonly metrics?: Metrics;
  readonly clock?: Clock;
}

/** Both credentials on one app: what `createBridge` gives. */
export interface Bridge {
  /** Middleware that puts the principal into `ctx.state.principal`, or answers 400, 401 or 503. */
  authenticate(): Middleware;
  /** Middleware for routes that need a principal, and a scope where one is named: 401, 403. */
  require(options?: RequireOptions): Middleware;
  /** Middleware that serves `/auth/*` and the well-known paths. */
  routes(): Middleware;
  readonly metrics: Metrics;
  /** What operators ask: keys, Redis, flags. Never throws. */
  readiness(): Promise<Readiness>;
  /** State of the signing keys. */
  signing(): SigningReport;
  /** Reads the key directory and tests every key now, instead of at the next change or interval. Never rejects. */
  reloadKeys(): Promise<void>;
  /** Ends watches and connections. Requests under way should have been answered before. */
  close(): Promise<void>;
}

/** How long the start waits for Redis before it goes on without. */
const REDIS_START_MS = 2000;

const systemRandom: RandomSource = {
  token: (bytes) => randomBytes(bytes).toString('base64url'),
  fraction: () => Math.random(),
};

/**
 * Config → a bridge: the one place where the parts meet. It comes up with broken keys, without Redis and without flags;
 * only a config that is wrong in itself stops it.
 * @throws {ConfigError} with every problem and its path.
 */
export async function createBridge(input: Config | ConfigInput, options: BridgeOptions = {}): Promise<Bridge> {
  const config = isResolved(input) ? input : resolveConfig(input);
  const unmapped = options.principal ? [] : unmappedSessions(config);
  if (unmapped.length > 0) throw new ConfigError('config', unmapped);
  const { clock = systemClock, log = createLog(), metrics = createMetrics() } = options;
  const audit = createAudit(log);

  const connections = connectAll(config, log, metrics);
  await Promise.all([...connections.values()].map((connection) => connection.ready(REDIS_START_MS)));
  const own = connectionFor(connections, config.redis);
  const stored = { client: own.client, macKey: deriveKey(config.fleetSecret, 'mac'), audit, metrics };
  const keyOf = (name: string) => `${config.redis.keyPrefix}v1:${name}`;

  const issueAccessToken = createIssuer({
    issuer: config.issuer,
    accessTtlSeconds: config.tokens.accessTtlSeconds,
    expiryJitter: config.tokens.expiryJitter,
    clock,
    random: systemRandom,
  });
  const policy = { issuer: config.issuer, audience: config.audience, clockSkewSeconds: config.tokens.clockSkewSeconds };
  const signing = await startSigning({
    config: config.keys,
    longestLifeSeconds: config.tokens.accessTtlSeconds,
    stored: new SignedValue({ ...stored, name: 'jwks', key: keyOf('jwks'), schema: storedJwksSchema }),
    probe: createProbe(policy, issueAccessToken, clock),
    fleetNowMs: () => own.nowMs(),
    log,
    audit,
    metrics,
  });
  const verifyBearer = createVerifier(policy, signing.ring, clock);

  const source = await openFlagSource(config, options.launchdarkly, {
    stored: new SignedValue({ ...stored, name: 'flags', key: keyOf('flags'), schema: flagSnapshotSchema }),
    log,
    audit,
    metrics,
  });
  const flags = createFlags({ config: config.rollout, source, subjectKey: deriveKey(config.fleetSecret, 'subject'), log, metrics });
  const clients = createClientRegistry(config.clients, config.rollout.cohorts);
  const rollout = createRollout({ config: config.rollout, flags, clients, canSign: () => signing.report().canSign, nowMs: () => clock.now() });

  const sessions = createSessionReader(
    config.sessions.map((session) => toSessionEntry(session, config, connections, options.principal)),
    clock,
  );

  const peers = createPeers(config.http.trustProxy);
  const answers = createAnswers({ log, metrics, fraction: systemRandom.fraction, nowMs: () => clock.now() });
  const root = config.issuer.replace(/\/$/, '');
  const exchangeUri = `${root}${config.http.basePath}/token`;
  const authenticate = createAuthenticator({
    sessions,
    verifyBearer,
    foreignBearer: config.bearer.foreign,
    rollout,
    clients,
    peers,
    exchangeUri,
    audit,
    metrics,
  });
  const token = createTokenEndpoint({
    audience: config.audience,
    services: config.services,
    sessions,
    verifyBearer,
    foreignBearer: config.bearer.foreign,
    clients,
    peers,
    rollout,
    signingKey: () => signing.signingKey(),
    issueAccessToken,
    clock,
    audit,
    metrics,
  });

  return {
    authenticate: () => createAuthenticate({ authenticate, answers, rollout, metrics, exchangeUri, isOwnPath: createOwnPaths(config.http.basePath) }),
    require: (required) => createRequire(answers, required),
    routes: () =>
      createRoutes({
        basePath: config.http.basePath,
        origins: clients.origins,
        answers,
        token,
        verify: createVerifyEndpoint({ authenticate, answers, anonymous: config.verify.anonymous, rollout, metrics, exchangeUri }),
        jwks: createJwksEndpoint(() => signing.ring.jwks, config.keys.jwksMaxAgeSeconds),
        metadata: createMetadataEndpoint({ issuer: config.issuer, tokenEndpoint: exchangeUri, jwksUri: `${root}${JWKS_PATH}` }),
      }),
    metrics,
    async readiness() {
      const records = new Set(config.sessions.map((session) => connectionFor(connections, session.redis ?? config.redis)));
      const [ownUp, ...recordsUp] = await Promise.all([own, ...records].map((connection) => connection.answersReads()));
      const ready = recordsUp.every(Boolean);
      const { state, canSign } = signing.report();
      return {
        ready,
        canIssue: ready && canSign,
        parts: { redis: ownUp ? 'up' : 'away', records: ready ? 'up' : 'away', signing: state, flags: source.state },
      };
    },
    signing: () => signing.report(),
    reloadKeys: () => signing.reload(),
    async close() {
      await signing.close();
      await source.close();
      for (const connection of connections.values()) connection.close();
    },
  };
}

/** One connection for each Redis that the config names; entries that name the same one share it. */
function connectAll(config: Config, log: Log, metrics: Metrics): Map<RedisTarget, RedisConnection> {
  const { commandTimeoutMs } = config.redis;
  const connections = new Map<RedisTarget, RedisConnection>();
  connections.set(config.redis, connectRedis(config.redis, { name: 'bridge', commandTimeoutMs, log, metrics }));
  for (const { name, redis } of config.sessions) {
    if (redis) connections.set(redis, connectRedis(redis, { name, commandTimeoutMs, log, metrics }));
  }
  return connections;
}

function connectionFor(connections: ReadonlyMap<RedisTarget, RedisConnection>, target: RedisTarget): RedisConnection {
  const connection = connections.get(target);
  if (!connection) throw new Error('no connection was made for a configured Redis');
  return connection;
}

function toSessionEntry(
  session: SessionConfig,
  config: Config,
  connections: ReadonlyMap<RedisTarget, RedisConnection>,
  map: MappingFunction | undefined,
): SessionEntry {
  return {
    name: session.name,
    format: createKoaSessionFormat({ ...session, reservedPrefix: config.redis.keyPrefix }),
    mapping: map || !session.principal ? createFunctionMapping(map ?? (() => null), session.name) : createPathMapping(session.principal),
    client: connectionFor(connections, session.redis ?? config.redis).client,
    limits: session,
  };
}

async function openFlagSource(
  config: Config,
  existing: LDClient | undefined,
  options: Omit<Parameters<typeof openLaunchDarklySource>[0], 'config'>,
): Promise<FlagSource> {
  const { flags } = config.rollout;
  if (existing) return useLaunchDarklyClient(existing, options);
  if (flags?.launchdarkly) return await openLaunchDarklySource({ ...options, config: flags.launchdarkly });
  if (flags?.file !== undefined) return await openFileFlagSource({ ...options, path: flags.file });
  options.metrics.flagsUp.set(1);
  return noFlags;
}
