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

  it('is in doubt where several steps, each within the skew, add up', () => {
    const { fleet, hands, passes } = machine();
    for (let n = 0; n < 2; n++) {
      hands.wall += SKEW_MS / 2;
      passes(40);
      expect(fleet.inDoubt).toBe(false);
    }
    hands.wall += SKEW_MS / 2;
    expect([fleet.inDoubt, hands.steps]).toEqual([true, 1]);
  });

  it('counts what it was off by already when the fleet was last asked', () => {
    const { fleet, hands, passes } = machine();
    hands.wall += SKEW_MS - 100;
    fleet.setAhead(SKEW_MS - 100);
    passes(40);
    expect(fleet.inDoubt).toBe(false);
    hands.wall += 200;
    expect(fleet.inDoubt).toBe(true);
    // Asked again, it is corrected, and does not follow the machine: another step says nothing.
    fleet.setAhead(SKEW_MS + 100);
    expect(fleet.inDoubt).toBe(false);
    expect(fleet.now()).toBe(hands.wall - SKEW_MS - 100);
  });

  it('is no step where it is off by less than the skew', () => {
    const { fleet, hands } = machine();
    hands.wall += SKEW_MS - 1;
    expect(fleet.readings).toEqual([hands.wall]);
    expect(hands.steps).toBe(0);
  });
});
