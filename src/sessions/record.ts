import { type Clock, readingsOf } from '../clock.js';
import type { SessionConfig } from '../config/config.js';
import { unavailable } from '../errors.js';
import type { ReadRecord, RecordPlace, SessionFormat, SessionRecord, StoredRecord } from '../formats/format.js';
import type { RecordStore } from '../formats/record-store.js';
import { after } from '../now-or-later.js';
import type { Identity, SessionRejection } from '../principal.js';
import type { Mapping } from './mapping.js';

/** One entry of the config's `sessions`, ready to read. */
export interface SessionEntry {
  readonly name: string;
  readonly format: SessionFormat;
  readonly mapping: Mapping;
  readonly store: RecordStore;
  /** Whether tokens can be renewed: not where nothing is kept of a session that could be asked without its cookie. */
  readonly refreshable: boolean;
  readonly limits: Pick<SessionConfig, 'rolling' | 'absoluteTtlSeconds'>;
  /** Whether the app gives an id to the next login as well. */
  readonly reusesIds: boolean;
  /** Called with the secret that has signed the cookie of a living, mapped session. */
  readonly signerSeen?: (signer: string) => void;
}

/** A session that lives and has somebody logged in. */
export interface LiveSession {
  readonly sid: string;
  readonly identity: Identity;
  /** When the session itself ends, in seconds since the epoch; absent where it has no end of its own. */
  readonly expiresAt?: number | undefined;
  /** When everything that is made from it ends at the latest (law 2), in seconds since the epoch. */
  readonly endsAt: number;
  /** How long it may lie unused, in seconds, where use prolongs it: what is made from it lives no longer unused. */
  readonly idleSeconds?: number | undefined;
  /** Whether a refresh token may be made from it. */
  readonly refreshable: boolean;
  /** The record as it was read. */
  readonly source: RecordSource;
}

/** Where a record is, and what it says. */
export interface RecordSource {
  readonly entry: string;
  readonly key: string;
  readonly text: string;
  readonly record: SessionRecord;
  /** When it ends, in ms since the epoch; absent where it has no end. */
  readonly expiresAtMs?: number | undefined;
  /** When Redis drops its key, in ms since the epoch; absent where it never does. */
  readonly keyEndsAtMs?: number | undefined;
}

export type RecordReading =
  | { readonly kind: 'session'; readonly session: LiveSession }
  /** `text`: the record, where there is one that an app could use, if only nobody is logged in. */
  | { readonly kind: 'rejected'; readonly reason: SessionRejection; readonly text?: string };

/**
 * Reads the record under `key` and finds out whose session it is.
 * @throws {CrossfadeError} `temporarily_unavailable` where the store does not answer or the mapping function fails.
 */
export async function readSession(entry: SessionEntry, place: RecordPlace, clock: Clock): Promise<RecordReading> {
  return await readAs(entry, place, await entry.store.read(place.key), clock);
}

/** The same for a record that was read already, at once where no mapping function has to be asked; a reason where there was none to read. */
export function readAs(
  entry: SessionEntry,
  place: RecordPlace,
  stored: StoredRecord | SessionRejection,
  clock: Clock,
): RecordReading | Promise<RecordReading> {
  if (typeof stored === 'string') return { kind: 'rejected', reason: stored };
  const [nowMs = 0, ...otherTimes] = readingsOf(clock);
  const parsed = entry.format.parse(stored, nowMs);
  const hasEnded = 'rejected' in parsed;
  // Whether it has ended depends on which of two clocks is right.
  if (otherTimes.some((time) => 'rejected' in entry.format.parse(stored, time) !== hasEnded)) throw unavailable('clock');
  if ('rejected' in parsed) return { kind: 'rejected', reason: parsed.rejected };
  return after(entry.mapping(parsed.record), (mapped) => {
    if ('rejected' in mapped) return { kind: 'rejected', reason: mapped.rejected, text: stored.text };
    return { kind: 'session', session: toSession(entry, place, stored, parsed, mapped.identity, nowMs) };
  });
}

function toSession(
  entry: SessionEntry,
  { key, sid }: RecordPlace,
  { text, ttlMs }: StoredRecord,
  parsed: ReadRecord,
  identity: Identity,
  nowMs: number,
): LiveSession {
  const { expiresAtMs } = parsed;
  const { endsAt, idleSeconds } = lifeOf(parsed, identity, entry.limits, nowMs);
  return {
    sid,
    identity,
    expiresAt: expiresAtMs === undefined ? undefined : Math.floor(expiresAtMs / 1000),
    endsAt,
    idleSeconds,
    refreshable: entry.refreshable,
    source: {
      entry: entry.name,
      key,
      text,
      record: parsed.record,
      expiresAtMs,
      keyEndsAtMs: ttlMs === undefined || ttlMs < 0 ? undefined : nowMs + ttlMs,
    },
  };
}

/**
 * The session's own end: its expiry; for a rolling session, or one without an expiry, the absolute life from the login
 * on (from now where the login's time is not known), and unused never longer than the session itself may lie unused.
 */
function lifeOf(
  parsed: ReadRecord,
  { authTime }: Identity,
  limits: SessionEntry['limits'],
  nowMs: number,
): Pick<LiveSession, 'endsAt' | 'idleSeconds'> {
  const now = Math.floor(nowMs / 1000);
  const expiresAt = parsed.expiresAtMs === undefined ? undefined : Math.floor(parsed.expiresAtMs / 1000);
  if (!limits.rolling && expiresAt !== undefined) return { endsAt: expiresAt };
  const endsAt = (authTime ?? now) + limits.absoluteTtlSeconds;
  const idleSeconds = parsed.idleMs === undefined ? (expiresAt === undefined ? undefined : expiresAt - now) : Math.floor(parsed.idleMs / 1000);
  return idleSeconds === undefined ? { endsAt } : { endsAt, idleSeconds };
}
