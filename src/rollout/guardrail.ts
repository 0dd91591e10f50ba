import type { Config } from '../config/config.js';
import type { GuardrailWindow } from '../fleet/announcement.js';
import { SAFE_STAGE } from '../stages.js';
import type { Tools } from '../telemetry/tools.js';
import { type ClampScope, scoped } from './clamp.js';
import type { Clamps } from './clamps.js';
import { createFaultWindows, type FaultWindow, type GuardedWork, MAX_ANNOUNCED, type OwnFault } from './fault-windows.js';

/**
 * Holds a cohort back by itself where the bridge fails it. Only what comes after authentication counts and is the bridge's own
 * doing: nothing that a stranger can cause by sending junk.
 */
export interface Guardrail {
  succeeded(of: GuardedWork, cohort: string, subject: string): void;
  failed(of: GuardedWork, cohort: string, subject: string, fault: OwnFault): void;
  /** Judges every window anew: the other instances may have failed the same cohort. */
  judge(): void;
  readonly windows: GuardrailWindow[];
  /** Why this instance is held: it fails where others do not. Undefined: it is not. */
  readonly held: InstanceHold | undefined;
  /** Lets this instance go on. `by`: who says so, for the audit. */
  release(by: string): void;
}

/** An instance that fails a cohort by its own fault where another instance serves the same cohort well. */
export interface InstanceHold {
  readonly cohort: string;
  readonly of: GuardedWork;
  readonly fault: OwnFault;
  /** When it was held, in ms. */
  readonly at: number;
  /** Whether only an operator can release it: it was released by itself less than an hour before. */
  readonly needsOperator: boolean;
}

/** What another instance has announced. */
export interface OtherInstance {
  readonly windows: readonly GuardrailWindow[];
  readonly isHeld: boolean;
}

export interface GuardrailOptions extends Pick<Tools, 'clock' | 'log' | 'audit' | 'metrics'> {
  readonly config: Config['rollout']['guardrail'];
  readonly clamps: Pick<Clamps, 'ceilingsOf' | 'set'>;
  /** What the other instances have announced. */
  readonly others: () => readonly OtherInstance[];
  /**
   * Has the others announce what they have counted until now, and waits for it, for some seconds at most. False: Redis is away, and
   * nobody can be heard. Never rejects.
   */
  readonly hearOthers: () => Promise<boolean>;
  /** Whether this instance knows what time it is: else what fails here is no fault of a cohort. */
  readonly knowsTime: () => boolean;
  /** Whether what this fault comes from is sound now, as far as this instance can tell by itself. */
  readonly isSound: (fault: OwnFault) => boolean;
  /** What of a clamp on this cohort other instances need where they do not know its name. */
  readonly scopeOf: (cohort: string) => ClampScope | undefined;
  /** Called at failures, for the others to hear of them. */
  readonly announce: () => void;
  /** Called after a clamp was set, for the others to hear of it. */
  readonly tell: () => void;
  /** Makes the pseudonyms. */
  readonly subjectKey: Buffer;
}

/** What several instances have seen of a cohort. `failing`: persons for whom it failed. */
interface Summed {
  readonly requests: number;
  readonly failures: number;
  readonly subjects: number;
  readonly failing: number;
}

/** How long after it was released by itself only an operator may release it. */
const RELEASE_AGAIN_MS = 3_600_000;
const JUDGE_AGAIN_MS = 200;
/** One person whose record is odd is no broken cohort, however often they try. */
const MIN_FAILING_SUBJECTS = 3;
/** Whose record cannot be mapped is not known: sessions count as persons there, and one person can have many. */
const LEAST_RATE: Readonly<Record<GuardedWork, number>> = { exchange: 0, refresh: 0, mapping: 0.5, verify: 0 };

export function createGuardrail(options: GuardrailOptions): Guardrail {
  const {
    config,
    clamps,
    others: instances,
    hearOthers,
    knowsTime,
    isSound,
    scopeOf,
    announce,
    tell,
    subjectKey,
    clock,
    log,
    audit,
    metrics,
  } = options;
  const windows = createFaultWindows({ windowSeconds: config.windowSeconds, subjectKey, clock });
  let held: InstanceHold | undefined;
  let releasedAt = Number.NEGATIVE_INFINITY;
  const asking = new Set<FaultWindow>();

  /** What the others announced may be older than their traffic: before a cohort is held everywhere they are asked what they serve. */
  async function judgeWithOthers(window: FaultWindow): Promise<void> {
    if (asking.has(window)) return;
    asking.add(window);
    const wereHeard = await hearOthers();
    asking.delete(window);
    if (wereHeard) await judgeOne(window, true);
  }

  /** Only where it fails here as well: so the instance that clamps can say why. */
  async function judgeOne(window: FaultWindow, wereHeard = false): Promise<void> {
    const { of, cohort } = window;
    const isHeld = clamps.ceilingsOf('', cohort).guardrail;
    // Once it is released it is judged by what comes from then on.
    if (window.wasHeld && !isHeld) window.buckets = [];
    window.wasHeld = isHeld;
    if (isHeld || !windows.hasFailures(window)) return;
    const others = instances().flatMap(({ windows: theirs }) => theirs.filter((other) => other.of === of && other.cohort === cohort));
    const budget = Math.max(config.failureRate, LEAST_RATE[of]);
    const own = sum([windows.count(window)]);
    const all = sum([windows.count(window), ...others]);
    // In a large fleet one instance may fail all of its requests, and the fleet as a whole be within its budget.
    if (!exceeds(own, budget) && !exceeds(all, budget)) return;
    const fault = windows.worstOf(window);
    if (fault && isMine(window, others, budget)) {
      hold(window, fault);
      return;
    }
    if (!exceeds(all, budget)) return;
    if (!wereHeard && instances().length > 0) {
      await judgeWithOthers(window);
      return;
    }
    const { requests, failures, subjects } = all;
    metrics.guardrailTrips.inc({ of });
    audit('guardrail.tripped', { cohort, of, requests, failures, subjects, fault });
    const why = `${of}: ${failures} of ${requests} requests of ${subjects} people failed (${fault})`;
    await clamps.set({
      selector: { on: 'cohort', name: cohort },
      stage: SAFE_STAGE,
      by: 'guardrail',
      why,
      at: clock.now(),
      ...scoped(scopeOf(cohort)),
    });
    tell();
  }

  function sum(all: readonly GuardrailWindow[]): Summed {
    return {
      requests: all.reduce((total, one) => total + one.requests, 0),
      failures: all.reduce((total, one) => total + one.failures, 0),
      subjects: Math.max(all[0]?.subjects ?? 0, new Set(all.flatMap(({ persons }) => persons)).size),
      failing: new Set(all.flatMap((one) => one.failing)).size,
    };
  }

  function exceeds({ requests, failures, subjects, failing }: Summed, budget: number): boolean {
    if (requests < config.minRequests || subjects < config.minSubjects || failures <= requests * budget) return false;
    // However often somebody tries, they count as one person.
    return failing >= MIN_FAILING_SUBJECTS && (subjects > MAX_ANNOUNCED || failing > subjects * budget);
  }

  /** Whether it is this instance that fails, and not the fleet: another serves the same people well, and most instances are not held. */
  function isMine(window: FaultWindow, others: readonly GuardrailWindow[], budget: number): boolean {
    const own = windows.count(window);
    if (own.failures <= own.requests * budget) return false;
    const servesWell = (other: GuardrailWindow) => other.requests >= config.minRequests && other.failures <= other.requests * budget;
    const all = instances();
    return others.some(servesWell) && all.filter(({ isHeld }) => isHeld).length + 1 <= (all.length + 1) / 2;
  }

  function hold({ cohort, of }: FaultWindow, fault: OwnFault): void {
    if (held) return;
    held = { cohort, of, fault, at: clock.now(), needsOperator: clock.now() - releasedAt < RELEASE_AGAIN_MS };
    metrics.instanceHeld.set(1);
    metrics.instanceNeedsOperator.set(held.needsOperator ? 1 : 0);
    audit('instance.held', { cohort, of, fault, needsOperator: held.needsOperator });
    log.error(
      { cohort, of, fault, needsOperator: held.needsOperator },
      'this instance fails where others do not: it answers exchange and refresh 503',
    );
    announce();
  }

  function release(by: string): void {
    if (!held) return;
    audit('instance.released', { cohort: held.cohort, of: held.of, fault: held.fault, by });
    releasedAt = clock.now();
    held = undefined;
    metrics.instanceHeld.set(0);
    metrics.instanceNeedsOperator.set(0);
    // It is judged by what comes from now on.
    for (const window of windows.all()) window.buckets = [];
    announce();
  }

  /** Once an hour it goes on by itself, when what held it is sound and has been for a window's time. */
  function releaseIfSound(): void {
    if (!held || held.needsOperator || clock.now() - held.at < config.windowSeconds * 1000) return;
    if (!windows.hasFailures(windows.windowOf(held.of, held.cohort)) && isSound(held.fault)) release('a clean self-test');
  }

  function judge(window: FaultWindow): void {
    window.judgedAt = clock.now();
    judgeOne(window).catch((error: unknown) =>
      log.warn({ err: error, cohort: window.cohort }, 'the guardrail holds a cohort here, and could not tell the others yet'),
    );
  }

  return {
    succeeded: (of, cohort, subject) => void windows.note(windows.windowOf(of, cohort), subject),

    failed(of, cohort, subject, fault) {
      metrics.ownFaults.inc({ of, fault });
      if (!knowsTime()) return;
      const window = windows.windowOf(of, cohort);
      const failures = windows.note(window, subject, fault);
      // Each of the first, and many at once not one by one.
      if (failures < config.minRequests || window.judgedAt + JUDGE_AGAIN_MS <= clock.now()) judge(window);
      announce();
    },

    judge() {
      releaseIfSound();
      for (const window of windows.all()) judge(window);
    },

    get held() {
      return held;
    },
    release,

    get windows() {
      return windows
        .all()
        .map(windows.count)
        .filter(({ requests }) => requests > 0);
    },
  };
}

/** For an operator. */
export function describeInstanceHold({ cohort, of, fault, needsOperator }: InstanceHold): string {
  const release = needsOperator
    ? 'it was released by itself less than an hour before: look at it, then crossfade release --instance'
    : 'it goes on by itself after a clean self-test';
  return `it is held, because it fails ${of} of ${cohort} (${fault}) where other instances do not: exchange and refresh are 503 here; ${release}`;
}
