import { RateLimiterMemory, RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import type { Config } from '../config/config.js';
import { CrossfadeError } from '../errors.js';
import type { RedisClient } from '../redis/client.js';
import type { Tools } from '../telemetry/tools.js';

/** Limits per minute, counted in Redis for all instances, and in memory while Redis is away. What succeeds is counted by session or family. */
export interface Limits {
  /** Counts a success. @throws {CrossfadeError} `too_many_requests`. */
  count(what: 'exchange' | 'refresh', id: string): Promise<void>;
  /** Refuses where one more would be too many; counts nothing. @throws {CrossfadeError} `too_many_requests`. */
  check(what: 'exchange' | 'refresh', id: string): Promise<void>;
}

export interface LimitsOptions extends Pick<Tools, 'audit' | 'metrics'> {
  readonly client: RedisClient;
  readonly prefix: string;
  readonly config: Config['limits'];
}

const MINUTE = 60;

export function createLimits({ config, ...options }: LimitsOptions): Limits {
  const limiters = {
    exchange: createLimiter(options, 'exchange', config.exchangePerSessionPerMinute),
    refresh: createLimiter(options, 'refresh', config.exchangePerSessionPerMinute),
  };
  return {
    async count(what, id) {
      const tooMany = await limiters[what].consume(id);
      if (tooMany) throw tooMany;
    },
    async check(what, id) {
      const tooMany = await limiters[what].look(id);
      if (tooMany) throw tooMany;
    },
  };
}

/** Counts by id, up to `points` a minute. Both give the error for one too many; a store that fails refuses nobody. */
interface Limiter {
  consume(id: string): Promise<CrossfadeError | undefined>;
  look(id: string): Promise<CrossfadeError | undefined>;
}

export function createLimiter({ client, prefix, audit, metrics }: Omit<LimitsOptions, 'config'>, name: string, points: number): Limiter {
  const options = { keyPrefix: `${prefix}limit:${name}`, points, duration: MINUTE };
  const limiter = new RateLimiterRedis({
    ...options,
    storeClient: client,
    rejectIfRedisNotReady: true,
    insuranceLimiter: new RateLimiterMemory(options),
  });

  function tooMany({ msBeforeNext }: RateLimiterRes): CrossfadeError {
    metrics.limited.inc({ by: name });
    audit('limit.reached', { by: name });
    return new CrossfadeError('too_many_requests', { headers: { 'Retry-After': String(Math.max(1, Math.ceil(msBeforeNext / 1000))) } });
  }

  return {
    consume: async (id) =>
      await limiter.consume(id).then(
        () => undefined,
        (thrown: unknown) => (thrown instanceof RateLimiterRes ? tooMany(thrown) : undefined),
      ),
    async look(id) {
      const found = await limiter.get(id).catch(() => null);
      return found && found.remainingPoints <= 0 ? tooMany(found) : undefined;
    },
  };
}
