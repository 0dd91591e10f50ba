import type { Config, RedisTarget, SessionConfig } from '../config/config.js';
import type { LiveFiles } from '../config/live-files.js';
import type { Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { RedisConnection } from './connection.js';
import { ownProbeKey, recordsProbeKey } from './probe.js';
import { connectRedis } from './probed-connection.js';

/** How long a read of the event stream waits for news. */
export const BLOCK_MS = 1000;

/** One connection for each Redis that the config names; entries that name the same one share it. */
export class Connections {
  readonly #byTarget = new Map<RedisTarget, RedisConnection>();
  readonly own: RedisConnection;
  /** Of its own for the event stream: a blocking read holds it. */
  readonly follower: RedisConnection;
  readonly #config: Pick<Config, 'redis' | 'sessions'>;

  /** `files`: where credentials are looked up again when they change. */
  constructor(config: Pick<Config, 'redis' | 'sessions'>, files: LiveFiles, log: Log, metrics: Metrics) {
    this.#config = config;
    const { commandTimeoutMs, keyPrefix } = config.redis;
    const own = { probe: 'write', probeKey: ownProbeKey(keyPrefix), log, metrics } as const;
    const access = files.follow({ at: 'redis', files: config.redis.files, initial: config.redis.access, read: config.redis.readAccess });
    const onRefusedAccess = () => access.reread();
    this.own = connectRedis(config.redis, { ...own, name: 'bridge', commandTimeoutMs, onRefusedAccess });
    const followerTimeoutMs = commandTimeoutMs + BLOCK_MS;
    this.follower = connectRedis(config.redis, { ...own, name: 'events', commandTimeoutMs: followerTimeoutMs, probeAgain: false, onRefusedAccess });
    // What one of them hears of a failover holds for the other.
    this.own.onLost(() => this.follower.reconnect());
    for (const connection of [this.own, this.follower]) access.onChange((changed) => void connection.setAccess(changed));
    this.#byTarget.set(config.redis, this.own);
    config.sessions.forEach((session, index) => {
      const { name, redis } = session;
      if (!redis) return;
      const its = files.follow({ at: `sessions[${index}].redis`, files: redis.files, initial: redis.access, read: redis.readAccess });
      const probeKey = recordsProbeKey(session.keyPrefix);
      const onRefused = () => its.reread();
      const connection = connectRedis(redis, { name, commandTimeoutMs, probe: 'role', probeKey, onRefusedAccess: onRefused, log, metrics });
      its.onChange((changed) => void connection.setAccess(changed));
      this.#byTarget.set(redis, connection);
    });
  }

  /** Where the records of an entry are. */
  connectionFor({ redis }: Pick<SessionConfig, 'redis'>): RedisConnection {
    return this.#byTarget.get(redis ?? this.#config.redis) ?? this.own;
  }

  /** Those that hold records, each once. */
  get ofRecords(): ReadonlySet<RedisConnection> {
    return new Set(this.#config.sessions.filter(({ http }) => !http).map((session) => this.connectionFor(session)));
  }

  /** What a connection is called in logs and metrics. */
  nameOf(connection: RedisConnection): string {
    return connection === this.own
      ? 'bridge'
      : (this.#config.sessions.find((session) => this.connectionFor(session) === connection)?.name ?? 'records');
  }

  /** For an operator, a sentence for each server that cannot be used. */
  get problems(): readonly string[] {
    return [...new Set([...this.#byTarget.values(), this.follower].flatMap(({ problems }) => problems))];
  }

  async ready(timeoutMs: number): Promise<void> {
    await Promise.all([...this.#byTarget.values(), this.follower].map((connection) => connection.ready(timeoutMs)));
  }

  close(): void {
    for (const connection of this.#byTarget.values()) connection.close();
    this.follower.close();
  }
}
