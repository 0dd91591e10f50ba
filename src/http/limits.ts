import type { Context } from 'koa';
import { RateLimiterMemory, RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import type { Config } from '../config/config.js';
import { CrossfadeError } from '../errors.js';
import type { RedisClient } from '../redis/client.js';
import type { Tools } from '../telemetry/tools.js';
import type { Peers } from './peer.js';

/**
 * Limits per minute, counted in Redis for all instances, and in memory while Redis is away. What succeeds is counted by
 * session or family, what fails by address, and only what fails is refused by address: an office behind one address is not
 * locked out by one of its machines.
 */
export interface Limits {
  /** Counts a success. @throws {CrossfadeError} `too_many_requests`. */
  count(what: 'exchange' | 'refresh', id: string): Promise<void>;
  /** Refuses where one more would be too many; counts nothing. @throws {CrossfadeError} `too_many_requests`. */
  check(what: 'exchange' | 'refresh', id: string): Promise<void>;
  /** What a failed request is answered with: its own error, or `too_many_requests` where its address has failed too often. */
  failed(ctx: Context, error: CrossfadeError): Promise<CrossfadeError>;
}

export interface LimitsOptions extends Pick<Tools, 'audit' | 'metrics'> {
  readonly client: RedisClient;
  readonly prefix: string;
  readonly config: Config['limits'];
  readonly peers: Peers;
}

const MINUTE = 60;

export function createLimits({ client, prefix, config, peers, audit, metrics }: LimitsOptions): Limits {
  const create = (name: string, points: number) => {
    const options = { keyPrefix: `${prefix}limit:${name}`, points, duration: MINUTE };
    return new RateLimiterRedis({
      ...options,
      storeClient: client,
      rejectIfRedisNotReady: true,
      insuranceLimiter: new RateLimiterMemory(options),
    });
  };
  const successes = {
    exchange: create('exchange', config.exchangePerSessionPerMinute),
    refresh: create('refresh', config.exchangePerSessionPerMinute),
  };
  const failures = create('address', config.failuresPerAddressPerMinute);

  function tooMany(by: string, { msBeforeNext }: RateLimiterRes): CrossfadeError {
    metrics.limited.inc({ by });
    audit('limit.reached', { by });
    return new CrossfadeError('too_many_requests', { headers: { 'Retry-After': String(Math.max(1, Math.ceil(msBeforeNext / 1000))) } });
  }

  return {
    async count(what, id) {
      await successes[what].consume(id).catch((thrown: unknown) => {
        if (thrown instanceof RateLimiterRes) throw tooMany(what, thrown);
      });
    },
    async check(what, id) {
      const found = await successes[what].get(id).catch(() => null);
      if (found && found.remainingPoints <= 0) throw tooMany(what, found);
    },
    async failed(ctx, error) {
      if (!isFailure(error)) return error;
      return await failures.consume(peers.addressOf(ctx.req)).then(
        () => error,
        (thrown: unknown) => (thrown instanceof RateLimiterRes ? tooMany('address', thrown) : error),
      );
    },
  };
}

/** What a client did wrong. What the stage refuses, and what the bridge cannot answer, is no failure of a client's. */
function isFailure({ status, code, details }: CrossfadeError): boolean {
  return status >= 400 && status < 500 && code !== 'too_many_requests' && details['stage'] === undefined;
}
