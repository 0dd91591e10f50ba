import { createHash } from 'node:crypto';
import type { Clock } from '../clock.js';
import type { SessionConfig } from '../config/config.js';
import { unavailable } from '../errors.js';
import { type Identity, SESSION_REJECTIONS, type SessionRejection } from '../principal.js';
import type { RedisClient } from '../redis/connection.js';
import type { CookiePairs } from './cookies.js';
import type { ParsedRecord, SessionFormat, StoredRecord } from './format.js';
import type { Mapping } from './mapping.js';

/** One entry of the config's `sessions`, ready to read. */
export interface SessionEntry {
  readonly name: string;
  readonly format: SessionFormat;
  readonly mapping: Mapping;
  readonly client: RedisClient;
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
}

export type SessionOutcome =
  | { readonly kind: 'absent' }
  | { readonly kind: 'authenticated'; readonly session: LiveSession }
  | { readonly kind: 'rejected'; readonly reason: SessionRejection }
  /** Two cookies, both good, of two persons. */
  | { readonly kind: 'conflict' };

export interface SessionReader {
  /** Names of all cookies that any entry reads. */
  readonly cookieNames: ReadonlySet<string>;
  /**
   * Who the cookies belong to, read from Redis in one round trip; a request without such a cookie asks nothing of it.
   * @throws {CrossfadeError} `temporarily_unavailable` where Redis does not answer or the mapping function fails.
   */
  read(cookies: CookiePairs): Promise<SessionOutcome>;
  /** The `sid`s that the cookies name by themselves, good signatures only; asks nothing of Redis. */
  namedSids(cookies: CookiePairs): readonly string[];
}

export function createSessionReader(entries: readonly SessionEntry[], clock: Clock): SessionReader {
  async function readOne(entry: SessionEntry, key: string): Promise<LiveSession | SessionRejection> {
    const stored = await readRecord(entry.client, key);
    if (typeof stored === 'string') return stored;
    const nowMs = clock.now();
    const parsed = entry.format.parse(stored, nowMs);
    if ('rejected' in parsed) return parsed.rejected;
    const mapped = await entry.mapping(parsed.record);
    if ('rejected' in mapped) return mapped.rejected;
    return {
      sid: sidOf(entry.name, key),
      identity: mapped.identity,
      ...(parsed.expiresAtMs === undefined ? {} : { expiresAt: Math.floor(parsed.expiresAtMs / 1000) }),
      endsAt: endOf(parsed, mapped.identity, entry.limits, nowMs),
    };
  }

  function locate(cookies: CookiePairs) {
    return entries.flatMap((entry) => entry.format.locate(cookies).map((located) => ({ entry, located })));
  }

  return {
    cookieNames: new Set(entries.flatMap(({ format }) => format.cookieNames)),

    async read(cookies) {
      const found = await Promise.all(
        locate(cookies).map(({ entry, located }) => ('key' in located ? readOne(entry, located.key) : located.rejected)),
      );
      if (found.length === 0) return { kind: 'absent' };
      const sessions = found.filter((outcome) => typeof outcome !== 'string');
      const [first] = sessions;
      if (!first) return { kind: 'rejected', reason: furthest(found.filter((outcome) => typeof outcome === 'string')) };
      if (sessions.some(({ identity }) => !samePerson(identity, first.identity))) return { kind: 'conflict' };
      return { kind: 'authenticated', session: first };
    },

    namedSids(cookies) {
      return locate(cookies).flatMap(({ entry, located }) => ('key' in located ? [sidOf(entry.name, located.key)] : []));
    },
  };
}

/** The public name of a session: 32 characters that do not lead back to the Redis key. */
export function sidOf(entry: string, key: string): string {
  return createHash('sha256').update(`xf-sid\0${entry}\0${key}`).digest('base64url').slice(0, 32);
}

export function samePerson(one: Pick<Identity, 'subject' | 'tenant'>, other: Pick<Identity, 'subject' | 'tenant'>): boolean {
  return one.subject === other.subject && one.tenant === other.tenant;
}

/** Record and time to live in one round trip. A key of another type is no session; every other failure is Redis' own. */
async function readRecord(client: RedisClient, key: string): Promise<StoredRecord | SessionRejection> {
  const replies = await client
    .pipeline()
    .get(key)
    .pttl(key)
    .exec()
    .catch((cause: unknown) => {
      throw unavailable('redis', cause);
    });
  const [text, ttl] = replies ?? [];
  if (!text || !ttl) throw unavailable('redis');
  const failure = text[0] ?? ttl[0];
  if (failure?.message.startsWith('WRONGTYPE')) return 'unreadable-record';
  if (failure) throw unavailable('redis', failure);
  if (text[1] === null) return 'unknown-session';
  return { text: String(text[1]), ttlMs: Number(ttl[1]) };
}

/**
 * The session's own end: its expiry; for a rolling session, or one without an expiry, the absolute life from the login
 * on (from now where the login's time is not known), and never longer than it may lie unused.
 */
function endOf(parsed: Exclude<ParsedRecord, { rejected: unknown }>, { authTime }: Identity, limits: SessionEntry['limits'], nowMs: number): number {
  const now = Math.floor(nowMs / 1000);
  const expiresAt = parsed.expiresAtMs === undefined ? undefined : Math.floor(parsed.expiresAtMs / 1000);
  if (!limits.rolling && expiresAt !== undefined) return expiresAt;
  const absolute = (authTime ?? now) + limits.absoluteTtlSeconds;
  const idle = parsed.idleMs === undefined ? expiresAt : Math.floor((nowMs + parsed.idleMs) / 1000);
  return Math.min(absolute, idle ?? absolute);
}

const ORDER = Object.keys(SESSION_REJECTIONS);

/** The furthest that any of several cookies came is what is worth telling. */
function furthest(reasons: readonly SessionRejection[]): SessionRejection {
  return reasons.reduce<SessionRejection>(
    (furthestYet, reason) => (ORDER.indexOf(reason) > ORDER.indexOf(furthestYet) ? reason : furthestYet),
    'bad-id',
  );
}
