import type { Clock } from '../clock.js';
import type { Config } from '../config/config.js';
import type { Audit } from '../telemetry/audit.js';
import type { Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { Clamps } from './clamps.js';

/** What can fail by the bridge's own fault, judged apart: many good requests of the one must not hide that the other is broken. */
export type Guarded = 'issuing' | 'verifying';

/** Why something failed that should not have. Literal: it stands in logs and metrics. */
export type OwnFault = 'signing' | 'mapping' | 'token-too-large' | 'lost-family' | 'own-token-refused';

/** What the window of one cohort holds. */
export interface WindowCount {
  readonly cohort: string;
  readonly of: Guarded;
  readonly requests: number;
  readonly failures: number;
  /** Distinct persons in it. */
  readonly subjects: number;
}

/**
 * Holds a cohort back by itself where the bridge fails it. Only what comes after authentication counts and is the bridge's own
 * doing: nothing that a stranger can cause by sending junk.
 */
export interface Guardrail {
  succeeded(of: Guarded, cohort: string, subject: string): void;
  failed(of: Guarded, cohort: string, subject: string, fault: OwnFault): void;
  readonly windows: readonly WindowCount[];
}

export interface GuardrailOptions {
  readonly config: Config['rollout']['guardrail'];
  readonly clamps: Pick<Clamps, 'ceilingsOf' | 'set'>;
  /** Called after a clamp was set, for the others to hear of it. */
  readonly tell: () => void;
  readonly clock: Clock;
  readonly log: Log;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

interface Bucket {
  readonly slice: number;
  requests: number;
  failures: number;
  readonly subjects: Set<string>;
  readonly failing: Set<string>;
  readonly faults: Map<OwnFault, number>;
}

/** Parts that a window is made of. */
const SLICES = 10;
/** Persons that are told apart in each part. */
const MAX_SUBJECTS = 1000;
/** One person whose record is odd is no broken cohort, however often they try. */
const MIN_FAILING_SUBJECTS = 3;

export function createGuardrail({ config, clamps, tell, clock, log, audit, metrics }: GuardrailOptions): Guardrail {
  const sliceMs = (config.windowSeconds * 1000) / SLICES;
  const windows = new Map<string, { readonly cohort: string; readonly of: Guarded; buckets: Bucket[] }>();

  function bucketOf(of: Guarded, cohort: string): Bucket {
    const slice = Math.floor(clock.now() / sliceMs);
    const key = `${of} ${cohort}`;
    const window = windows.get(key) ?? { cohort, of, buckets: [] };
    windows.set(key, window);
    const last = window.buckets.at(-1);
    if (last?.slice === slice) return last;
    const bucket: Bucket = { slice, requests: 0, failures: 0, subjects: new Set(), failing: new Set(), faults: new Map() };
    window.buckets = [...current(window.buckets), bucket];
    return bucket;
  }

  function current(buckets: readonly Bucket[]): Bucket[] {
    const oldest = Math.floor(clock.now() / sliceMs) - SLICES;
    return buckets.filter(({ slice }) => slice > oldest);
  }

  function count(of: Guarded, cohort: string): WindowCount & { readonly failing: number; readonly worst: OwnFault | undefined } {
    const buckets = current(windows.get(`${of} ${cohort}`)?.buckets ?? []);
    const sum = (pick: (bucket: Bucket) => number) => buckets.reduce((total, bucket) => total + pick(bucket), 0);
    const distinct = (pick: (bucket: Bucket) => Set<string>) => new Set(buckets.flatMap((bucket) => [...pick(bucket)])).size;
    const faults = new Map<OwnFault, number>();
    for (const bucket of buckets) for (const [fault, times] of bucket.faults) faults.set(fault, (faults.get(fault) ?? 0) + times);
    return {
      of,
      cohort,
      requests: sum(({ requests }) => requests),
      failures: sum(({ failures }) => failures),
      subjects: distinct(({ subjects }) => subjects),
      failing: distinct(({ failing }) => failing),
      worst: [...faults].sort(([, one], [, other]) => other - one)[0]?.[0],
    };
  }

  function add(set: Set<string>, subject: string): void {
    if (set.size < MAX_SUBJECTS) set.add(subject);
  }

  /** Judged at each failure: a window that holds no more of them than before is no worse. */
  async function judge(of: Guarded, cohort: string): Promise<void> {
    const { requests, failures, subjects, failing, worst } = count(of, cohort);
    if (requests < config.minRequests || subjects < config.minSubjects || failing < MIN_FAILING_SUBJECTS) return;
    if (failures <= requests * config.failureRate || clamps.ceilingsOf('', cohort).guardrail) return;
    metrics.guardrailTrips.inc({ of });
    audit('guardrail.tripped', { cohort, of, requests, failures, subjects, fault: worst });
    const why = `${of}: ${failures} of ${requests} requests of ${subjects} subjects failed (${worst})`;
    await clamps.set({ selector: { on: 'cohort', name: cohort }, stage: 'session-only', by: 'guardrail', why, at: clock.now() });
    tell();
  }

  return {
    succeeded(of, cohort, subject) {
      const bucket = bucketOf(of, cohort);
      bucket.requests += 1;
      add(bucket.subjects, subject);
    },

    failed(of, cohort, subject, fault) {
      const bucket = bucketOf(of, cohort);
      bucket.requests += 1;
      bucket.failures += 1;
      add(bucket.subjects, subject);
      add(bucket.failing, subject);
      bucket.faults.set(fault, (bucket.faults.get(fault) ?? 0) + 1);
      metrics.ownFaults.inc({ of, fault });
      judge(of, cohort).catch((error: unknown) =>
        log.warn({ err: error, cohort }, 'the guardrail holds a cohort here, and could not tell the others yet'),
      );
    },

    get windows() {
      return [...windows.values()].flatMap(({ of, cohort }) => {
        const { requests, failures, subjects } = count(of, cohort);
        return requests > 0 ? [{ cohort, of, requests, failures, subjects }] : [];
      });
    },
  };
}
