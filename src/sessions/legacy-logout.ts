import type { Clock } from '../clock.js';
import type { Identity } from '../principal.js';
import { type RecordReading, samePerson } from './record.js';

/**
 * What became of a session that tokens were made from. `logged-out` and `other-person` end its tokens; everything else ends
 * nothing: what only looks like a logout (eviction, a flushed or restarted Redis, very many at once) logs nobody out (law 6).
 */
export type Fate = 'lives' | 'other-person' | 'logged-out' | 'expired' | 'vanished' | 'unclear';

/** What was known of the session when its record was last seen. */
export interface LastSeen {
  readonly subject: string;
  readonly tenant?: string | undefined;
  readonly authTimeMs?: number | undefined;
  readonly expiresAtMs?: number | undefined;
  readonly epoch?: string | undefined;
}

export interface LogoutJudge {
  /** Counts a record that was found missing: of very many at once none is a logout. */
  missing(): void;
  /** `epochNow` is asked only where the record is gone. */
  judge(reading: RecordReading, last: LastSeen, epochNow: () => Promise<string | undefined>): Promise<Fate>;
}

/** More records that are gone within this time, on one instance, are no logouts. */
const MANY = 100;
const MANY_WITHIN_MS = 1000;
/** Clocks differ: a record that was about to end has ended. */
const SLACK_MS = 2000;

export function createLogoutJudge(clock: Clock): LogoutJudge {
  let gone: number[] = [];

  async function judgeGone(last: LastSeen, epochNow: () => Promise<string | undefined>): Promise<Fate> {
    if (last.expiresAtMs !== undefined && last.expiresAtMs <= clock.now() + SLACK_MS) return 'expired';
    const epoch = await epochNow();
    if (gone.length > MANY) return 'vanished';
    return last.epoch !== undefined && epoch === last.epoch ? 'logged-out' : 'vanished';
  }

  return {
    missing() {
      const nowMs = clock.now();
      gone = gone.filter((at) => at > nowMs - MANY_WITHIN_MS);
      gone.push(nowMs);
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

/** The same person; one who changed the tenant within one login is the same as well. */
export function isSameLogin(last: Pick<LastSeen, 'subject' | 'tenant' | 'authTimeMs'>, identity: Identity): boolean {
  if (last.subject !== identity.subject) return false;
  return samePerson({ subject: last.subject, ...(last.tenant === undefined ? {} : { tenant: last.tenant }) }, identity) || sameMoment(last, identity);
}

function sameMoment({ authTimeMs }: Pick<LastSeen, 'authTimeMs'>, identity: Identity): boolean {
  return authTimeMs !== undefined && authTimeMs === identity.authTimeMs;
}
