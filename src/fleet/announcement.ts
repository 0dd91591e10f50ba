import { z } from 'zod';
import { SIGNING_STATES } from '../keys/health.js';
import { type PublicJwk, readPublicJwk } from '../keys/public-jwk.js';
import { STAGES } from '../stages.js';
import type { Lately } from '../telemetry/lately.js';

/** How far one cohort is on one instance, by what its requests of the last minute got. */
const cohortSchema = z.object({
  cohort: z.string(),
  client: z.string(),
  /** Requests of the last minute by effective stage and reason, and by credential. */
  stages: z.array(
    z.object({ stage: z.enum(STAGES), reason: z.string(), via: z.enum(['session', 'jwt']).optional().catch(undefined), requests: z.int() }),
  ),
});

/** What the guardrail has seen of one cohort in its window: of what it does, how much failed by the bridge's own fault. */
const windowSchema = z.object({
  cohort: z.string(),
  of: z.string(),
  requests: z.int(),
  failures: z.int(),
  subjects: z.int(),
  /** Some of those persons, and of those for whom it failed, by pseudonym: so that several instances can count the distinct. */
  persons: z.array(z.string()),
  failing: z.array(z.string()),
});

/** A key that an instance has the private half of. One that is not understood is none that this instance can verify with. */
const keySchema = z.object({
  jwk: z.unknown().transform((jwk, context): PublicJwk => {
    const known = readPublicJwk(jwk);
    if (known) return known;
    context.addIssue('a key of a kind that is not known');
    return z.NEVER;
  }),
  file: z.string().optional(),
  signsFrom: z.number().optional(),
});
const keysSchema = z.array(z.unknown()).transform((keys) => keys.flatMap((key) => keySchema.safeParse(key).data ?? []));

/** What its requests of the last minutes got. */
const latelySchema: z.ZodType<Lately> = z.object({
  requests: z.int(),
  unavailable: z.int(),
  faults: z.int(),
  p50Ms: z.number(),
  p99Ms: z.number(),
});

/**
 * What an instance says of itself, every few seconds. Times are Redis' own, in ms. Another release may say more, or other words: what
 * decides about keys must be understood, the rest is for people.
 */
export const announcementSchema = z.object({
  /** Random, anew at each start. */
  instance: z.string(),
  host: z.string().catch('?'),
  version: z.string().catch('?'),
  startedAt: z.number().catch(0),
  at: z.number(),
  /** How far its clock is ahead of that of Redis, in ms. */
  clockOffMs: z.number().catch(0),
  issuer: z.string(),
  audience: z.array(z.string()).catch([]),
  /** One name for its configuration. */
  fingerprint: z.string().catch('?'),
  /** A digest of each setting that is written, by its path. Absent: of a release that does not say. */
  settings: z.record(z.string(), z.string()).optional().catch(undefined),
  /** The newest form of what stands in Redis that it reads. Absent: 1. */
  reads: z.int().positive().optional().catch(undefined),
  /** Names of the fleet secrets that open there, and of the one that writes. Absent: of a release that knows one secret only. */
  opens: z.array(z.string()).optional().catch(undefined),
  writes: z.string().optional().catch(undefined),
  /** The fleet secrets that are out of use there. */
  denied: z
    .array(z.object({ name: z.string(), isFirst: z.boolean(), isRevoked: z.boolean() }))
    .optional()
    .catch(undefined),
  /** Absent: of a release that does not say, or nothing came. */
  lately: latelySchema.optional().catch(undefined),
  /** The keys that it has private halves of, with the file that each is in at the moment, and the time in front of its name. */
  keys: keysSchema.catch([]),
  /** All that a token may be asked for there, services included. Absent: of a release that does not say. */
  targets: z.array(z.string()).optional().catch(undefined),
  /** Issuers and audiences that it accepts. */
  accepts: z.array(z.string()).catch([]),
  /** Kids that it verifies. */
  verifies: z.array(z.string()).catch([]),
  /** The kid that it signs with. */
  signs: z.string().optional().catch(undefined),
  signing: z.enum(SIGNING_STATES).catch('broken'),
  /** Why it is not healthy, a sentence each. */
  problems: z.array(z.string()).catch([]),
  flags: z.enum(['live', 'last-known', 'none']).catch('none'),
  /** A digest of the clamps that are in force there. */
  clamps: z.string().catch('?'),
  /** Names of cookie secrets that verify nothing there any more. Absent: of a release that knows none. */
  endedSecrets: z.array(z.string()).optional().catch(undefined),
  /** Cohorts with a clamp that it calls otherwise; `held`: it holds those whom the cohort had where the clamp was set. */
  unknownCohorts: z
    .array(z.object({ name: z.string(), held: z.boolean() }))
    .optional()
    .catch(undefined),
  /** Why it is held, where it fails and others do not. */
  held: z.object({ cohort: z.string(), of: z.string(), fault: z.string(), at: z.number(), needsOperator: z.boolean() }).optional().catch(undefined),
  /** When it last heard the event stream; absent: never. */
  eventsReadAt: z.number().optional().catch(undefined),
  cohorts: z.array(cohortSchema).catch([]),
  windows: z.array(windowSchema).catch([]),
  /** It has ended, and counts no longer. */
  left: z.boolean().default(false).catch(false),
});

export type Announcement = z.output<typeof announcementSchema>;
export type CohortReport = z.output<typeof cohortSchema>;
export type GuardrailWindow = z.output<typeof windowSchema>;

/** Its machine, as short as a column is wide, and what tells it from others there. */
export function nameOfInstance({ host, instance }: Pick<Announcement, 'host' | 'instance'>): string {
  return `${host.length > 12 ? `…${host.slice(-11)}` : host}/${instance.slice(0, 4)}`;
}

/** By the machine, where that is one name for one instance. */
export function namesOf(announcements: readonly Announcement[]): (one: Announcement) => string {
  const hosts = announcements.map(({ host }) => host);
  const areUnique = new Set(hosts).size === hosts.length;
  return (one) => (areUnique ? one.host : nameOfInstance(one));
}
