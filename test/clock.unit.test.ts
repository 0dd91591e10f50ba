import { describe, expect, it } from 'vitest';
import { createFleetClock } from '../src/clock.js';

const SKEW_MS = 5000;
const HOUR_MS = 3_600_000;

/** A machine whose two clocks are set by hand. */
function machine() {
  const hands = { wall: 1_800_000_000_000, steady: 50_000, steps: 0 };
  const clock = { now: () => hands.wall, steady: () => hands.steady };
  const fleet = createFleetClock(clock, SKEW_MS);
  fleet.onStep(() => {
    hands.steps += 1;
  });
  return {
    fleet,
    hands,
    passes(ms: number) {
      hands.wall += ms;
      hands.steady += ms;
    },
  };
}

describe('the clock of a machine that is set', () => {
  it('is in doubt: there are two readings, and the fleet is asked once', () => {
    const { fleet, hands, passes } = machine();
    passes(1000);
    expect(fleet.readings).toEqual([hands.wall]);
    const before = hands.wall;
    hands.wall += HOUR_MS;
    expect(fleet.readings).toEqual([before + HOUR_MS, before]);
    passes(2000);
    expect(fleet.readings).toEqual([before + HOUR_MS + 2000, before + 2000]);
    expect(hands.steps).toBe(1);
  });

  it('counts alone after 15 s in which nobody could be asked, and is called unchecked', () => {
    const { fleet, hands, passes } = machine();
    hands.wall += HOUR_MS;
    passes(1);
    expect(fleet.inDoubt).toBe(true);
    passes(14_999);
    expect({ inDoubt: fleet.inDoubt, isUnchecked: fleet.isUnchecked }).toEqual({ inDoubt: true, isUnchecked: false });
    passes(2);
    expect({ inDoubt: fleet.inDoubt, isUnchecked: fleet.isUnchecked, readings: fleet.readings }).toEqual({
      inDoubt: false,
      isUnchecked: true,
      readings: [hands.wall],
    });
    fleet.setAhead(0);
    expect(fleet.isUnchecked).toBe(false);
  });

  it('is compared with what it was before the first of two steps', () => {
    const { fleet, hands, passes } = machine();
    const before = hands.wall;
    hands.wall += HOUR_MS;
    expect(fleet.inDoubt).toBe(true);
    passes(1000);
    hands.wall -= 2 * HOUR_MS;
    expect(fleet.readings).toEqual([before - HOUR_MS + 1000, before + 1000]);
    expect(hands.steps).toBe(2);
  });

  it('is no step where it is off by less than the skew', () => {
    const { fleet, hands } = machine();
    hands.wall += SKEW_MS - 1;
    expect(fleet.readings).toEqual([hands.wall]);
    expect(hands.steps).toBe(0);
  });
});
