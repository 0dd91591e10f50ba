import { Cluster, Redis } from 'ioredis';
import type { RedisTarget } from '../config/config.js';
import { describeError, type Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';
import { type BatchedReads, createBatchedReads } from './batched-reads.js';

/** The commands that Crossfade uses, on a single server, behind Sentinel, or on a Cluster. */
export type RedisClient = Redis | Cluster;

export interface RedisConnection {
  readonly client: RedisClient;
  readonly reads: BatchedReads;
  /** Resolves when the connection is ready, or after `timeoutMs`; never rejects. True: it is ready. */
  ready(timeoutMs: number): Promise<boolean>;
  /** Whether a key can be read right now: a Cluster that is down answers PING all the same. Never rejects. */
  answersReads(): Promise<boolean>;
  /** The time by Redis' own clock, in ms. Rejects with what ioredis rejects with. */
  nowMs(): Promise<number>;
  /** Why it is not ready, as far as Redis or the network said. */
  problem(): string | undefined;
  close(): void;
}

export interface RedisConnectionOptions {
  /** What it is called in logs and metrics. */
  readonly name: string;
  readonly commandTimeoutMs: number;
  /** A key that need not exist, among those that this user may read. */
  readonly probeKey: string;
  readonly log: Log;
  readonly metrics: Metrics;
}

/**
 * Connects for an auth path. ioredis' defaults would hold a request for 73 s while Redis is away; here a command fails at
 * once where there is no connection, and within `commandTimeoutMs` where Redis is silent. A connection over which
 * nothing comes back is given up and made anew.
 */
export function connectRedis(target: RedisTarget, { name, commandTimeoutMs, probeKey, log, metrics }: RedisConnectionOptions): RedisConnection {
  const client = createClient(target, commandTimeoutMs);

  const up = metrics.redisUp.labels(name);
  up.set(0);
  let closing = false;
  let state: 'starting' | 'up' | 'away' = 'starting';
  client.on('ready', () => {
    up.set(1);
    log.info({ connection: name }, state === 'away' ? 'redis is back' : 'redis is ready');
    state = 'up';
  });
  const lost = (error?: Error) => {
    up.set(0);
    if (state !== 'away' && !closing) log.error({ connection: name, ...(error ? { err: error } : {}) }, 'redis is away; trying again');
    state = 'away';
  };
  let problem: string | undefined;
  client.on('error', (error: Error) => {
    const { message, code } = describeError(error);
    problem = code ?? message;
    if (client.status !== 'ready') lost(error);
  });
  client.on('close', () => lost());
  client.connect().catch(() => undefined); // Told by the error event, and tried again.

  return {
    client,
    reads: createBatchedReads(client),
    async ready(timeoutMs) {
      if (client.status === 'ready') return true;
      return await new Promise<boolean>((resolve) => {
        const timer = setTimeout(settle, timeoutMs, false);
        const onReady = () => settle(true);
        client.once('ready', onReady);
        function settle(isReady: boolean) {
          clearTimeout(timer);
          client.off('ready', onReady);
          resolve(isReady);
        }
      });
    },
    async answersReads() {
      return await client.get(probeKey).then(
        () => true,
        () => false,
      );
    },
    async nowMs() {
      const [node] = client instanceof Cluster ? client.nodes('master') : [client];
      if (!node) throw new Error('the Redis Cluster has no master');
      const [seconds, micros] = (await node.time()).map(Number);
      return (seconds ?? 0) * 1000 + Math.floor((micros ?? 0) / 1000);
    },
    problem: () => problem,
    close() {
      closing = true;
      client.disconnect();
    },
  };
}

function createClient(target: RedisTarget, commandTimeoutMs: number): RedisClient {
  const options = {
    maxRetriesPerRequest: 0,
    commandTimeout: commandTimeoutMs,
    disconnectTimeout: 100,
    connectTimeout: Math.max(commandTimeoutMs, 1000),
    socketTimeout: commandTimeoutMs * 4,
    ...(target.username ? { username: target.username } : {}),
    ...(target.password ? { password: target.password.reveal() } : {}),
    ...(target.tls ? { tls: target.tls === true ? {} : { ca: target.tls.ca } } : {}),
  };
  if (target.cluster) {
    return new Cluster([...target.cluster], {
      lazyConnect: true,
      enableOfflineQueue: false,
      clusterRetryStrategy: reconnectDelay,
      redisOptions: options,
    });
  }
  const single = { ...options, lazyConnect: true, enableOfflineQueue: false, retryStrategy: reconnectDelay };
  if (target.sentinels) {
    return new Redis({
      ...single,
      sentinels: [...target.sentinels],
      sentinelRetryStrategy: reconnectDelay,
      ...(target.name ? { name: target.name } : {}),
    });
  }
  return new Redis(target.url?.reveal() ?? '', single);
}

/** Soon at first, then twice a second: a restarted Redis is found again before clients have spent their retries. */
function reconnectDelay(attempt: number): number {
  return Math.min(25 * 2 ** Math.min(attempt, 6), 500);
}
