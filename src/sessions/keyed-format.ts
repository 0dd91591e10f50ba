import type { CookieScheme, PresentedId } from './cookie-scheme.js';
import type { DormantRecord, LocatedSession, ParsedRecord, RecordShape, SessionFormat } from './format.js';

/** What an app's own generator of ids may make, once its signature has proven that the app made it. */
export const SIGNED_ID = /^(?!.*\.\.)[\w.:+/=~-]{1,256}$/;

/** Of a request's cookies, those that name a record, at most: each costs a read. */
const MAX_RECORDS = 4;
const MAX_PAIR_BYTES = 4096;

export interface KeyedFormatOptions {
  readonly scheme: CookieScheme;
  readonly shape: RecordShape;
  /** What stands before and behind an id in the Redis key. */
  readonly keyOf: { readonly before: string; readonly behind: string };
  /** What a whole id must match. */
  readonly idPattern: RegExp;
  /** What the bridge's own keys start with: no cookie may name one. */
  readonly reservedPrefix: string;
}

/** A format whose cookie holds an id, and whose records are in Redis under a key that is made of it. */
export function createKeyedFormat({ scheme, shape, keyOf, idPattern, reservedPrefix }: KeyedFormatOptions): SessionFormat {
  const { before, behind } = keyOf;

  function locateOne({ id, isSigned }: PresentedId): LocatedSession {
    const key = before + id + behind;
    if (id.length + (scheme.cookieNames[0]?.length ?? 0) >= MAX_PAIR_BYTES || !idPattern.test(id) || key.startsWith(reservedPrefix))
      return { rejected: 'bad-id' };
    return isSigned() ? { key } : { rejected: 'bad-signature' };
  }

  const idIn = (key: string) => key.slice(before.length, key.length - behind.length);

  return {
    storage: shape.storage,
    cookieNames: scheme.cookieNames,

    locate(cookies) {
      const located = scheme.read(cookies).map(locateOne);
      const named = located.filter((outcome) => 'key' in outcome);
      return named.length > 0 ? named.slice(0, MAX_RECORDS) : located;
    },

    parse: ({ text, ttlMs }, nowMs) => endOf(shape.read(text), ttlMs, nowMs),

    cookiesOf: (key) => scheme.write(idIn(key)),

    restore(dormant) {
      const found = shape.read(dormant.text);
      const id = shape.newIds(idIn(dormant.key)).find((one) => idPattern.test(one));
      if (!found || id === undefined) return undefined;
      const endsAtMs = newEnd(dormant, found.expiresAtMs ?? dormant.expiresAtMs, found.idleMs ?? dormant.idleMs);
      const text = writeEnd(shape, dormant.text, endsAtMs);
      if (text === undefined) return undefined;
      return {
        key: before + id + behind,
        text,
        ttlMs: endsAtMs <= dormant.nowMs ? 0 : endsAtMs - dormant.nowMs + shape.outlivesMs,
      };
    },
  };
}

/** Undefined where what was written would not be read as it is meant: such a session is not brought back. */
function writeEnd(shape: RecordShape, text: string, endsAtMs: number): string | undefined {
  try {
    const written = shape.withEnd(text, endsAtMs);
    const again = shape.read(written);
    return again && (again.expiresAtMs ?? endsAtMs) <= endsAtMs ? written : undefined;
  } catch {
    // Nested deeper than the stack: nothing that an app would have made.
    return undefined;
  }
}

/** A session ends where its record says, or with its key, whichever is earlier. */
export function endOf(found: ReturnType<RecordShape['read']>, ttlMs: number, nowMs: number): ParsedRecord {
  if (!found) return { rejected: 'unreadable-record' };
  const { expiresAtMs: own, ...rest } = found;
  const expiresAtMs = Math.min(own ?? Number.POSITIVE_INFINITY, ttlMs < 0 ? Number.POSITIVE_INFINITY : nowMs + ttlMs);
  if (expiresAtMs < nowMs) return { rejected: 'expired' };
  return Number.isFinite(expiresAtMs) ? { ...rest, expiresAtMs } : rest;
}

/** It ends with what it is made for, and no later than it would have itself: unused, where use prolongs it, else at its old end. */
function newEnd({ nowMs, endsAtMs, rolling }: DormantRecord, oldEndMs: number | undefined, idleMs: number | undefined): number {
  return Math.min(endsAtMs, rolling && idleMs !== undefined ? nowMs + idleMs : (oldEndMs ?? endsAtMs));
}
