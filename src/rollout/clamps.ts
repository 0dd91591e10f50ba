import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Config } from '../config/config.js';
import { STAGES } from '../config/schema.js';
import { type Members, readEntries, readMembers, writeEntries, writeMembers } from '../redis/entries.js';
import { parseJson } from '../redis/replies.js';
import type { Codec, SignedValue } from '../redis/signed-value.js';
import type { Tools } from '../telemetry/tools.js';
import { lowestStage, type Stage } from './stage.js';

/** Whom a clamp holds: a client with all its cohorts, one cohort, or everybody. */
const selectorSchema = z.discriminatedUnion('on', [
  z.strictObject({ on: z.literal('all') }),
  z.strictObject({ on: z.literal('client'), name: z.string() }),
  z.strictObject({ on: z.literal('cohort'), name: z.string() }),
]);

const scopeSchema = z.object({ client: z.string(), tenants: z.array(z.string()).optional() });

const clampSchema = z.strictObject({
  selector: selectorSchema,
  stage: z.enum(STAGES),
  by: z.enum(['operator', 'guardrail']),
  why: z.string(),
  /** When it was set, and when it ends by itself, in ms since the epoch. */
  at: z.number(),
  until: z.number().optional(),
  /** Of a clamp on a cohort: whom that was, where it was set. An instance that calls its cohorts otherwise holds these. */
  scope: scopeSchema.optional(),
});

/** `unknown`: a later release holds somebody by it in a way that this one does not know; everybody is held. */
export type ClampSelector = z.output<typeof selectorSchema>;
export type KnownClamp = z.output<typeof clampSchema>;
export interface Clamp extends Omit<KnownClamp, 'selector'> {
  readonly selector: ClampSelector | { readonly on: 'unknown' };
  /** The JSON text that it is in Redis, where a later release has written something that this one does not understand. */
  readonly text?: string;
}

export interface ClampList {
  readonly clamps: readonly Clamp[];
  /** What else a later release keeps there. */
  readonly rest: Members;
}

/** What is not understood counts as the safe reading, and is written back as the text that it is. */
function readClamp(text: string): Clamp {
  const found = parseJson(text);
  const clamp = clampSchema.safeParse(found);
  if (clamp.success) return clamp.data;
  const { shape } = clampSchema;
  const members = z.looseObject({}).safeParse(found).data ?? {};
  const selector = selectorSchema.safeParse(members['selector']);
  const until = z.number().safeParse(members['until']).data;
  const scope = scopeSchema.safeParse(members['scope']).data;
  return {
    selector: selector.success ? selector.data : { on: 'unknown' },
    stage: shape.stage.catch('session-only').parse(members['stage']),
    by: shape.by.catch('operator').parse(members['by']),
    why: shape.why.catch('of a later release').parse(members['why']),
    at: shape.at.catch(0).parse(members['at']),
    ...(until === undefined ? {} : { until }),
    ...scoped(scope),
    text,
  };
}

export const clampsCodec: Codec<ClampList> = {
  read(payload) {
    const members = readMembers(payload);
    const entries = readEntries(members?.get('clamps'));
    if (!members || !entries) return undefined;
    return { clamps: entries.map(readClamp), rest: new Map([...members].filter(([name]) => name !== 'clamps')) };
  },
  write: ({ clamps, rest }) => writeMembers([...rest, ['clamps', writeEntries(clamps.map(({ text, ...clamp }) => text ?? JSON.stringify(clamp)))]]),
};

/** One name for a clamp: what `release` takes where its selector is not understood. */
export function idOf({ text, ...clamp }: Clamp): string {
  return createHash('sha256')
    .update(text ?? JSON.stringify(clamp))
    .digest('hex')
    .slice(0, 8);
}

export type ClampScope = z.output<typeof scopeSchema>;

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

  function take(clamps: readonly Clamp[]): void {
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
      return digestOf(inForce());
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

/** Only of what release 0.1 knows of a clamp as well: it compares its own digest with this one. */
function digestOf(clamps: readonly Clamp[]): string {
  const known = clamps.map(({ selector, stage, by, why, at, until, text }) => ({ selector, stage, by, why, at, until, text }));
  return createHash('sha256').update(JSON.stringify(known)).digest('base64url').slice(0, 12);
}

function withClamp(clamps: readonly Clamp[], clamp: Clamp): readonly Clamp[] {
  const replaces = (one: Clamp) =>
    clamp.text === undefined ? one.text === undefined && one.by === clamp.by && isSame(one.selector, clamp.selector) : one.text === clamp.text;
  return [...clamps.filter((one) => !replaces(one)), clamp];
}

/** Whether a clamp was set for a cohort that had this client and tenant. */
function holdsScope({ scope }: Clamp, client: string, tenant: string | undefined): boolean {
  if (scope?.client !== client) return false;
  return scope.tenants === undefined || (tenant !== undefined && scope.tenants.includes(tenant));
}

/** Whether a clamp with this selector holds somebody of this client and cohort. */
export function holds(selector: Clamp['selector'], client: string, cohort: string): boolean {
  switch (selector.on) {
    case 'unknown':
    case 'all':
      return true;
    case 'client':
      return selector.name === client;
    case 'cohort':
      return selector.name === cohort;
  }
}

export function isSame(one: Clamp['selector'], other: Clamp['selector']): boolean {
  return one.on !== 'unknown' && one.on === other.on && nameOf(one) === nameOf(other);
}

export function nameOf(selector: Clamp['selector']): string {
  return 'name' in selector ? selector.name : 'everybody';
}

function describeSelector(selector: Clamp['selector']): { on: string; name: string } {
  return { on: selector.on, name: nameOf(selector) };
}

/** For an operator of an instance that has no cohort of this name. */
export function describeUnknownClamp({ selector, scope }: Clamp): string {
  const name = nameOf(selector);
  if (!scope) return `a clamp is set on the cohort ${name}, which this configuration does not have: it has no effect here`;
  const tenants = scope.tenants ? `, tenants ${scope.tenants.join(', ')}` : '';
  return `a clamp is set on the cohort ${name}, which this configuration does not have: it holds client ${scope.client}${tenants}, as where it was set`;
}
