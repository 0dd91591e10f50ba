import type { Tools } from '../telemetry/tools.js';
import { REDIS_STATES } from './faults.js';

/** What a connection has come to. */
export interface ToldState {
  /** `up`, `away`, or what Redis calls the reason for which it cannot be used. */
  readonly state: string;
  readonly canWrite: boolean;
  /** Servers that have a fault. */
  readonly wrong: readonly string[];
  /** Why the connection failed, in words. */
  readonly failure: string | undefined;
  readonly problems: () => readonly string[];
}

/** How often the log says again that a state lasts. */
const TELL_AGAIN_MS = 60_000;

/** In the metrics; in the log each change of the state, and other words for it once in a while. */
export function createStateTeller({ name, log, metrics }: { readonly name: string } & Pick<Tools, 'log' | 'metrics'>) {
  let told: string | undefined;
  let toldAt = Number.NEGATIVE_INFINITY;
  metrics.redisUp.labels(name).set(0);
  return {
    report({ state, canWrite, wrong, failure, problems }: ToldState): void {
      metrics.redisUp.labels(name).set(canWrite ? 1 : 0);
      for (const known of REDIS_STATES) metrics.redisState.set({ connection: name, state: known }, known === state ? 1 : 0);
      const now = performance.now();
      // The cause may come a moment after the connection is lost.
      const next = [state, ...wrong, ...(state === 'away' && failure !== undefined ? ['known'] : [])].join(' ');
      if (next === told && (next === 'up' || now - toldAt < TELL_AGAIN_MS)) return;
      const isFirst = told === undefined;
      told = next;
      toldAt = now;
      if (next === 'up') log.info({ connection: name }, isFirst ? 'redis is ready' : 'redis is back');
      else if (state === 'away') log.error({ connection: name, ...(failure === undefined ? {} : { why: failure }) }, 'redis is away; trying again');
      else if (state === 'up') log.error({ connection: name, why: problems().join('; ') }, 'a part of the Redis Cluster cannot be used');
      else log.error({ connection: name, state, why: problems().join('; ') }, 'redis answers and cannot be used');
    },
  };
}
