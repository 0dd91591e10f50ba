import { z } from 'zod';
import type { Seals } from '../redis/fleet-keyring.js';

const schema = z.object({
  /** Name of the config's entry, and the record's key in that entry's Redis. */
  entry: z.string(),
  key: z.string(),
  /** The record as it was last seen: the dormant copy (law 5). */
  text: z.string(),
  subject: z.string(),
  tenant: z.string().optional(),
  authTimeMs: z.number().optional(),
  /** When the record was to end, in ms since the epoch; absent where it had no end. */
  expiresAtMs: z.number().optional(),
  /** How long it might lie unused then, in ms; absent where nothing says so. */
  idleMs: z.number().optional(),
  /** The fleet secrets that it was sealed under before. */
  under: z.array(z.string()).optional(),
  /** What was unchanged in its Redis then: if it still is, a record that is gone was taken away by somebody. */
  epoch: z.string().optional(),
});

/** What is known of a session that tokens were made from: enough to find it, to tell a logout, and to bring it back. */
export type KeptSession = z.output<typeof schema>;

/** Only the fleet can read or make one; it is bound to its `sid`. */
export function sealKeptSession(secrets: Pick<Seals, 'seal'>, sid: string, kept: KeptSession): string {
  return secrets.seal(contextOf(sid), JSON.stringify(kept));
}

/** Undefined for what the fleet has not sealed for this `sid`; `later` for what a later release has sealed and this one does not understand. */
export function openKeptSession(secrets: Pick<Seals, 'unseal'>, sid: string, sealed: string): KeptSession | 'later' | undefined {
  const text = secrets.unseal(contextOf(sid), sealed);
  return text === undefined ? undefined : (schema.safeParse(JSON.parse(text)).data ?? 'later');
}

const contextOf = (sid: string) => `session\0${sid}`;
