import { z } from 'zod';
import type { SignedValue } from '../redis/signed-value.js';

export const denyListSchema = z.object({
  kids: z.array(
    z.object({
      kid: z.string(),
      at: z.number(),
      /** `revoked` because it has leaked, `retired` because nothing that it signed lives any more. */
      how: z.enum(['revoked', 'retired']),
      why: z.string(),
    }),
  ),
});

export type DenyListContent = z.output<typeof denyListSchema>;
export type DeniedKey = DenyListContent['kids'][number];

/** The keys that are out of use for good: whoever offers one again, from a file or through Redis, offers it in vain. */
export interface DenyList {
  readonly kids: ReadonlyMap<string, DeniedKey>;
  /** Hears what the fleet has taken out of use, and tells Redis again what it has lost. Rejects with what ioredis rejects with. */
  sync(): Promise<void>;
  deny(key: DeniedKey): Promise<void>;
}

export function createDenyList(stored: SignedValue<DenyListContent>): DenyList {
  const kids = new Map<string, DeniedKey>();

  /** What was denied once stays so: Redis may have been flushed, or hold an older list. */
  async function unite(more: readonly DeniedKey[]): Promise<void> {
    await stored.update((current) => {
      const known = current?.kids ?? [];
      for (const key of [...known, ...more]) if (!kids.has(key.kid)) kids.set(key.kid, key);
      return known.length === kids.size ? undefined : { kids: [...kids.values()] };
    });
  }

  return { kids, sync: async () => await unite([]), deny: async (key) => await unite([key]) };
}
