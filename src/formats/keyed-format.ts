import { hash } from 'node:crypto';
import { createRecent } from '../recent.js';
import type { CookieScheme, PresentedId } from './cookie-scheme.js';
import type { DormantRecord, LocatedSession, ParsedRecord, RecordShape, SessionFormat } from './format.js';
import { sidOf } from './sid.js';

/** What an app's own generator of ids may make, once its signature has proven that the app made it. */
export const SIGNED_ID = /^(?!.*\.\.)[\w.:+/=~-]{1,256}$/;

/** Of a request's cookies, those that name a record, at most: each costs a read. */
const MAX_RECORDS = 16;
const MAX_PAIR_BYTES = 4096;
/** Cookies that are known to be signed, in any case, ~150 bytes each. */
const MAX_PROVEN = 100_000;

export interface KeyedFormatOptions {
  /** Name of the config's entry. */
  readonly entry: string;
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
export function createKeyedFormat({ entry, scheme, shape, keyOf, idPattern, reservedPrefix }: KeyedFormatOptions): SessionFormat {
  const { before, behind } = keyOf;

  /** The sessions of cookies whose signature was found good, under the SHA-256 of id and signature: who reads this can make no cookie. */
  const proven = createRecent<string, { readonly sid: string; readonly signer: string }>({ max: MAX_PROVEN });

  function locateOne({ id, proof, signer }: PresentedId): LocatedSession {
    const key = before + id + behind;
    const digest = proof === undefined ? undefined : hash('sha256', proof, 'binary');
    const known = digest === undefined ? undefined : proven.get(digest);
    if (known !== undefined && scheme.isSigner(known.signer)) return { key, ...known };
    if (id.length + (scheme.cookieNames[0]?.length ?? 0) >= MAX_PAIR_BYTES || !idPattern.test(id) || key.startsWith(reservedPrefix))
      return { rejected: 'bad-id' };
    const by = signer();
    if (by === undefined) return { rejected: 'bad-signature' };
    const found = { sid: sidOf(entry, key), signer: by };
    if (digest !== undefined) proven.set(digest, found);
    return { key, ...found };
  }

  const idIn = (key: string) => key.slice(before.length, key.length - behind.length);

  return {
    storage: shape.storage,
    endsWithKey: shape.endsWithKey,
    cookieNames: scheme.cookieNames,

    locate(cookies) {
      const located = scheme.read(cookies).map(locateOne);
      if (located.length < 2) return located;
      const named = located.filter((outcome) => 'key' in outcome);
      return named.length > 0 ? named.slice(0, MAX_RECORDS) : located;
    },

    parse: ({ text, ttlMs }, nowMs) => endOf(shape.read(text), ttlMs, nowMs),

    cookiesOf: (key) => scheme.write(idIn(key)),
    cookieLife: shape.cookieLife,

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
export function endOf(found: ReturnType<RecordShape['read']>, ttlMs: number | undefined, nowMs: number): ParsedRecord {
  if (!found) return { rejected: 'unreadable-record' };
  const { record, expiresAtMs: own = Number.POSITIVE_INFINITY, idleMs } = found;
  const expiresAtMs = ttlMs === undefined || ttlMs < 0 ? own : Math.min(own, nowMs + ttlMs);
  if (expiresAtMs < nowMs) return EXPIRED;
  return { record, expiresAtMs: Number.isFinite(expiresAtMs) ? expiresAtMs : undefined, idleMs };
}

const EXPIRED: ParsedRecord = { rejected: 'expired' };

/** It ends with what it is made for, and no later than it would have itself: unused, where use prolongs it, else at its old end. */
function newEnd({ nowMs, endsAtMs, rolling }: DormantRecord, oldEndMs: number | undefined, idleMs: number | undefined): number {
  return Math.min(endsAtMs, rolling && idleMs !== undefined ? nowMs + idleMs : (oldEndMs ?? endsAtMs));
}
