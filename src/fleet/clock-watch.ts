import type { Clock, FleetClock } from '../clock.js';
import { clockAgainstMost } from '../keys/rotation.js';
import type { Log } from '../telemetry/log.js';
import type { Fleet } from './fleet.js';

/** Compares the clock of this machine with those of Redis and the others. */
export interface ClockWatch {
  /** Looks at what was last measured and announced. */
  look(): void;
  /** What is wrong with the clock of this machine, a sentence each. */
  readonly problems: readonly string[];
  /** Whether clocks of the fleet were further apart than the skew within this time. */
  disagreedWithin(ms: number): boolean;
}

export interface ClockWatchOptions {
  readonly fleet: Pick<Fleet, 'measure' | 'others' | 'clockOffMs'>;
  /** That of this machine, and the one that is corrected. */
  readonly clock: Clock;
  readonly fleetClock: FleetClock;
  readonly skewMs: number;
  readonly log: Log;
}

/** How soon Redis is asked again for the time, where it does not answer. */
const AGAIN_MS = 250;

export function watchClocks({ fleet, clock, fleetClock, skewMs, log }: ClockWatchOptions): ClockWatch {
  let disagreedAt = Number.NEGATIVE_INFINITY;
  let isSettling = false;

  function correct(): void {
    const ownOffMs = fleet.clockOffMs ?? 0;
    const offsets = [0, ownOffMs, ...fleet.others.map(({ clockOffMs }) => clockOffMs)];
    if (Math.max(...offsets) - Math.min(...offsets) > skewMs) disagreedAt = clock.now();
    fleetClock.setAhead(clockAgainstMost(ownOffMs, fleet.others), ownOffMs);
  }

  /** Nobody could be asked yet. After a while the clock of the machine counts all the same: before anything is signed by it, Redis is asked. */
  const isUnknown = () => fleetClock.inDoubt || fleetClock.isUnchecked;

  /** Asks Redis which of the two clocks of this machine is right. */
  function settle(): void {
    if (isSettling) return;
    isSettling = true;
    const since = fleetClock.doubtSince;
    void fleet
      .measure()
      .then(() => {
        // It may have been set once more meanwhile.
        if (fleetClock.doubtSince !== since) return true;
        log.warn(
          { offSeconds: Math.round((fleet.clockOffMs ?? 0) / 1000) },
          'the clock of this machine has jumped; Redis was asked which time it is',
        );
        correct();
        return false;
      })
      .catch(() => isUnknown())
      .then((again) => {
        isSettling = false;
        if (again) setTimeout(settle, AGAIN_MS).unref();
      });
  }

  fleetClock.onStep(settle);

  return {
    look() {
      // What was measured before the clock was set says nothing of it now.
      if (isUnknown()) settle();
      else correct();
    },
    get problems() {
      // Alone, it can be compared with that of Redis only.
      const offMs = fleet.others.length > 0 ? fleetClock.aheadMs : (fleet.clockOffMs ?? 0);
      const offSeconds = Math.round(offMs / 1000);
      const isOff = Math.abs(offSeconds) > skewMs / 1000;
      return [
        ...(isOff
          ? [`the clock here is ${Math.abs(offSeconds)} s ${offSeconds > 0 ? 'ahead of' : 'behind'} those of Redis and the others: set it`]
          : []),
        ...(fleetClock.isUnchecked ? ['the clock of this machine has jumped, and Redis could not be asked which time it is: look at both'] : []),
      ];
    },
    disagreedWithin: (ms) => clock.now() - disagreedAt < ms,
  };
}
