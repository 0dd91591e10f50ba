import type { SignedValue } from '../redis/signed-value.js';
import type { Log } from '../telemetry/log.js';
import type { FlagSnapshot } from './flag-store.js';

/** The last good flags in Redis: for a start while the flag source cannot be used. */
export interface LastKnownFlags {
  /** Never rejects. */
  keep(snapshot: FlagSnapshot): Promise<void>;
  /** Undefined where there are none, or Redis is away. */
  read(): Promise<FlagSnapshot | undefined>;
}

const MAX_BYTES = 1_048_576;

export function createLastKnownFlags(stored: SignedValue<FlagSnapshot>, log: Log): LastKnownFlags {
  return {
    async keep(snapshot) {
      if (JSON.stringify(snapshot).length > MAX_BYTES) {
        log.warn('the flags are too large to keep in Redis; a cold start without their source would use the default stage');
        return;
      }
      await stored
        .update((current) => (JSON.stringify(current) === JSON.stringify(snapshot) ? undefined : snapshot))
        .catch((error: unknown) => log.warn({ err: error }, 'the last known flags could not be kept in Redis'));
    },
    read: async () => await stored.read().catch(() => undefined),
  };
}

/** For whoever only looks: nothing is written. */
export function readOnly({ read }: LastKnownFlags): LastKnownFlags {
  return { read, keep: async () => undefined };
}
