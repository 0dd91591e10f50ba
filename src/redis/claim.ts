import type { RedisClient } from './connection.js';
import { absentIfForeign, loadScript } from './script.js';

/** A work that one instance does for all. Rejects with what ioredis rejects with. */
export interface Claim {
  /** Takes it, or keeps it. False: another instance has it. */
  take(): Promise<boolean>;
  /** Gives it up. `note`: what was done, for the others. */
  finish(note: string): Promise<void>;
  /** What the last one has noted of a work that is done. */
  finished(): Promise<string | undefined>;
}

/** An instance that works says so again at least once in this time; else another one takes over. */
const CLAIM_MS = 5000;
const DONE_MS = 60_000;
const DONE = 'done:';

const claimWork = loadScript('claim', ['string']);

/** `name`: of this instance. */
export function createClaim(client: RedisClient, key: string, name: string): Claim {
  return {
    take: async () => String(await claimWork(client, [key], [name, CLAIM_MS])) === name,
    async finish(note) {
      await client.set(key, DONE + note, 'PX', DONE_MS);
    },
    async finished() {
      const held = await client.get(key).catch(absentIfForeign<string | null>(null));
      return held?.startsWith(DONE) ? held.slice(DONE.length) : undefined;
    },
  };
}
