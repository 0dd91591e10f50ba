import { z } from 'zod';
import { type Members, readEntries, readMembers, writeEntries, writeMembers } from '../redis/entries.js';
import { parseJson } from '../redis/replies.js';
import type { Codec, SignedValue } from '../redis/signed-value.js';

const deniedSchema = z.strictObject({
  kid: z.string(),
  at: z.number(),
  /** `revoked` because it has leaked, `retired` because nothing that it signed lives any more. */
  how: z.enum(['revoked', 'retired']),
  why: z.string(),
});

export type DeniedKey = z.output<typeof deniedSchema> & {
  /** The JSON text that it is in Redis, where a later release has written something that this one does not understand. */
  readonly text?: string;
};

export interface DenyListContent {
  readonly kids: readonly DeniedKey[];
  /** Entries that name no key here, as the texts that they are. */
  readonly unread: readonly string[];
  /** What else a later release keeps there. */
  readonly rest: Members;
}

/** A key that is denied in a way that is not understood counts as revoked. */
function readDenied(text: string): DeniedKey | undefined {
  const found = parseJson(text);
  const denied = deniedSchema.safeParse(found);
  if (denied.success) return denied.data;
  const { kid, at, how, why } = deniedSchema.shape;
  const tolerant = z.object({ kid, at: at.catch(0), how: how.catch('revoked'), why: why.catch('by a later release') }).safeParse(found);
  return tolerant.success ? { ...tolerant.data, text } : undefined;
}

export const denyListCodec: Codec<DenyListContent> = {
  read(payload) {
    const members = readMembers(payload);
    const entries = readEntries(members?.get('kids'));
    if (!members || !entries) return undefined;
    const kids = entries.map((text) => readDenied(text) ?? text);
    return {
      kids: kids.filter((one) => typeof one !== 'string'),
      unread: kids.filter((one) => typeof one === 'string'),
      rest: new Map([...members].filter(([name]) => name !== 'kids')),
    };
  },
  write({ kids, unread, rest }) {
    const texts = kids.map(({ text, ...denied }) => text ?? JSON.stringify(denied));
    return writeMembers([...rest, ['kids', writeEntries([...texts, ...unread])]]);
  },
};

/** The keys that are out of use for good: whoever offers one again, from a file or through Redis, offers it in vain. */
export interface DenyList {
  readonly kids: ReadonlyMap<string, DeniedKey>;
  /** Hears what the fleet has taken out of use, and tells Redis again what it has lost. Rejects with what ioredis rejects with. */
  sync(): Promise<void>;
  deny(key: DeniedKey): Promise<void>;
}

export function createDenyList(stored: SignedValue<DenyListContent>): DenyList {
  const kids = new Map<string, DeniedKey>();
  const unread = new Set<string>();
  let rest: Members = new Map();

  /** What was denied once stays so: Redis may have been flushed, or hold an older list. */
  async function unite(more: readonly DeniedKey[]): Promise<void> {
    await stored.update((current) => {
      const known = current?.kids ?? [];
      for (const key of [...known, ...more]) {
        const before = kids.get(key.kid);
        if (!before || (before.how === 'retired' && key.how === 'revoked')) kids.set(key.kid, key);
      }
      for (const text of current?.unread ?? []) unread.add(text);
      rest = current?.rest ?? rest;
      const isWhole =
        known.length === kids.size &&
        known.every((key) => JSON.stringify(kids.get(key.kid)) === JSON.stringify(key)) &&
        (current?.unread.length ?? 0) === unread.size;
      return isWhole ? undefined : { kids: [...kids.values()], unread: [...unread], rest };
    });
  }

  return { kids, sync: async () => await unite([]), deny: async (key) => await unite([key]) };
}
