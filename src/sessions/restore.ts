import type { Clock } from '../clock.js';
import { unavailable } from '../errors.js';
import type { KeptSession } from './kept-session.js';
import type { SessionLedger } from './ledger.js';
import { type SessionEntry, sidOf } from './record.js';

/** A session that was made anew of its dormant copy. */
export interface RestoredSession {
  readonly sid: string;
  readonly entry: string;
  readonly key: string;
}

export interface RestoreOptions {
  readonly entries: readonly SessionEntry[];
  readonly ledger: Pick<SessionLedger, 'continue'>;
  /** How long access tokens of the old session may still live: its logout has to reach them. */
  readonly accessLifeMs: number;
  readonly clock: Clock;
}

export interface Restore {
  /**
   * Writes the dormant copy as a record under a new id, never under one that a client presents. Undefined where that cannot be
   * done: the format is no longer configured, or the app's ids cannot be made.
   * @throws {CrossfadeError} `temporarily_unavailable`.
   */
  restore(kept: KeptSession, predecessor: string, endsAtMs: number): Promise<RestoredSession | undefined>;
  /** Takes a restored record away again, where it was not needed. */
  discard(session: RestoredSession): Promise<void>;
  /** The cookies that open a session. Undefined where its format is no longer configured. */
  cookiesOf(entry: string, key: string): readonly (readonly [name: string, value: string])[] | undefined;
}

export function createRestore({ entries, ledger, accessLifeMs, clock }: RestoreOptions): Restore {
  const byName = new Map(entries.map((entry) => [entry.name, entry]));

  return {
    async restore(kept, predecessor, endsAtMs) {
      const entry = byName.get(kept.entry);
      const restored = entry?.format.restore({
        key: kept.key,
        text: kept.text,
        nowMs: clock.now(),
        endsAtMs,
        rolling: entry.limits.rolling,
      });
      if (!entry || !restored || restored.ttlMs <= 0) return undefined;
      const sid = sidOf(entry.name, restored.key);
      await ledger.continue(sid, predecessor, accessLifeMs);
      await entry.client.set(restored.key, restored.text, 'PX', Math.ceil(restored.ttlMs), 'NX').catch((cause: unknown) => {
        throw unavailable('redis', cause);
      });
      return { sid, entry: entry.name, key: restored.key };
    },

    async discard({ entry, key }) {
      await byName
        .get(entry)
        ?.client.del(key)
        .catch(() => undefined); // Nobody knows its id: it ends by itself.
    },

    cookiesOf: (name, key) => byName.get(name)?.format.cookiesOf(key),
  };
}
