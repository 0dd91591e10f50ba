import type { Bed } from './bed.js';
import { type Load, sendLoad } from './load.js';
import type { Measure } from './rows.js';

/** What one round of a measure gave. */
export interface Sample {
  readonly perSecond: number;
  /** CPU time of the measured process, all threads, in µs a request. */
  readonly cpuMicros: number;
  readonly commandsPerRequest: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** @throws where the app or the workload is not to be had, or an answer is not the one that is measured. */
export async function sample(bed: Bed, measure: Measure, seconds: number): Promise<Sample> {
  const app = await bed.app(measure.app);
  const workload = await bed.workload(measure.workload);
  const texts = 'successor' in workload ? { texts: await bed.refreshTokens(measure) } : {};
  const [usedBefore, commandsBefore] = [await app.usage(), await bed.commands()];
  const load: Load = await sendLoad({ ...workload, ...texts }, app.port, seconds, bed.directory);
  const [used, commands] = [await app.usage(), await bed.commands()];
  return {
    perSecond: load.requests / load.seconds,
    cpuMicros: (used.cpuMicros - usedBefore.cpuMicros) / load.requests,
    commandsPerRequest: (commands - commandsBefore) / load.requests,
    p50Ms: load.p50Ms,
    p99Ms: load.p99Ms,
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? Number.NaN) : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}

/** How far the middle half of some values lies apart, as a share of their median. */
export function spread(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))] ?? Number.NaN;
  return (at(0.75) - at(0.25)) / median(values);
}
