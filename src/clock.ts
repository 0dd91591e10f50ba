import { performance } from 'node:perf_hooks';

/** Where the time comes from. Passed in, so that tests can move it. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
}

export const systemClock: Clock = { now: () => Date.now() };

/** A clock that goes by the time of the fleet where that of this machine is off. */
export interface FleetClock extends Clock {
  /** How far the clock of this machine is ahead, in ms, as last measured. */
  readonly aheadMs: number;
  setAhead(ms: number): void;
}

/**
 * The clock of this machine, corrected where it is off by more than `skewMs`: it must neither refuse what the others sign nor sign what
 * they refuse. While it is corrected it does not follow the machine, whose clock somebody may set at any moment.
 */
export function createFleetClock(clock: Clock, skewMs: number): FleetClock {
  let aheadMs = 0;
  let base: number | undefined;
  return {
    get aheadMs() {
      return aheadMs;
    },
    setAhead(ms) {
      aheadMs = ms;
      base = Math.abs(ms) > skewMs ? clock.now() - ms - performance.now() : undefined;
    },
    now: () => (base === undefined ? clock.now() : Math.round(base + performance.now())),
  };
}

/** Whole seconds since the epoch, as RFC 7519 counts them (NumericDate, rounded down). */
export function epochSeconds(clock: Clock): number {
  return Math.floor(clock.now() / 1000);
}
