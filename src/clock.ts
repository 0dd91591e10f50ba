/** Where the time comes from. Passed in, so that tests can move it. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
}

export const systemClock: Clock = { now: () => Date.now() };

/** Whole seconds since the epoch, as RFC 7519 counts them (NumericDate, rounded down). */
export function epochSeconds(clock: Clock): number {
  return Math.floor(clock.now() / 1000);
}
