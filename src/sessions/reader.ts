import type { Clock } from '../clock.js';
import { type Identity, SESSION_REJECTIONS, type SessionRejection } from '../principal.js';
import type { CookiePairs } from './cookies.js';
import type { SessionLedger, SessionMarks } from './ledger.js';
import { type LiveSession, type RecordReading, readSession, type SessionEntry, samePerson, sidOf } from './record.js';
import { type Ended, refusesRecord } from './tombstone.js';

export type SessionOutcome =
  | { readonly kind: 'absent' }
  | { readonly kind: 'authenticated'; readonly session: LiveSession }
  | { readonly kind: 'rejected'; readonly reason: SessionRejection }
  /** Two cookies, both good, of two persons. */
  | { readonly kind: 'conflict' };

/** A session that a cookie names by itself, with a good signature; whether it lives is not asked. */
export interface NamedSession {
  readonly sid: string;
  readonly entry: string;
  readonly key: string;
}

export interface SessionReader {
  /** Names of all cookies that any entry reads. */
  readonly cookieNames: ReadonlySet<string>;
  /**
   * Who the cookies belong to, read from Redis in one round trip; a request without such a cookie asks nothing of it.
   * @throws {CrossfadeError} `temporarily_unavailable` where the records' Redis does not answer or the mapping function fails.
   */
  read(cookies: CookiePairs): Promise<SessionOutcome>;
  /** The sessions that the cookies name; asks nothing of Redis. */
  named(cookies: CookiePairs): readonly NamedSession[];
  /** The session whose record is known to be there. Rejected also where the config no longer has the entry. Throws as `read` does. */
  readKnown(
    entry: string,
    key: string,
    options?: { /** Whether tombstones must be asked: for what makes credentials. */ readonly strict?: boolean },
  ): Promise<RecordReading>;
  /** Whether this login of a session was ended, as far as can be known right now. Never rejects. */
  isEnded(sid: string, identity: Identity): Promise<boolean>;
}

export interface SessionReaderOptions {
  readonly entries: readonly SessionEntry[];
  readonly ledger: Pick<SessionLedger, 'marks'>;
  /** What this instance has heard: of a logout of this session, and of an end of this person. */
  readonly heard: {
    endedLogin(sid: string, subject: string): Ended | undefined;
    endedPerson(sid: string, identity: Identity): boolean;
  };
  readonly resurrectionSeconds: number;
  /** Called with every session that is found alive. */
  readonly seen: (session: LiveSession, hasTokens: boolean) => void;
  readonly clock: Clock;
}

const NO_MARKS: SessionMarks = { hasTokens: false };
/** How long the bridge's own Redis is not asked once it has failed: sessions are served without it, and without its delay. */
const PAUSE_MS = 1000;

export function createSessionReader(options: SessionReaderOptions): SessionReader {
  const { entries, ledger, heard, resurrectionSeconds, seen, clock } = options;
  let pausedUntil = 0;

  /** Tombstones are in the bridge's own Redis. While that is away, what was heard before has to do. */
  async function marksOf(sid: string): Promise<SessionMarks> {
    if (clock.now() < pausedUntil) return NO_MARKS;
    return await ledger.marks(sid).catch(() => {
      pausedUntil = clock.now() + PAUSE_MS;
      return NO_MARKS;
    });
  }

  function judge(sid: string, identity: Identity, { ended }: SessionMarks): boolean {
    const endings = [ended, heard.endedLogin(sid, identity.subject)];
    return endings.some((one) => one && refusesRecord(one, identity, clock.now(), resurrectionSeconds)) || heard.endedPerson(sid, identity);
  }

  async function readOne(entry: SessionEntry, key: string, strict = false): Promise<RecordReading> {
    const sid = sidOf(entry.name, key);
    const [reading, marks] = await Promise.all([readSession(entry, key, clock), strict ? ledger.marks(sid) : marksOf(sid)]);
    if (reading.kind === 'rejected') return reading;
    if (judge(sid, reading.session.identity, marks)) return { kind: 'rejected', reason: 'logged-out' };
    seen(reading.session, marks.hasTokens);
    return reading;
  }

  function locate(cookies: CookiePairs) {
    return entries.flatMap((entry) => entry.format.locate(cookies).map((located) => ({ entry, located })));
  }

  return {
    cookieNames: new Set(entries.flatMap(({ format }) => format.cookieNames)),

    async read(cookies) {
      const found = await Promise.all(
        locate(cookies).map(
          async ({ entry, located }): Promise<RecordReading> =>
            'key' in located ? await readOne(entry, located.key) : { kind: 'rejected', reason: located.rejected },
        ),
      );
      if (found.length === 0) return { kind: 'absent' };
      const sessions = found.flatMap((reading) => (reading.kind === 'session' ? [reading.session] : []));
      const [first] = sessions;
      if (!first) return { kind: 'rejected', reason: furthest(found.flatMap((reading) => (reading.kind === 'rejected' ? [reading.reason] : []))) };
      if (sessions.some(({ identity }) => !samePerson(identity, first.identity))) return { kind: 'conflict' };
      return { kind: 'authenticated', session: first };
    },

    named(cookies) {
      return locate(cookies).flatMap(({ entry, located }) =>
        'key' in located ? [{ sid: sidOf(entry.name, located.key), entry: entry.name, key: located.key }] : [],
      );
    },

    async readKnown(name, key, { strict = false } = {}) {
      const entry = entries.find((known) => known.name === name);
      return entry ? await readOne(entry, key, strict) : { kind: 'rejected', reason: 'unknown-session' };
    },

    isEnded: async (sid, identity) => judge(sid, identity, await marksOf(sid)),
  };
}

const ORDER = Object.keys(SESSION_REJECTIONS);

/** The furthest that any of several cookies came is what is worth telling. */
function furthest(reasons: readonly SessionRejection[]): SessionRejection {
  return reasons.reduce<SessionRejection>(
    (furthestYet, reason) => (ORDER.indexOf(reason) > ORDER.indexOf(furthestYet) ? reason : furthestYet),
    'bad-id',
  );
}
