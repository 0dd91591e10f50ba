import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { createGuardrail, type Guardrail, type OtherInstance } from '../../src/rollout/guardrail.js';
import { createAudit } from '../../src/telemetry/audit.js';
import { createLog } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { LogLines } from '../support/log-lines.js';

const CONFIG = { windowSeconds: 30, failureRate: 0.02, minRequests: 10, minSubjects: 5 };

/** One instance's guardrail, and what the others of its fleet have announced. */
function among(...others: OtherInstance[]) {
  const hands = { now: 1_800_000_000_000, isSound: true, knowsTime: true, others, hear: async () => true };
  const clamped: string[] = [];
  const clock = { now: () => hands.now };
  const log = createLog({ destination: new LogLines() });
  const metrics = createMetrics();
  const guardrail = createGuardrail({
    config: CONFIG,
    clamps: {
      ceilingsOf: () => ({ guardrail: false }),
      async set(clamp) {
        clamped.push(clamp.selector.on);
      },
    },
    others: () => hands.others,
    hearOthers: async () => await hands.hear(),
    knowsTime: () => hands.knowsTime,
    isSound: () => hands.isSound,
    scopeOf: () => undefined,
    announce: () => undefined,
    tell: () => undefined,
    subjectKey: randomBytes(32),
    clock,
    log,
    audit: createAudit(log),
    metrics,
  });
  return { guardrail, clamped, hands };
}

function window(failures: number, requests = 40) {
  const persons = Array.from({ length: 12 }, (_, n) => `person-${n}`);
  return { of: 'exchange', cohort: 'web', requests, failures, subjects: 12, persons, failing: failures > 0 ? persons : [] };
}
const sound: OtherInstance = { windows: [window(0)], isHeld: false };
const held: OtherInstance = { windows: [window(40)], isHeld: true };
const idle: OtherInstance = { windows: [window(0, CONFIG.minRequests - 1)], isHeld: false };

function failMany(guardrail: Guardrail): void {
  for (let n = 0; n < 24; n++) guardrail.failed('exchange', 'web', `somebody-${n % 12}`, 'signing');
  guardrail.judge();
}

describe('an instance that fails a cohort', () => {
  it.each<[who: string, others: OtherInstance[]]>([
    ['one other instance serves it well', [sound]],
    ['one of four is held already', [sound, sound, held]],
    ['the fleet as a whole is within its budget', Array.from({ length: 60 }, () => sound)],
  ])('is held alone where %s', (_, others) => {
    const { guardrail, clamped } = among(...others);
    failMany(guardrail);
    expect({ held: guardrail.held?.cohort, clamped }).toEqual({ held: 'web', clamped: [] });
  });

  it.each<[who: string, others: OtherInstance[]]>([
    ['there is no other instance', []],
    ['both of two fail', [held]],
    ['more than half would be held', [sound, held]],
    ['three of four would be held', [sound, held, held]],
    ['the others have too few requests to tell', [idle, idle]],
  ])('has the cohort clamped where %s', async (_, others) => {
    const { guardrail, clamped } = among(...others);
    failMany(guardrail);
    await expect.poll(() => clamped).toContain('cohort');
    expect({ held: guardrail.held, clamped: new Set(clamped) }).toEqual({ held: undefined, clamped: new Set(['cohort']) });
  });

  it('asks what the others serve now before it clamps: they may not have announced it yet', async () => {
    const { guardrail, clamped, hands } = among(idle);
    let asked = 0;
    hands.hear = async () => {
      asked += 1;
      expect(clamped).toEqual([]);
      hands.others = [sound];
      return true;
    };
    failMany(guardrail);
    await expect.poll(() => guardrail.held?.cohort).toBe('web');
    expect({ asked, clamped }).toEqual({ asked: 1, clamped: [] });
  });

  it('clamps nothing while Redis is away and nobody can be heard', async () => {
    const { guardrail, clamped, hands } = among(idle);
    let asked = 0;
    hands.hear = async () => {
      asked += 1;
      return asked > 1;
    };
    failMany(guardrail);
    await expect.poll(() => asked).toBe(1);
    expect(clamped).toEqual([]);
    hands.others = [sound];
    guardrail.judge();
    expect(guardrail.held?.cohort).toBe('web');
  });

  it('counts nothing that fails while this instance does not know what time it is', () => {
    const { guardrail, clamped, hands } = among();
    hands.knowsTime = false;
    failMany(guardrail);
    hands.knowsTime = true;
    guardrail.judge();
    expect({ held: guardrail.held, clamped, windows: guardrail.windows }).toEqual({ held: undefined, clamped: [], windows: [] });
  });

  it('goes on by itself after a window without failures, and within the hour only by an operator', () => {
    const { guardrail, hands } = among(sound);
    failMany(guardrail);
    hands.now += CONFIG.windowSeconds * 1000 - 1;
    guardrail.judge();
    expect(guardrail.held).toMatchObject({ needsOperator: false });
    hands.now += CONFIG.windowSeconds * 1000;
    hands.isSound = false;
    guardrail.judge();
    expect(guardrail.held).toBeDefined();
    hands.isSound = true;
    guardrail.judge();
    expect(guardrail.held).toBeUndefined();

    failMany(guardrail);
    expect(guardrail.held).toMatchObject({ needsOperator: true });
    hands.now += 10 * CONFIG.windowSeconds * 1000;
    guardrail.judge();
    expect(guardrail.held).toBeDefined();
    guardrail.release('an operator');
    expect(guardrail.held).toBeUndefined();
  });
});
