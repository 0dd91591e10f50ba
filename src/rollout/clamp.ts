import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Config } from '../config/config.js';
import { type Members, readEntries, readMembers, writeEntries, writeMembers } from '../redis/entries.js';
import { parseJson } from '../redis/replies.js';
import type { Codec } from '../redis/signed-value.js';
import { SAFE_STAGE, STAGES } from '../stages.js';

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
    stage: shape.stage.catch(SAFE_STAGE).parse(members['stage']),
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
  return one.on !== 'unknown' && one.on === other.on && nameOfSelector(one) === nameOfSelector(other);
}

export function nameOfSelector(selector: Clamp['selector']): string {
  return 'name' in selector ? selector.name : 'everybody';
}

export function describeSelector(selector: Clamp['selector']): { on: string; name: string } {
  return { on: selector.on, name: nameOfSelector(selector) };
}

/** For an operator of an instance that has no cohort of this name. */
export function describeUnknownClamp({ selector, scope }: Clamp): string {
  const name = nameOfSelector(selector);
  if (!scope) return `a clamp is set on the cohort ${name}, which this configuration does not have: it has no effect here`;
  const tenants = scope.tenants ? `, tenants ${scope.tenants.join(', ')}` : '';
  return `a clamp is set on the cohort ${name}, which this configuration does not have: it holds client ${scope.client}${tenants}, as where it was set`;
}

/** Whether a clamp was set for a cohort that had this client and tenant. */
export function holdsScope({ scope }: Clamp, client: string, tenant: string | undefined): boolean {
  if (scope?.client !== client) return false;
  return scope.tenants === undefined || (tenant !== undefined && scope.tenants.includes(tenant));
}

export function withClamp(clamps: readonly Clamp[], clamp: Clamp): readonly Clamp[] {
  const replaces = (one: Clamp) =>
    clamp.text === undefined ? one.text === undefined && one.by === clamp.by && isSame(one.selector, clamp.selector) : one.text === clamp.text;
  return [...clamps.filter((one) => !replaces(one)), clamp];
}

/** Only of what release 0.1 knows of a clamp as well: it compares its own digest with this one. */
export function digestOfClamps(clamps: readonly Clamp[]): string {
  const known = clamps.map(({ selector, stage, by, why, at, until, text }) => ({ selector, stage, by, why, at, until, text }));
  return createHash('sha256').update(JSON.stringify(known)).digest('base64url').slice(0, 12);
}
