import { z } from 'zod';
import type { Clock } from '../clock.js';
import { STAGES } from '../config/schema.js';
import type { SignedValue } from '../redis/signed-value.js';
import type { Audit } from '../telemetry/audit.js';
import type { Metrics } from '../telemetry/metrics.js';
import { lowestStage, type Stage } from './stage.js';

/** Whom a clamp holds: a client with all its cohorts, one cohort, or everybody. */
const selectorSchema = z.discriminatedUnion('on', [
  z.strictObject({ on: z.literal('all') }),
  z.strictObject({ on: z.literal('client'), name: z.string() }),
  z.strictObject({ on: z.literal('cohort'), name: z.string() }),
]);

const clampSchema = z.strictObject({
  selector: selectorSchema,
  stage: z.enum(STAGES),
  by: z.enum(['operator', 'guardrail']),
  why: z.string(),
  /** When it was set, and when it ends by itself, in ms since the epoch. */
  at: z.number(),
  until: z.number().optional(),
});

export const clampsSchema = z.strictObject({ clamps: z.array(clampSchema) });
export type ClampList = z.output<typeof clampsSchema>;
export type Clamp = z.output<typeof clampSchema>;
export type ClampSelector = z.output<typeof selectorSchema>;

/** What the clamps allow somebody at most. */
export interface Ceilings {
  readonly operator?: Stage;
  readonly guardrail: boolean;
}

/**
 * Ceilings that operators and the guardrail have set, the same on every instance. They live in Redis under a MAC, outrank the flag
 * source, and stay in force while Redis or the flag source is away.
 */
export interface Clamps {
  /** Those that are in force. */
  readonly all: readonly Clamp[];
  ceilingsOf(client: string, cohort: string): Ceilings;
  /** Hears what others have set or released, and tells Redis again what it has lost. Rejects with what ioredis rejects with. */
  sync(): Promise<void>;
  /** Takes the place of one by the same hand with the same selector. In force here at once, also where it rejects. */
  set(clamp: Clamp): Promise<void>;
  /** Releases all with this selector, by whomever they were set; gives them. */
  release(selector: ClampSelector): Promise<readonly Clamp[]>;
}

export function createClamps(stored: SignedValue<ClampList>, clock: Clock, audit: Audit, metrics: Metrics): Clamps {
  let known: readonly Clamp[] = [];

  const isOver = ({ until }: Clamp) => until !== undefined && until <= clock.now();
  const inForce = () => known.filter((clamp) => !isOver(clamp));

  function take(clamps: readonly Clamp[]): void {
    known = clamps;
    for (const by of ['operator', 'guardrail'] as const) metrics.clamps.set({ by }, inForce().filter((clamp) => clamp.by === by).length);
  }

  /** What Redis has counts; where it has nothing that does, what this instance knows is written again. */
  async function change(next: (clamps: readonly Clamp[]) => readonly Clamp[]): Promise<void> {
    let result: readonly Clamp[] = known;
    let over: readonly Clamp[] = [];
    await stored.update((current) => {
      const before = current?.clamps ?? known;
      over = before.filter(isOver);
      result = next(before.filter((clamp) => !isOver(clamp)));
      return JSON.stringify(result) === JSON.stringify(current?.clamps ?? []) ? undefined : { clamps: [...result] };
    });
    for (const { selector, stage, by } of over) audit('stage.released', { ...describeSelector(selector), stage, by, reason: 'its time' });
    take(result);
  }

  return {
    get all() {
      return inForce();
    },

    ceilingsOf(client, cohort) {
      const holding = known.filter((clamp) => holds(clamp.selector, client, cohort) && !isOver(clamp));
      const operator = lowestStage(holding.flatMap(({ by, stage }) => (by === 'operator' ? [stage] : [])));
      return { guardrail: holding.some(({ by }) => by === 'guardrail'), ...(operator ? { operator } : {}) };
    },

    sync: async () => await change((clamps) => clamps),

    async set(clamp) {
      const withIt = (clamps: readonly Clamp[]) => [...clamps.filter((one) => one.by !== clamp.by || !isSame(one.selector, clamp.selector)), clamp];
      take(withIt(known));
      await change(withIt);
      const { selector, stage, by, why, until } = clamp;
      audit('stage.clamped', {
        ...describeSelector(selector),
        stage,
        by,
        why,
        ...(until === undefined ? {} : { until: new Date(until).toISOString() }),
      });
    },

    async release(selector) {
      let released: readonly Clamp[] = [];
      await change((clamps) => {
        released = clamps.filter((clamp) => isSame(clamp.selector, selector));
        return clamps.filter((clamp) => !released.includes(clamp));
      });
      for (const { stage, by } of released) audit('stage.released', { ...describeSelector(selector), stage, by, reason: 'an operator' });
      return released;
    },
  };
}

function holds(selector: ClampSelector, client: string, cohort: string): boolean {
  switch (selector.on) {
    case 'all':
      return true;
    case 'client':
      return selector.name === client;
    case 'cohort':
      return selector.name === cohort;
  }
}

function isSame(one: ClampSelector, other: ClampSelector): boolean {
  return one.on === other.on && nameOf(one) === nameOf(other);
}

export function nameOf(selector: ClampSelector): string {
  return selector.on === 'all' ? 'everybody' : selector.name;
}

function describeSelector(selector: ClampSelector): { on: string; name: string } {
  return { on: selector.on, name: nameOf(selector) };
}
