import type { Counter, Histogram } from 'prom-client';
import type { Metrics } from './metrics.js';

/** How an instance fares, of the last minutes. */
export interface Lately {
  /** Those that were authenticated, and exchanges and refreshes. */
  readonly requests: number;
  /** Answered 503. */
  readonly unavailable: number;
  /** Failed by the bridge's own fault after authentication. */
  readonly faults: number;
  /** Half of the exchanges and refreshes, and 99 of 100, were answered within these ms. */
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const WINDOW_MS = 300_000;

interface Snapshot {
  readonly at: number;
  readonly requests: number;
  readonly unavailable: number;
  readonly faults: number;
  /** Requests up to each bound, in ms. */
  readonly buckets: readonly (readonly [boundMs: number, count: number])[];
}

/** Looks at the metrics of this instance every few seconds, so that releases can be compared while two run side by side. */
export interface LatelyWatch {
  /** Takes the figures as they are now. Never rejects. */
  look(): Promise<void>;
  /** Undefined: nothing came. */
  readonly now: Lately | undefined;
}

export function watchLately(metrics: Pick<Metrics, 'requests' | 'unavailable' | 'ownFaults' | 'grantSeconds'>, nowMs: () => number): LatelyWatch {
  let snapshots: readonly Snapshot[] = [];

  return {
    async look() {
      const at = nowMs();
      const taken = {
        at,
        requests: metrics.requests.total + (await countOf(metrics.grantSeconds)),
        unavailable: await sumOf(metrics.unavailable),
        faults: await sumOf(metrics.ownFaults),
        buckets: await bucketsOf(metrics.grantSeconds),
      };
      snapshots = [...snapshots.filter((one) => at - one.at <= WINDOW_MS), taken];
    },

    get now() {
      const [first, last] = [snapshots[0], snapshots.at(-1)];
      if (!first || !last) return undefined;
      const requests = last.requests - first.requests;
      const unavailable = last.unavailable - first.unavailable;
      const faults = last.faults - first.faults;
      if (requests + unavailable + faults === 0) return undefined;
      const buckets = last.buckets.map(([bound, count], index): [number, number] => [bound, count - (first.buckets[index]?.[1] ?? 0)]);
      return { requests, unavailable, faults, p50Ms: percentile(buckets, 0.5), p99Ms: percentile(buckets, 0.99) };
    },
  };
}

async function countOf(histogram: Histogram<string>): Promise<number> {
  const { values } = await histogram.get();
  return values.reduce((sum, { metricName, value }) => (metricName?.endsWith('_count') ? sum + value : sum), 0);
}

async function sumOf(counter: Counter<string>): Promise<number> {
  const { values } = await counter.get();
  return values.reduce((sum, { value }) => sum + value, 0);
}

async function bucketsOf(histogram: Histogram<string>): Promise<[number, number][]> {
  const { values } = await histogram.get();
  const counts = new Map<number, number>();
  for (const { metricName, labels, value } of values) {
    if (!metricName?.endsWith('_bucket')) continue;
    const bound = labels.le === '+Inf' ? Number.POSITIVE_INFINITY : Number(labels.le) * 1000;
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  return [...counts].sort(([one], [other]) => one - other);
}

/** The bound of the first bucket that holds so many; above the last bound, that one. */
function percentile(buckets: readonly (readonly [number, number])[], share: number): number {
  const all = buckets.at(-1)?.[1] ?? 0;
  if (all === 0) return 0;
  const [bound = 0] = buckets.find(([, count]) => count >= all * share) ?? [];
  return Number.isFinite(bound) ? bound : (buckets.at(-2)?.[0] ?? 0);
}
