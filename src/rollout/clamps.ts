import type { Members } from '../redis/entries.js';
import type { SignedValue } from '../redis/signed-value.js';
import type { Stage } from '../stages.js';
import type { Tools } from '../telemetry/tools.js';
import {
  type Clamp,
  type ClampList,
  type ClampSelector,
  describeSelector,
  digestOfClamps,
  holds,
  holdsScope,
  idOf,
  isSame,
  withClamp,
} from './clamp.js';
import { lowestStage } from './stage.js';

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
  /** Releases all with this selector, or the one with this id, by whomever they were set; gives them. `why`: for the audit. */
  release(which: ClampSelector | { readonly id: string }, why?: string): Promise<readonly Clamp[]>;
}

export interface ClampsOptions extends Pick<Tools, 'audit' | 'metrics'> {
  /** Whether this instance has a cohort of this name; a client's id is one. */
  readonly knowsCohort: (name: string) => boolean;
  readonly stored: SignedValue<ClampList>;
  /** The time by which clamps end: that of Redis, as well as it is known here, in ms. */
  readonly fleetNowMs: () => number;
}

export function createClamps({ knowsCohort, stored, fleetNowMs, audit, metrics }: ClampsOptions): Clamps {
  const isKnown = ({ selector }: Clamp) => selector.on !== 'cohort' || knowsCohort(selector.name);
  let known: readonly Clamp[] = [];
  /** Whether anything that counts was ever read or written: then Redis must have something. */
  let wereKnown = false;
  /** What else a later release keeps with them. */
  let rest: Members = new Map();
  /** In force here, and not yet in Redis. */
  let pending: readonly Clamp[] = [];
  /** Of those whose time is over, the ones that were said to be. */
  const told = new WeakSet<Clamp>();

  const isOver = ({ until }: Clamp) => until !== undefined && until <= fleetNowMs();
  const inForce = () => known.filter((clamp) => !isOver(clamp));

  function putInForce(clamps: readonly Clamp[]): void {
    // One that was in force here, and whose time has come since.
    const over = known.filter((clamp) => isOver(clamp) && !told.has(clamp));
    for (const clamp of over) {
      told.add(clamp);
      audit('stage.released', { ...describeSelector(clamp.selector), stage: clamp.stage, by: clamp.by, reason: 'its time' });
    }
    const before = new Map(known.map((clamp) => [JSON.stringify(clamp), clamp]));
    known = clamps.map((clamp) => before.get(JSON.stringify(clamp)) ?? clamp);
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
      rest = current?.rest ?? rest;
      return !isLost && JSON.stringify(result) === JSON.stringify(current?.clamps ?? []) ? undefined : { clamps: result, rest };
    });
    wereKnown ||= result.length > 0;
    pending = pending.filter((clamp) => !added.includes(clamp));
    putInForce(pending.reduce(withClamp, result));
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
      return digestOfClamps(inForce());
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
      putInForce(withClamp(known, clamp));
      await change(withoutOver);
    },

    async release(which, why) {
      const isMeant = (clamp: Clamp) => ('id' in which ? idOf(clamp) === which.id : isSame(clamp.selector, which));
      let released: readonly Clamp[] = [];
      pending = pending.filter((clamp) => !isMeant(clamp));
      await change((clamps) => {
        released = clamps.filter(isMeant);
        return withoutOver(clamps.filter((clamp) => !released.includes(clamp)));
      });
      for (const { selector, stage, by } of released)
        audit('stage.released', { ...describeSelector(selector), stage, by, reason: 'an operator', ...(why === undefined ? {} : { why }) });
      return released;
    },
  };
}

const NO_CEILINGS: Ceilings = { guardrail: false };
