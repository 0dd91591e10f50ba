import { LRUCache } from 'lru-cache';
import type { LiveSession } from '../sessions/record.js';

/** Where a record is, and whose it was when it was last seen. */
export interface KnownPlace {
  readonly entry: string;
  readonly key: string;
  readonly subject: string;
}

/** Where the records are of sessions that tokens were made from, as far as this instance has seen them: Redis may forget it. */
export interface Places {
  note(session: LiveSession): void;
  find(sid: string): KnownPlace | undefined;
  /** The sessions of a person, by `sid`. */
  ofSubject(subject: string): readonly string[];
}

/** ~250 bytes each. */
const MAX_PLACES = 200_000;

export function createPlaces(): Places {
  const bySubject = new Map<string, Set<string>>();
  const places = new LRUCache<string, KnownPlace>({
    max: MAX_PLACES,
    dispose({ subject }, sid) {
      const sids = bySubject.get(subject);
      sids?.delete(sid);
      if (sids?.size === 0) bySubject.delete(subject);
    },
  });
  return {
    note({ sid, identity: { subject }, source: { entry, key } }) {
      const known = places.get(sid);
      if (known?.subject === subject && known.entry === entry && known.key === key) return;
      // The one before is disposed of first.
      places.set(sid, { entry, key, subject });
      bySubject.set(subject, (bySubject.get(subject) ?? new Set()).add(sid));
    },
    find: (sid) => places.get(sid),
    ofSubject: (subject) => [...(bySubject.get(subject) ?? [])],
  };
}
