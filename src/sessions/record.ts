import { createHash } from 'node:crypto';
import type { Clock } from '../clock.js';
import type { SessionConfig } from '../config/config.js';
import type { Identity, SessionRejection } from '../principal.js';
import type { ParsedRecord, SessionFormat, StoredRecord } from './format.js';
import type { Mapping } from './mapping.js';
import type { RecordStore } from './record-store.js';

/** One entry of the config's `sessions`, ready to read. */
export interface SessionEntry {
  readonly name: string;
  readonly format: SessionFormat;
  readonly mapping: Mapping;
  readonly store: RecordStore;
  /** Whether tokens can be renewed: not where nothing is kept of a session that could be asked without its cookie. */
  readonly refreshable: boolean;
  readonly limits: Pick<SessionConfig, 'rolling' | 'absoluteTtlSeconds'>;
}

/** A session that lives and has somebody logged in. */
export interface LiveSession {
  readonly sid: string;
  readonly identity: Identity;
  /** When the session itself ends, in seconds since the epoch; absent where it has no end of its own. */
  readonly expiresAt?: number;
  /** When everything that is made from it ends at the latest (law 2), in seconds since the epoch. */
  readonly endsAt: number;
  /** How long it may lie unused, in seconds, where use prolongs it: what is made from it lives no longer unused. */
  readonly idleSeconds?: number;
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
  /** When it ends, in ms since the epoch; absent where it has no end. */
  readonly expiresAtMs?: number;
  /** When Redis drops its key, in ms since the epoch; absent where it never does. */
  readonly keyEndsAtMs?: number;
}

export type RecordReading =
  | { readonly kind: 'session'; readonly session: LiveSession }
  /** `text`: the record, where there is one that an app could use, if only nobody is logged in. */
  | { readonly kind: 'rejected'; readonly reason: SessionRejection; readonly text?: string };

/**
 * Reads the record under `key` and finds out whose session it is.
 * @throws {CrossfadeError} `temporarily_unavailable` where the store does not answer or the mapping function fails.
 */
export async function readSession(entry: SessionEntry, key: string, clock: Clock): Promise<RecordReading> {
  return await readAs(entry, key, await entry.store.read(key), clock);
}

/** The same for a record that was read already; a reason where there was none to read. */
export async function readAs(entry: SessionEntry, key: string, stored: StoredRecord | SessionRejection, clock: Clock): Promise<RecordReading> {
  if (typeof stored === 'string') return { kind: 'rejected', reason: stored };
  const nowMs = clock.now();
  const parsed = entry.format.parse(stored, nowMs);
  if ('rejected' in parsed) return { kind: 'rejected', reason: parsed.rejected };
  const mapped = await entry.mapping(parsed.record);
  if ('rejected' in mapped) return { kind: 'rejected', reason: mapped.rejected, text: stored.text };
  const { expiresAtMs } = parsed;
  const session = {
    sid: sidOf(entry.name, key),
    identity: mapped.identity,
    ...(expiresAtMs === undefined ? {} : { expiresAt: Math.floor(expiresAtMs / 1000) }),
    ...lifeOf(parsed, mapped.identity, entry.limits, nowMs),
    refreshable: entry.refreshable,
    source: {
      entry: entry.name,
      key,
      text: stored.text,
      ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
      ...(stored.ttlMs < 0 ? {} : { keyEndsAtMs: nowMs + stored.ttlMs }),
    },
  };
  return { kind: 'session', session };
}

/** The public name of a session: 32 characters that do not lead back to the Redis key. */
export function sidOf(entry: string, key: string): string {
  return createHash('sha256').update(`xf-sid\0${entry}\0${key}`).digest('base64url').slice(0, 32);
}

export function samePerson(one: Pick<Identity, 'subject' | 'tenant'>, other: Pick<Identity, 'subject' | 'tenant'>): boolean {
  return one.subject === other.subject && one.tenant === other.tenant;
}

/**
 * The session's own end: its expiry; for a rolling session, or one without an expiry, the absolute life from the login
 * on (from now where the login's time is not known), and unused never longer than the session itself may lie unused.
 */
function lifeOf(
  parsed: Exclude<ParsedRecord, { rejected: unknown }>,
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
