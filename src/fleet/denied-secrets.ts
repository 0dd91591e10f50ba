import { z } from 'zod';
import { type Members, readEntries, readMembers, writeEntries, writeMembers } from '../redis/entries.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { parseJson } from '../redis/replies.js';
import type { Codec, SignedValue } from '../redis/signed-value.js';

const deniedSchema = z.looseObject({
  name: z.string(),
  /** Whether the fleet began with it: what it has written bears no name. */
  isFirst: z.boolean().catch(false),
  at: z.number().catch(0),
  /** `finished` because nothing was left under it, `revoked` because it has leaked. */
  how: z.enum(['finished', 'revoked']).catch('revoked'),
  why: z.string().catch('by a later release'),
});

export type DeniedFleetSecret = Pick<z.output<typeof deniedSchema>, 'name' | 'isFirst' | 'at' | 'how' | 'why'>;

export interface DeniedSecretsContent {
  readonly entries: readonly string[];
  /** What else a later release keeps there. */
  readonly rest: Members;
}

export const deniedSecretsCodec: Codec<DeniedSecretsContent> = {
  read(payload) {
    const members = readMembers(payload);
    const entries = readEntries(members?.get('secrets'));
    return members && entries && { entries, rest: new Map([...members].filter(([name]) => name !== 'secrets')) };
  },
  write: ({ entries, rest }) => writeMembers([...rest, ['secrets', writeEntries(entries)]]),
};

/** The fleet secrets that are out of use for good, whatever a file says. */
export interface DeniedSecrets {
  readonly all: readonly DeniedFleetSecret[];
  /** Hears what the fleet has taken out of use, and tells Redis again what it has lost. Rejects with what ioredis rejects with. */
  sync(): Promise<void>;
  deny(secret: DeniedFleetSecret): Promise<void>;
}

export function createDeniedSecrets(stored: SignedValue<DeniedSecretsContent>, secrets: FleetSecrets): DeniedSecrets {
  const known = new Map<string, DeniedFleetSecret>();
  /** As they are in Redis, with the secret under which they were said. */
  const texts = new Map<string, string>();
  let rest: Members = new Map();

  /** A secret that has leaked must not take a newer one out of use. */
  function denyEntry(text: string, under: string): void {
    const found = deniedSchema.safeParse(parseJson(text)).data;
    // What is refused is not kept either: under a newer secret it would count.
    if (found && !secrets.mayDeny(under, found.name)) return;
    texts.set(text, under);
    if (!found) return;
    if (!known.has(found.name) || found.how === 'revoked') known.set(found.name, found);
    secrets.deny([{ name: found.name, isFirst: found.isFirst, isRevoked: found.how === 'revoked', under }]);
  }

  /** The file may have brought a secret since that must not be denied so. */
  function judgeAgain(): void {
    for (const [text, under] of texts) {
      const found = deniedSchema.safeParse(parseJson(text)).data;
      if (!found || secrets.mayDeny(under, found.name)) continue;
      texts.delete(text);
      known.delete(found.name);
    }
  }

  async function unite(more: readonly string[]): Promise<void> {
    judgeAgain();
    await stored.update((current, under) => {
      const before = current?.entries ?? [];
      for (const text of before) denyEntry(text, under ?? '');
      for (const text of more) denyEntry(text, secrets.writes);
      rest = current?.rest ?? rest;
      return before.length === texts.size && before.every((text) => texts.has(text)) ? undefined : { entries: [...texts.keys()], rest };
    });
  }

  return {
    get all() {
      return [...known.values()];
    },
    sync: async () => await unite([]),
    deny: async (secret) => await unite([JSON.stringify(secret)]),
  };
}
