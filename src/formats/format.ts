import type { SessionRejection } from '../principal.js';
import type { CookiePairs } from './cookies.js';

/** What a cookie says of itself, before anybody is asked: the key of its record, or why it names none. */
export type LocatedSession = RecordPlace | { readonly rejected: SessionRejection };

/** Where a session is: what its cookie says. */
export interface RecordPlace {
  readonly key: string;
  readonly sid: string;
  /** Name of the cookie secret that has signed it; absent where no cookie came, or the app does not sign. */
  readonly signer?: string | undefined;
}

/**
 * How long the browser keeps the cookie of a session, as the app writes it: until it is closed (`browser`), until a time, or for a time from
 * when the cookie is written. In ms.
 */
export type CookieLife = 'browser' | { readonly untilMs: number } | { readonly forMs: number };

/** A record as the legacy app wrote it. */
export type SessionRecord = Readonly<Record<string, unknown>>;

/** What a record says, whether it has ended or not. */
export interface ReadRecord {
  readonly record: SessionRecord;
  /** When the session ends, in ms since the epoch; absent where the record does not say. */
  readonly expiresAtMs?: number | undefined;
  /** How long the session may lie unused, in ms, where the record says so. */
  readonly idleMs?: number | undefined;
}

/** The same with what the store knows of its end: absent where neither knows one. */
export type ParsedRecord = ReadRecord | { readonly rejected: SessionRejection };

/**
 * How a record lies in Redis: as text in a string, as bytes in one (kept as a text of one character for each byte), or as the fields of
 * a hash (kept as their JSON, the values a character for each byte).
 */
export type RecordStorage = 'text' | 'bytes' | 'hash';

/** What is stored under a session's key. */
export interface StoredRecord {
  readonly text: string;
  /** The store's own time to live in ms; negative where the key has none, undefined where it was not asked. */
  readonly ttlMs: number | undefined;
}

/**
 * How one kind of legacy app keeps its sessions: the contract between the bridge and a format. A format does no I/O and
 * throws nothing; what it cannot use it rejects with a reason.
 */
export interface SessionFormat {
  readonly storage: RecordStorage;
  /** Whether only the store knows when a session ends. */
  readonly endsWithKey: boolean;
  /** One answer for each cookie of this format's name, in their order; none where the request has no such cookie. */
  locate(cookies: CookiePairs): readonly LocatedSession[];
  parse(stored: StoredRecord, nowMs: number): ParsedRecord;
  /** Names of the cookies that this format reads, signature included. */
  readonly cookieNames: readonly string[];
  /** The cookies, signed as the app signs, of a browser whose session has this key. */
  cookiesOf(key: string): readonly (readonly [name: string, value: string])[];
  /** How long the app would let the browser keep the cookie of this record. Undefined: the record does not say. */
  cookieLife(text: string): CookieLife | undefined;
  /** A record made of one that is gone, under a new id. Undefined where it is no record, or no id can be made that the app would take. */
  restore(dormant: DormantRecord): RestoredRecord | undefined;
}

/** A record as it was last seen, and how long what is made of it may live. Times in ms. */
export interface DormantRecord {
  readonly key: string;
  readonly text: string;
  /** When it was to end, where only the store knew. */
  readonly expiresAtMs?: number | undefined;
  /** How long it might lie unused, where only the store knew. */
  readonly idleMs?: number | undefined;
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

/** What tells one kind of record from another: all that a format knows beside cookie and key. */
export interface RecordShape {
  readonly storage: RecordStorage;
  /** Whether a record never says when it ends. */
  readonly endsWithKey: boolean;
  /** What the app makes by itself for an id. */
  readonly generatedId: RegExp;
  /** Undefined for what is no record of this kind. */
  read(text: string): ReadRecord | undefined;
  /** The same record, to end at another time, in ms since the epoch. */
  withEnd(text: string, endsAtMs: number): string;
  /** As `SessionFormat.cookieLife`. */
  cookieLife(text: string): CookieLife | undefined;
  /** How much longer than the session the app keeps the record, in ms. */
  readonly outlivesMs: number;
  /** New ids in the app's own spelling, the most likely first. */
  newIds(oldId: string): readonly string[];
}
