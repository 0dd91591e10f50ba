import type { Clock } from '../clock.js';
import { pseudonym } from '../config/secret.js';
import type { GuardrailWindow } from '../fleet/announcement.js';

/** What can fail by the bridge's own fault, judged apart: many good requests of the one must not hide that the other is broken. */
export type GuardedWork = 'exchange' | 'refresh' | 'mapping' | 'verify';

/** Why something failed that should not have. Literal: it stands in logs and metrics. */
export type OwnFault = 'signing' | 'mapping' | 'token-too-large' | 'lost-family' | 'own-token-refused';

interface Bucket {
  readonly slice: number;
  requests: number;
  failures: number;
  readonly subjects: Set<string>;
  readonly failing: Set<string>;
  readonly faults: Map<OwnFault, number>;
}

/** What came of one kind of work for one cohort, of late. */
export interface FaultWindow {
  readonly cohort: string;
  readonly of: GuardedWork;
  buckets: Bucket[];
  judgedAt: number;
  wasHeld: boolean;
}

export interface FaultWindows {
  windowOf(work: GuardedWork, cohort: string): FaultWindow;
  all(): readonly FaultWindow[];
  /** Counts an attempt; with a fault one that failed. Gives how many have failed in the present part. */
  note(window: FaultWindow, subject: string, fault?: OwnFault): number;
  /** As it is announced. */
  count(window: FaultWindow): GuardrailWindow;
  hasFailures(window: FaultWindow): boolean;
  /** The fault that most have failed for. */
  worstOf(window: FaultWindow): OwnFault | undefined;
}

/** Parts that a window is made of. */
const SLICES = 10;
/** Persons that are told apart in each part. */
const MAX_SUBJECTS = 200;
/** Persons that the other instances are told of. */
export const MAX_ANNOUNCED = 32;

export function createFaultWindows({
  windowSeconds,
  subjectKey,
  clock,
}: {
  readonly windowSeconds: number;
  /** Makes the pseudonyms. */
  readonly subjectKey: Buffer;
  readonly clock: Clock;
}): FaultWindows {
  const sliceMs = (windowSeconds * 1000) / SLICES;
  /** By what they are of, then by cohort. */
  const windows: Readonly<Record<GuardedWork, Map<string, FaultWindow>>> = {
    exchange: new Map(),
    refresh: new Map(),
    mapping: new Map(),
    verify: new Map(),
  };

  function bucketOf(window: FaultWindow): Bucket {
    const slice = Math.floor(clock.now() / sliceMs);
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

  function some(subjects: ReadonlySet<string>): string[] {
    return [...subjects].slice(0, MAX_ANNOUNCED).map((subject) => pseudonym(subjectKey, subject).slice(0, 12));
  }

  return {
    windowOf(work, cohort) {
      const known = windows[work].get(cohort);
      if (known) return known;
      const window: FaultWindow = { cohort, of: work, buckets: [], judgedAt: 0, wasHeld: false };
      windows[work].set(cohort, window);
      return window;
    },

    all: () => Object.values(windows).flatMap((ofOne) => [...ofOne.values()]),

    note(window, subject, fault) {
      const bucket = bucketOf(window);
      bucket.requests += 1;
      add(bucket.subjects, subject);
      if (fault === undefined) return bucket.failures;
      bucket.failures += 1;
      add(bucket.failing, subject);
      bucket.faults.set(fault, (bucket.faults.get(fault) ?? 0) + 1);
      return bucket.failures;
    },

    count({ of, cohort, buckets }) {
      const now = current(buckets);
      // Those for whom it failed come first: they are what the others need to know.
      const failing = distinct(now, (bucket) => bucket.failing);
      const subjects = new Set([...failing, ...distinct(now, (bucket) => bucket.subjects)]);
      return {
        of,
        cohort,
        requests: now.reduce((sum, { requests }) => sum + requests, 0),
        failures: now.reduce((sum, { failures }) => sum + failures, 0),
        subjects: subjects.size,
        persons: some(subjects),
        failing: some(failing),
      };
    },

    hasFailures: ({ buckets }) => current(buckets).some(({ failures }) => failures > 0),

    worstOf({ buckets }) {
      const faults = new Map<OwnFault, number>();
      for (const bucket of current(buckets)) for (const [fault, times] of bucket.faults) faults.set(fault, (faults.get(fault) ?? 0) + times);
      return [...faults].sort(([, one], [, other]) => other - one)[0]?.[0];
    },
  };
}

function add(set: Set<string>, subject: string): void {
  if (set.size < MAX_SUBJECTS) set.add(subject);
}

function distinct(buckets: readonly Bucket[], pick: (bucket: Bucket) => Set<string>): Set<string> {
  return new Set(buckets.flatMap((bucket) => [...pick(bucket)]));
}
