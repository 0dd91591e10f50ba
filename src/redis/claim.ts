import type { RedisClient } from './client.js';
import { absentIfForeign, loadScript } from './script.js';

/** What one instance does for all. Rejects with what ioredis rejects with. */
export interface Claim {
  /** Takes it, or keeps it. False: another instance has it. `work`: what this instance has it for; there may be more than one at a time. */
  take(work: string): Promise<boolean>;
  /** Gives it up, unless it is held for another work. */
  release(work: string): Promise<void>;
}

/** What was done, for the others. Rejects with what ioredis rejects with. */
export interface DoneNote {
  read(): Promise<string | undefined>;
  write(note: string): Promise<void>;
}

/** An instance that works says so again at least once in this time; else another one takes over. */
const CLAIM_MS = 5000;
const DONE_MS = 60_000;

const claimWork = loadScript('claim', ['string']);
const removeValue = loadScript('remove-value');

/** `name`: of this instance. */
export function createClaim(client: RedisClient, key: string, name: string): Claim {
  const works = new Set<string>();
  return {
    async take(work) {
      const isMine = String(await claimWork(client, [key], [name, CLAIM_MS])) === name;
      if (isMine) works.add(work);
      else works.clear();
      return isMine;
    },
    async release(work) {
      works.delete(work);
      if (works.size === 0) await removeValue(client, [key], [name, '']);
    },
  };
}

export function createDoneNote(client: RedisClient, key: string): DoneNote {
  return {
    read: async () => (await client.get(key).catch(absentIfForeign<string | null>(null))) ?? undefined,
    async write(note) {
      await client.set(key, note, 'PX', DONE_MS);
    },
  };
}
