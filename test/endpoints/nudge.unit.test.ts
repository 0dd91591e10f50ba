import { expect, it } from 'vitest';
import { createNudgeRate } from '../../src/endpoints/nudge.js';

/** How many of very many responses may nudge within ten seconds. */
function nudgesIn10Seconds(nudgesPerSecond: number, fleetSize: number): number {
  let now = 0;
  const mayNudge = createNudgeRate({ config: { nudgesPerSecond }, fleetSize: () => fleetSize, nowMs: () => now });
  let nudged = 0;
  for (; now < 10_000; now += 1) if (mayNudge()) nudged += 1;
  return nudged;
}

it('nudges keep to their rate, which all instances share', () => {
  expect(nudgesIn10Seconds(100, 1)).toBeGreaterThanOrEqual(995);
  expect(nudgesIn10Seconds(100, 1)).toBeLessThanOrEqual(1011);
  expect(nudgesIn10Seconds(100, 4)).toBeLessThanOrEqual(253);
  expect(nudgesIn10Seconds(0, 1)).toBe(0);
});
