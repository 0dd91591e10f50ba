import { LRUCache } from 'lru-cache';
import type { LiveSession } from './record.js';

/** Where a record is, and whose it was when it was last seen. */
export interface KnownPlace {
  readonly entry: string;
  readonly key: string;
  readonly subject: string;
}

/** Where the records are of sessions that tokens were made from, as far as this instance has seen them: Redis may forget it. */
export interface Places {
  note(session: LiveSession): void;
  of(sid: string): KnownPlace | undefined;
  /** The sessions of a person, by `sid`. Looks at all that is known. */
  ofSubject(subject: string): readonly string[];
}

/** ~150 bytes each. */
const MAX_PLACES = 200_000;

export function createPlaces(): Places {
  const places = new LRUCache<string, KnownPlace>({ max: MAX_PLACES });
  return {
    note({ sid, identity: { subject }, source: { entry, key } }) {
      places.set(sid, { entry, key, subject });
    },
    of: (sid) => places.get(sid),
    ofSubject: (subject) => [...places.entries()].flatMap(([sid, place]) => (place.subject === subject ? [sid] : [])),
  };
}
