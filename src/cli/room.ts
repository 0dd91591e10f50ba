import { type Clock, systemClock } from '../clock.js';
import type { RedisTarget } from '../config/config.js';
import { loadConfig } from '../config/load.js';
import type { CeilingSource } from '../console/ceilings.js';
import { type Control, createControl } from '../control.js';
import { CrossfadeError } from '../errors.js';
import { Connections, createLifecycle, type Lifecycle, systemRandom } from '../lifecycle.js';
import { connectRedis, type RedisConnection } from '../redis/connection.js';
import { type Audit, createAudit } from '../telemetry/audit.js';
import { createLog } from '../telemetry/log.js';
import { createMetrics, type Metrics } from '../telemetry/metrics.js';

/** What commands have that go to Redis themselves, so that they work whether or not an instance answers. */
export interface Room extends CeilingSource {
  readonly control: Control;
  readonly lifecycle: Lifecycle;
  readonly connections: Connections;
  readonly clock: Clock;
  /** To standard error: what a person did from here. */
  readonly audit: Audit;
  readonly metrics: Metrics;
}

/** A connection of a command's own, which says nothing by itself: the command does. */
export function connectQuietly(target: RedisTarget, options: { readonly name: string; readonly commandTimeoutMs: number }): RedisConnection {
  return connectRedis(target, { ...options, probeKey: 'crossfade-readiness', log: createLog({ level: 'silent' }), metrics: createMetrics() });
}

/** How long Redis may take to answer at first. */
const REDIS_START_MS = 3000;

/** @throws {Error} in words for an operator where Redis does not answer. */
export async function withRoom<T>(path: string, work: (room: Room) => Promise<T>): Promise<T> {
  const config = await loadConfig(path);
  const quiet = createLog({ level: 'silent' });
  const audit = createAudit(createLog({ destination: process.stderr }));
  const metrics = createMetrics();
  const connections = new Connections(config, quiet, metrics);
  await connections.ready(REDIS_START_MS);
  const { own } = connections;
  let begun = false;
  // The machine of an operator may have any time: what counts is that of Redis.
  let offMs = 0;
  const clock: Clock = { now: () => systemClock.now() - offMs };
  const lifecycle = createLifecycle({ config, connections, random: systemRandom, clock, log: quiet, audit, metrics });
  const control = createControl({ config, client: own.client, fleetNowMs: () => clock.now(), audit, metrics });
  try {
    offMs = systemClock.now() - (await own.nowMs());
    begun = true;
    return await work({
      config,
      control,
      client: own.client,
      lifecycle,
      connections,
      clock,
      audit,
      metrics,
      nowMs: async () => await own.nowMs(),
      tell: async () => await lifecycle.events.tell('clamps'),
    });
  } catch (error) {
    const away = own.client.status !== 'ready' || (error instanceof CrossfadeError && error.code === 'temporarily_unavailable');
    if (away && begun) throw new Error('Redis does not answer: it may be half done. Run the same again.');
    if (away) throw new Error(`Redis does not answer${own.problem() === undefined ? '' : ` (${own.problem()})`}: nothing was done.`);
    throw error;
  } finally {
    lifecycle.close();
    connections.close();
  }
}
