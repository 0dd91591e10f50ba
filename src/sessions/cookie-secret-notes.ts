import { z } from 'zod';
import { type Note, noteSchema } from '../formats/entry-secrets.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { parseJson } from '../redis/replies.js';

/** How long a prolonged note lasts at least: longer than an instance takes to come to it again. */
export const PROLONG_MS = 30_000;

/** Of which secret of an entry a field of the Redis hash speaks: `note`, where it stands; `seen`, that the app has signed with it. */
export const fieldOf = (what: 'note' | 'seen', entry: string, name: string) => `${what} ${entry} ${name}`;

export function partsOf(field: string): { readonly what: string; readonly entry: string; readonly name: string } {
  const [what = '', entry = '', name = ''] = field.split(' ');
  return { what, entry, name };
}

/** The app has signed with it. */
const seenSchema = z.object({ at: z.number() });

/** How notes on cookie secrets stand in Redis: sealed, since they hold the secret; signed, where they only say that it was seen. */
export function createNoteForms(secrets: FleetSecrets, nowMs: () => number) {
  const contextOf = (field: string) => `cookie-secret\0${field}`;
  return {
    writeSeen: (field: string) => secrets.sign(contextOf(field), JSON.stringify({ at: nowMs() })),
    write: (field: string, note: Note) => secrets.seal(contextOf(field), JSON.stringify(note)),

    isSeen(field: string, value: string): boolean {
      const text = secrets.openSigned(contextOf(field), value);
      return text !== undefined && seenSchema.safeParse(parseJson(text)).success;
    },

    read(field: string, value: string, keepSeconds: number): Note | undefined {
      const text = secrets.unseal(contextOf(field), value);
      const note = text === undefined ? undefined : noteSchema.safeParse(parseJson(text)).data;
      if (!note || secrets.isRevoked(note.under ?? [])) return undefined;
      const { until, under: before, ...rest } = note;
      // However far ahead it says, no secret that a file has lost verifies for longer than is configured here.
      const latest = nowMs() + Math.max(keepSeconds * 1000, PROLONG_MS);
      return { ...rest, ...(until === undefined ? {} : { until: Math.min(until, latest) }), ...secrets.passedThrough(before, value) };
    },
  };
}
