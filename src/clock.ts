import { performance } from 'node:perf_hooks';

/** Where the time comes from. Passed in, so that tests can move it. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Milliseconds of a clock that nobody sets; from when does not matter. Without it a step of `now` cannot be told from time that passed. */
  readonly steady?: () => number;
  /** What time it may be, in ms. Absent: `now` is the one. */
  readonly readings?: readonly number[];
}

/** All times that it may be, in ms: one, but for the moments in which the clocks of this machine disagree. */
export function readingsOf(clock: Clock): readonly number[] {
  return clock.readings ?? [clock.now()];
}

export const systemClock: Clock = { now: () => Date.now(), steady: () => performance.now() };

/** A clock that goes by the time of the fleet where that of this machine is off. */
export interface FleetClock extends Clock {
  /** How far the clock of this machine is ahead, in ms, as last measured. */
  readonly aheadMs: number;
  /** `ownOffMs`: how far the clock of this machine is ahead of that of Redis, which decides between two that disagree. */
  setAhead(ms: number, ownOffMs?: number): void;
  /**
   * What time it may be, in ms: one value, or two while the clock of this machine has just been set or has stood still and nobody knows
   * which of its clocks is right. Then only what both call good is good, and what both call bad is bad.
   */
  readonly readings: readonly number[];
  /** Whether there are two. */
  readonly inDoubt: boolean;
  /** Since when, by the steady clock; undefined: it is not in doubt. */
  readonly doubtSince: number | undefined;
  /**
   * Calls back when the wall clock and the steady clock of the machine have come to disagree by more than the skew. Either may be
   * right, because the steady clock stands still while a machine sleeps.
   */
  onStep(listener: () => void): void;
  /** Whether the doubt lasted until it was given up: the clock of this machine counts, and may be wrong. */
  readonly isUnchecked: boolean;
}

/** How long the fleet's clock is waited for. */
const DOUBT_MS = 15_000;

/**
 * The clock of this machine, corrected where it differs from the fleet's by more than `skewMs`. An instance must neither refuse what others
 * sign nor sign what they refuse. While it is corrected it does not follow the machine, because an operator may set that clock at any time.
 */
export function createFleetClock(clock: Clock, skewMs: number): FleetClock {
  const { steady } = clock;
  const monotonic = steady ?? (() => performance.now());
  const listeners: (() => void)[] = [];
  let aheadMs = 0;
  let base: number | undefined;
  /** The time of day when the steady clock began, as of the last time that the fleet was asked: steps in between add up. */
  let origin = clock.now() - monotonic();
  /** The same as it was before it jumped, and since when. */
  let doubt: { readonly origin: number; readonly since: number } | undefined;
  let isUnchecked = false;

  /** Compares the two clocks of this machine. */
  function watch(): void {
    if (!steady) return;
    const next = clock.now() - steady();
    if (Math.round(Math.abs(next - origin)) > skewMs) {
      // While it is in doubt, what it was before the first jump is what it is compared with.
      doubt = { origin: doubt?.origin ?? origin, since: steady() };
      origin = next;
      isUnchecked = false;
      for (const listener of listeners) listener();
      return;
    }
    if (doubt && steady() - doubt.since > DOUBT_MS) {
      doubt = undefined;
      isUnchecked = true;
    }
  }

  const corrected = () => (base === undefined ? clock.now() : Math.round(base + monotonic()));

  return {
    get aheadMs() {
      return aheadMs;
    },
    setAhead(ms, ownOffMs = ms) {
      // One that was wrongly set stays corrected, also where there is no other instance to agree with.
      const wasSet = (doubt !== undefined || isUnchecked) && Math.abs(ownOffMs) > skewMs;
      aheadMs = ms === 0 && (wasSet || (base !== undefined && Math.abs(ownOffMs) > skewMs && Math.abs(aheadMs) > skewMs)) ? ownOffMs : ms;
      base = Math.abs(aheadMs) > skewMs ? clock.now() - aheadMs - monotonic() : undefined;
      doubt = undefined;
      isUnchecked = false;
      // What it is off by is a part of what it may be off by in all, unless it is not followed.
      origin = clock.now() - monotonic() - (base === undefined ? aheadMs : 0);
    },
    now() {
      watch();
      return corrected();
    },
    get readings() {
      watch();
      // A correction was measured before the jump, and goes by the steady clock.
      return doubt && base === undefined ? [clock.now(), Math.round(doubt.origin + monotonic())] : [corrected()];
    },
    get inDoubt() {
      watch();
      return doubt !== undefined && base === undefined;
    },
    get doubtSince() {
      return doubt?.since;
    },
    onStep: (listener) => void listeners.push(listener),
    get isUnchecked() {
      return isUnchecked;
    },
  };
}

/** The clock of Redis, as well as it is known here. */
export interface RedisClock extends Clock {
  /** How far the clock of this machine is ahead of it, in ms; undefined: it was not asked yet. */
  readonly offMs: number | undefined;
  /** Takes a measurement. */
  measured(offMs: number): void;
}

export function createRedisClock(machine: Clock): RedisClock {
  let offMs: number | undefined;
  return {
    get offMs() {
      return offMs;
    },
    measured(ms) {
      offMs = ms;
    },
    now: () => machine.now() - (offMs ?? 0),
  };
}

/** Whole seconds since the epoch, as RFC 7519 counts them (NumericDate, rounded down). */
export function epochSeconds(clock: Clock): number {
  return Math.floor(clock.now() / 1000);
}
