import { LRUCache } from 'lru-cache';
import type { Clock } from '../clock.js';
import { isSameLogin, type Login } from '../login.js';
import type { RecordReading } from '../sessions/record.js';
import type { EndReason } from './logout.js';
import { isSameEpoch, type StoreEpoch } from './store-epoch.js';

/**
 * What became of a session that tokens were made from. `logged-out` and `other-person` end its tokens; everything else ends
 * nothing: what only looks like a logout (eviction, a flushed or restarted Redis, very many at once) logs nobody out (law 6).
 * `unknown`: it cannot be told right now.
 */
export type Fate = 'lives' | 'other-person' | 'logged-out' | 'expired' | 'vanished' | 'unclear' | 'unknown';

/**
 * What follows for its tokens. `dormant`: they go on without the record, which is gone, or there and not to be read. `isLost`: it should
 * have been there.
 */
export type Consequence =
  | { readonly kind: 'live' }
  | { readonly kind: 'ended'; readonly reason: EndReason }
  | { readonly kind: 'dormant'; readonly record: 'gone' | 'there'; readonly isLost: boolean }
  | { readonly kind: 'unknown' };

/** The one switch over fates. */
export const CONSEQUENCES: Readonly<Record<Fate, Consequence>> = {
  lives: { kind: 'live' },
  'logged-out': { kind: 'ended', reason: 'legacy-logout' },
  'other-person': { kind: 'ended', reason: 'other-person' },
  expired: { kind: 'dormant', record: 'gone', isLost: false },
  vanished: { kind: 'dormant', record: 'gone', isLost: true },
  unclear: { kind: 'dormant', record: 'there', isLost: true },
  unknown: { kind: 'unknown' },
};

/** What was known of the session when its record was last seen. */
export interface LastSeen extends Login {
  readonly expiresAtMs?: number | undefined;
  /** Taken before the record was seen; absent where Redis does not tell, or where very many were gone at once. */
  readonly epoch?: StoreEpoch | undefined;
}

export interface LogoutJudge {
  /** Notes that the record of this session was found missing: of very many at once none is a logout. */
  missing(sid: string): void;
  /** `epochNow` is asked only where the record is gone. */
  judge(reading: RecordReading, last: LastSeen, epochNow: () => Promise<StoreEpoch | undefined>): Promise<Fate>;
}

/** More records that are found missing within this time, on one instance, are no logouts. */
const MANY = 100;
const MANY_WITHIN_MS = 1000;
/** Sessions that are known to be missing are not counted again. */
const MAX_KNOWN = 100_000;
const KNOWN_MS = 3_600_000;
/** Clocks differ: a record that was about to end has ended. */
const SLACK_MS = 2000;

export function createLogoutJudge(clock: Clock): LogoutJudge {
  const known = new LRUCache<string, true>({ max: MAX_KNOWN, ttl: KNOWN_MS });
  let window = { from: 0, count: 0, before: 0 };

  function countRecent(nowMs: number, more: number): number {
    const windows = Math.floor((nowMs - window.from) / MANY_WITHIN_MS);
    if (windows > 0) window = { from: nowMs, count: 0, before: windows === 1 ? window.count : 0 };
    window.count += more;
    return window.count + window.before;
  }

  async function judgeGone(last: LastSeen, epochNow: () => Promise<StoreEpoch | undefined>): Promise<Fate> {
    if (last.expiresAtMs !== undefined && last.expiresAtMs <= clock.now() + SLACK_MS) return 'expired';
    if (last.epoch === undefined || countRecent(clock.now(), 0) > MANY) return 'vanished';
    const epoch = await epochNow();
    if (epoch === undefined) return 'unknown';
    return countRecent(clock.now(), 0) > MANY || !isSameEpoch(last.epoch, epoch) ? 'vanished' : 'logged-out';
  }

  return {
    missing(sid) {
      if (known.has(sid)) return;
      known.set(sid, true);
      countRecent(clock.now(), 1);
    },
    async judge(reading, last, epochNow) {
      if (reading.kind === 'session') return isSameLogin(last, reading.session.identity) ? 'lives' : 'other-person';
      switch (reading.reason) {
        case 'nobody-logged-in':
        case 'logged-out':
          return 'logged-out';
        case 'expired':
          return 'expired';
        case 'unknown-session':
          return await judgeGone(last, epochNow);
        default:
          return 'unclear';
      }
    },
  };
}

export function isMissing(reading: RecordReading): boolean {
  return reading.kind === 'rejected' && reading.reason === 'unknown-session';
}
