import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Config } from '../config/config.js';
import { STAGES } from '../config/schema.js';
import { SIGNING_STATES } from '../keys/health.js';
import { publicJwkSchema } from '../keys/load.js';

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

/**
 * What an instance says of itself, every few seconds. Times are Redis' own, in ms. Another release may say more, or other words: what
 * decides about keys must be understood, the rest is for people.
 */
export const announcementSchema = z.object({
  /** Random, anew at each start. */
  instance: z.string(),
  host: z.string(),
  version: z.string(),
  startedAt: z.number(),
  at: z.number(),
  /** How far its clock is ahead of that of Redis, in ms. */
  clockOffMs: z.number(),
  issuer: z.string(),
  audience: z.array(z.string()),
  /** Equal where the configurations are, but for ports, files and secrets. */
  fingerprint: z.string(),
  /** The keys that it has private halves of, with the file that each is in at the moment, and the time in front of its name. */
  keys: z.array(z.object({ jwk: publicJwkSchema, file: z.string().optional(), signsFrom: z.number().optional() })),
  /** All that a token may be asked for there, services included. Absent: of a release that does not say. */
  targets: z.array(z.string()).optional(),
  /** Issuers and audiences that it accepts. */
  accepts: z.array(z.string()),
  /** Kids that it verifies. */
  verifies: z.array(z.string()),
  /** The kid that it signs with. */
  signs: z.string().optional(),
  signing: z.enum(SIGNING_STATES).catch('broken'),
  /** Why it is not healthy, a sentence each. */
  problems: z.array(z.string()).catch([]),
  flags: z.enum(['live', 'last-known', 'none']).catch('none'),
  /** A digest of the clamps that are in force there. */
  clamps: z.string(),
  /** Names of cookie secrets that verify nothing there any more. Absent: of a release that knows none. */
  endedSecrets: z.array(z.string()).optional(),
  /** Cohorts with a clamp that it calls otherwise; `held`: it holds those whom the cohort had where the clamp was set. */
  unknownCohorts: z.array(z.object({ name: z.string(), held: z.boolean() })).optional(),
  /** Why it is held, where it fails and others do not. */
  held: z.object({ cohort: z.string(), of: z.string(), fault: z.string(), at: z.number(), needsOperator: z.boolean() }).optional(),
  /** When it last heard the event stream; absent: never. */
  eventsReadAt: z.number().optional(),
  cohorts: z.array(cohortSchema).catch([]),
  windows: z.array(windowSchema).catch([]),
  /** It has ended, and counts no longer. */
  left: z.boolean().default(false),
});

export type Announcement = z.output<typeof announcementSchema>;
export type CohortReport = z.output<typeof cohortSchema>;
export type GuardrailWindow = z.output<typeof windowSchema>;

/** One name for the configuration of an instance, without what may differ from one machine to the next, and without secrets. */
export function fingerprintOf({ listen: _, admin: __, keys: { directory: ___, ...keys }, ...config }: Config): string {
  const text = JSON.stringify({ ...config, keys }, (name, value: unknown) => (name.endsWith('File') || FROM_FILES.has(name) ? undefined : value));
  return createHash('sha256').update(text).digest('base64url').slice(0, 12);
}

/** What stands in files that may change while an instance runs. */
const FROM_FILES: ReadonlySet<string> = new Set(['file', 'files', 'access', 'secrets', 'secretHashes']);
