import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Config } from '../config/config.js';
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

const clampSchema = z.object({
  selector: selectorSchema,
  stage: z.enum(STAGES),
  by: z.enum(['operator', 'guardrail']),
  why: z.string(),
  /** When it was set, and when it ends by itself, in ms since the epoch. */
  at: z.number(),
  until: z.number().optional(),
  /** Of a clamp on a cohort: whom that was, where it was set. An instance that calls its cohorts otherwise holds these. */
  scope: z.object({ client: z.string(), tenants: z.array(z.string()).optional() }).optional(),
});

export const clampsSchema = z.object({ clamps: z.array(clampSchema) });
export type ClampList = z.output<typeof clampsSchema>;
export type Clamp = z.output<typeof clampSchema>;
export type ClampSelector = z.output<typeof selectorSchema>;

export type ClampScope = NonNullable<Clamp['scope']>;

/** Whom a cohort holds by this configuration. Undefined: none of this name, or one that is named like its client and holds the rest. */
export function scopeOfCohort({ rollout }: Pick<Config, 'rollout'>, name: string): ClampScope | undefined {
  const found = rollout.cohorts.find((cohort) => cohort.name === name);
  return found && { client: found.client, ...(found.tenants ? { tenants: [...found.tenants] } : {}) };
}

/** The member of a clamp that says whom it holds where its cohort's name is not known. */
export function scoped(scope: ClampScope | undefined): Pick<Clamp, 'scope'> {
  return scope ? { scope } : {};
}

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
  /** One name for what is in force: the same on all instances that have heard the same. */
  readonly digest: string;
  ceilingsOf(client: string, cohort: string, tenant?: string): Ceilings;
  /** Those in force on a cohort whose name this instance does not know. */
  readonly unknown: readonly Clamp[];
  /**
   * Hears what others have set or released, and tells Redis again what it has lost; `wasLost`: it came back empty, and whoever wrote
   * first may not have known all. Rejects with what ioredis rejects with.
   */
  sync(options?: { readonly wasLost?: boolean }): Promise<void>;
  /** Takes the place of one by the same hand with the same selector. In force here at once, and for all as soon as Redis answers. */
  set(clamp: Clamp): Promise<void>;
  /** Releases all with this selector, by whomever they were set; gives them. `why`: for the audit. */
  release(selector: ClampSelector, why?: string): Promise<readonly Clamp[]>;
}

export interface ClampsOptions {
  /** Whether this instance has a cohort of this name; a client's id is one. */
  readonly knowsCohort: (name: string) => boolean;
  readonly stored: SignedValue<ClampList>;
  /** The time by which clamps end: that of Redis, as well as it is known here, in ms. */
  readonly fleetNowMs: () => number;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

export function createClamps({ knowsCohort, stored, fleetNowMs, audit, metrics }: ClampsOptions): Clamps {
  const isKnown = ({ selector }: Clamp) => selector.on !== 'cohort' || knowsCohort(selector.name);
  let known: readonly Clamp[] = [];
  /** Whether anything that counts was ever read or written: then Redis must have something. */
  let wereKnown = false;
  /** In force here, and not yet in Redis. */
  let pending: readonly Clamp[] = [];
  /** Of those whose time is over, the ones that were said to be. */
  const told = new WeakSet<Clamp>();

  const isOver = ({ until }: Clamp) => until !== undefined && until <= fleetNowMs();
  const inForce = () => known.filter((clamp) => !isOver(clamp));

  function take(clamps: readonly Clamp[]): void {
    // One that was in force here, and whose time has come since.
    const over = known.filter((clamp) => isOver(clamp) && !told.has(clamp));
    for (const clamp of over) {
      told.add(clamp);
      audit('stage.released', { ...describeSelector(clamp.selector), stage: clamp.stage, by: clamp.by, reason: 'its time' });
    }
    known = clamps.map((clamp) => known.find((one) => JSON.stringify(one) === JSON.stringify(clamp)) ?? clamp);
    for (const clamp of known) if (isOver(clamp)) told.add(clamp);
    for (const by of ['operator', 'guardrail'] as const) metrics.clamps.set({ by }, inForce().filter((clamp) => clamp.by === by).length);
  }

  /** One after the other: what is pending is written once. */
  let changing: Promise<unknown> = Promise.resolve();
  async function change(next: (clamps: readonly Clamp[]) => readonly Clamp[]): Promise<void> {
    const done = changing.then(async () => await changeNow(next));
    changing = done.catch(() => undefined);
    await done;
  }

  /** What Redis has counts, with what is pending here; where it has nothing that counts, what was known is written again. */
  async function changeNow(next: (clamps: readonly Clamp[]) => readonly Clamp[]): Promise<void> {
    let result: readonly Clamp[] = known;
    const added = pending;
    await stored.update((current) => {
      const before = current?.clamps ?? known;
      result = next(added.reduce(withClamp, before));
      const isLost = current === undefined && wereKnown;
      wereKnown ||= current !== undefined;
      return !isLost && JSON.stringify(result) === JSON.stringify(current?.clamps ?? []) ? undefined : { clamps: [...result] };
    });
    wereKnown ||= result.length > 0;
    pending = pending.filter((clamp) => !added.includes(clamp));
    take(pending.reduce(withClamp, result));
    for (const { selector, stage, by, why, until } of added) {
      audit('stage.clamped', {
        ...describeSelector(selector),
        stage,
        by,
        why,
        ...(until === undefined ? {} : { until: new Date(until).toISOString() }),
      });
    }
  }

  /** Those whose time is over are kept until somebody changes the list: a reader does not write. */
  const withoutOver = (clamps: readonly Clamp[]) => clamps.filter((clamp) => !isOver(clamp));

  return {
    get all() {
      return inForce();
    },

    get digest() {
      return createHash('sha256').update(JSON.stringify(inForce())).digest('base64url').slice(0, 12);
    },

    get unknown() {
      return inForce().filter((clamp) => !isKnown(clamp));
    },

    ceilingsOf(client, cohort, tenant) {
      if (known.length === 0) return NO_CEILINGS;
      // By its name; where that is not known here, by whom it was set for.
      const holdsHere = (clamp: Clamp) => (isKnown(clamp) ? holds(clamp.selector, client, cohort) : holdsScope(clamp, client, tenant));
      const holding = known.filter((clamp) => holdsHere(clamp) && !isOver(clamp));
      const operator = lowestStage(holding.flatMap(({ by, stage }) => (by === 'operator' ? [stage] : [])));
      return { guardrail: holding.some(({ by }) => by === 'guardrail'), ...(operator ? { operator } : {}) };
    },

    async sync({ wasLost = false } = {}) {
      const before = inForce();
      await change((clamps) => (wasLost ? clamps.reduce(withClamp, before) : clamps));
    },

    async set(clamp) {
      pending = withClamp(pending, clamp);
      take(withClamp(known, clamp));
      await change(withoutOver);
    },

    async release(selector, why) {
      let released: readonly Clamp[] = [];
      pending = pending.filter((clamp) => !isSame(clamp.selector, selector));
      await change((clamps) => {
        released = clamps.filter((clamp) => isSame(clamp.selector, selector));
        return withoutOver(clamps.filter((clamp) => !released.includes(clamp)));
      });
      for (const { stage, by } of released)
        audit('stage.released', { ...describeSelector(selector), stage, by, reason: 'an operator', ...(why === undefined ? {} : { why }) });
      return released;
    },
  };
}

const NO_CEILINGS: Ceilings = { guardrail: false };

function withClamp(clamps: readonly Clamp[], clamp: Clamp): readonly Clamp[] {
  return [...clamps.filter((one) => one.by !== clamp.by || !isSame(one.selector, clamp.selector)), clamp];
}

/** Whether a clamp was set for a cohort that had this client and tenant. */
function holdsScope({ scope }: Clamp, client: string, tenant: string | undefined): boolean {
  if (scope?.client !== client) return false;
  return scope.tenants === undefined || (tenant !== undefined && scope.tenants.includes(tenant));
}

/** Whether a clamp with this selector holds somebody of this client and cohort. */
export function holds(selector: ClampSelector, client: string, cohort: string): boolean {
  switch (selector.on) {
    case 'all':
      return true;
    case 'client':
      return selector.name === client;
    case 'cohort':
      return selector.name === cohort;
  }
}

export function isSame(one: ClampSelector, other: ClampSelector): boolean {
  return one.on === other.on && nameOf(one) === nameOf(other);
}

export function nameOf(selector: ClampSelector): string {
  return selector.on === 'all' ? 'everybody' : selector.name;
}

function describeSelector(selector: ClampSelector): { on: string; name: string } {
  return { on: selector.on, name: nameOf(selector) };
}

/** For an operator of an instance that has no cohort of this name. */
export function describeUnknownClamp({ selector, scope }: Clamp): string {
  const name = nameOf(selector);
  if (!scope) return `a clamp is set on the cohort ${name}, which this configuration does not have: it has no effect here`;
  const tenants = scope.tenants ? `, tenants ${scope.tenants.join(', ')}` : '';
  return `a clamp is set on the cohort ${name}, which this configuration does not have: it holds client ${scope.client}${tenants}, as where it was set`;
}
