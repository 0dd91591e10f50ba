import { expect, it } from 'vitest';
import { createClientRegistry } from '../../src/rollout/clients.js';
import { createRollout } from '../../src/rollout/rollout.js';

/** How many of very many responses may nudge within ten seconds. */
function nudgesIn10Seconds(nudgesPerSecond: number, fleetSize: number): number {
  let now = 0;
  const rollout = createRollout({
    config: { defaultStage: 'dual', nudgesPerSecond },
    flags: { version: 0, problems: [], evaluate: async () => ({ stage: 'dual', killSwitch: false }) },
    clients: createClientRegistry([], []),
    clamps: { ceilingsOf: () => ({ guardrail: false }) },
    traffic: { count: () => undefined },
    canSign: () => true,
    fleetSize: () => fleetSize,
    nowMs: () => now,
  });
  let nudged = 0;
  for (; now < 10_000; now += 1) if (rollout.mayNudge()) nudged += 1;
  return nudged;
}

it('nudges keep to their rate, which all instances share', () => {
  expect(nudgesIn10Seconds(100, 1)).toBeGreaterThanOrEqual(995);
  expect(nudgesIn10Seconds(100, 1)).toBeLessThanOrEqual(1011);
  expect(nudgesIn10Seconds(100, 4)).toBeLessThanOrEqual(253);
  expect(nudgesIn10Seconds(0, 1)).toBe(0);
});
