import type { SessionRejection } from '../principal.js';
import type { CookiePairs } from './cookies.js';

/** What a cookie says of itself, before Redis is asked: the key of its record, or why it names none. */
export type LocatedSession = { readonly key: string } | { readonly rejected: SessionRejection };

/** A record as the legacy app wrote it. */
export type SessionRecord = Readonly<Record<string, unknown>>;

export type ParsedRecord =
  | {
      readonly record: SessionRecord;
      /** When the session ends, in ms since the epoch; absent where neither the record nor Redis knows an end. */
      readonly expiresAtMs?: number;
      /** How long the session may lie unused, in ms, where the record says so. */
      readonly idleMs?: number;
    }
  | { readonly rejected: SessionRejection };

/** What Redis has under a session's key, read in one round trip. */
export interface StoredRecord {
  readonly text: string;
  /** Redis' own time to live in ms; negative where the key has none. */
  readonly ttlMs: number;
}

/**
 * How one kind of legacy app keeps its sessions: the contract between the bridge and a format. A format does no I/O and
 * throws nothing; what it cannot use it rejects with a reason.
 */
export interface SessionFormat {
  /** One answer for each cookie of this format's name, in their order; none where the request has no such cookie. */
  locate(cookies: CookiePairs): readonly LocatedSession[];
  parse(stored: StoredRecord, nowMs: number): ParsedRecord;
  /** Names of the cookies that this format reads, signature included. */
  readonly cookieNames: readonly string[];
  /** The cookies, signed as the app signs, of a browser whose session has this key. */
  cookiesOf(key: string): readonly (readonly [name: string, value: string])[];
  /** A record made of one that is gone, under a new id. Undefined where it is no record, or no id can be made that the app would take. */
  restore(dormant: DormantRecord): RestoredRecord | undefined;
}

/** A record as it was last seen, and how long what is made of it may live. Times in ms. */
export interface DormantRecord {
  readonly key: string;
  readonly text: string;
  readonly nowMs: number;
  readonly endsAtMs: number;
  /** Whether use prolongs such a session: then it gets its idle life anew, else its old end. */
  readonly rolling: boolean;
}

export interface RestoredRecord {
  readonly key: string;
  readonly text: string;
  readonly ttlMs: number;
}
