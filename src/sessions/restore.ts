import type { Clock } from '../clock.js';
import type { CookieLife } from '../formats/format.js';
import { sidOf } from '../formats/sid.js';
import type { KnownEnds } from '../login.js';
import type { KeptSession } from './kept-session.js';
import type { SessionLedger } from './ledger.js';
import type { SessionEntry } from './record.js';

/** A session that was made anew of its dormant copy. */
export interface RestoredSession {
  readonly sid: string;
  readonly entry: string;
  readonly key: string;
}

export interface RestoreOptions {
  readonly entries: readonly SessionEntry[];
  readonly ledger: Pick<SessionLedger, 'link'>;
  readonly heard: Pick<KnownEnds, 'endedPerson'>;
  readonly clock: Clock;
}

export interface Restore {
  /** Whether `restore` would make a session. */
  canRestore(kept: KeptSession, endsAtMs: number): boolean;
  /**
   * Writes the dormant copy as a record under a new id, never under one that a client presents. Undefined where that cannot be
   * done: the format is no longer configured, or the app's ids cannot be made.
   * @throws {CrossfadeError} `temporarily_unavailable`.
   */
  restore(kept: KeptSession, endsAtMs: number): Promise<RestoredSession | undefined>;
  /** Notes that a restored session continues another, so that they end together. May be repeated. @throws {CrossfadeError} `temporarily_unavailable`. */
  link(restored: RestoredSession, predecessor: string, endsAtMs: number): Promise<void>;
  /** Takes a restored record away again, where it was not needed. */
  discard(session: RestoredSession): Promise<void>;
  /** How long the app would let the browser keep the cookie of this record. Undefined: the record does not say. */
  cookieLifeOf(entry: string, text: string): CookieLife | undefined;
  /** The cookies that open a session. Undefined where its format is no longer configured, or no secret is there to sign them. */
  cookiesOf(entry: string, key: string): readonly (readonly [name: string, value: string])[] | undefined;
}

export function createRestore({ entries, ledger, heard, clock }: RestoreOptions): Restore {
  const byName = new Map(entries.map((entry) => [entry.name, entry]));

  function make(kept: KeptSession, endsAtMs: number) {
    const entry = byName.get(kept.entry);
    // It gets another sid: one that was spared when its person was ended would be spared no longer.
    if (heard.endedPerson('', kept)) return undefined;
    const nowMs = clock.now();
    const record = entry?.format.restore({ ...kept, nowMs, endsAtMs, rolling: entry.limits.rolling });
    return entry && record && record.ttlMs > 0 ? { entry, record } : undefined;
  }

  return {
    canRestore: (kept, endsAtMs) => make(kept, endsAtMs) !== undefined,

    async restore(kept, endsAtMs) {
      const made = make(kept, endsAtMs);
      if (!made) return undefined;
      const { entry, record } = made;
      const restored = { sid: sidOf(entry.name, record.key), entry: entry.name, key: record.key };
      await entry.store.create(record.key, record.text, record.ttlMs);
      return restored;
    },

    link: async (restored, predecessor, endsAtMs) => await ledger.link(restored, predecessor, Math.max(1, endsAtMs - clock.now())),

    async discard({ entry, key }) {
      await byName
        .get(entry)
        ?.store.remove(key)
        .catch(() => undefined); // Nobody knows its id: it ends by itself.
    },

    cookieLifeOf: (entry, text) => byName.get(entry)?.format.cookieLife(text),

    cookiesOf(name, key) {
      const pairs = byName.get(name)?.format.cookiesOf(key);
      return pairs && pairs.length > 0 ? pairs : undefined;
    },
  };
}
