import { type Clock, readingsOf } from '../clock.js';
import type { CookiePairs } from '../formats/cookies.js';
import type { LocatedSession, RecordPlace } from '../formats/format.js';
import { toStoredString } from '../formats/record-store.js';
import { sidOf } from '../formats/sid.js';
import { type Ended, type KnownEnds, type Login, refusesRecord, samePerson } from '../login.js';
import { after } from '../now-or-later.js';
import { SESSION_REJECTIONS, type SessionRejection } from '../principal.js';
import type { Value } from '../redis/batched-reads.js';
import { cannotKnow } from '../redis/replies.js';
import { NO_MARKS, type SessionLedger, type SessionMarks } from './ledger.js';
import { type LiveSession, type RecordReading, readAs, readSession, type SessionEntry } from './record.js';

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
   * Who the cookies belong to, as Redis has it after this call; a request without such a cookie asks nothing of it. `request`: that they
   * came in.
   * @throws {CrossfadeError} `temporarily_unavailable` where the records' Redis does not answer or the mapping function fails.
   */
  read(cookies: CookiePairs, request?: object): SessionOutcome | Promise<SessionOutcome>;
  /** The same, with the ends of the sessions as exactly as the store knows them: for what credentials are made of. */
  readExactly(cookies: CookiePairs): Promise<SessionOutcome>;
  /** The sessions that the cookies name; asks nothing of Redis. */
  named(cookies: CookiePairs): readonly NamedSession[];
  /** The session whose record is known to be there. Rejected also where the config no longer has the entry. Throws as `read` does. */
  readKnown(
    entry: string,
    key: string,
    options?: {
      /** Whether tombstones must be asked: for what makes credentials. */
      readonly strict?: boolean;
      /** The request for which it is read: what was read for it before will do. */
      readonly request?: object | undefined;
    },
  ): Promise<RecordReading>;
  /** Calls back where a record is found whose logout could not delete it. */
  onUnfinished(listener: (found: RecordPlace & { readonly entry: string; readonly ended: Ended }) => void): void;
  /** Calls back with every session that is found alive. */
  onSeen(listener: (session: LiveSession, hasTokens: boolean | undefined) => void): void;
  /** From now on one read serves all who ask during a request, who must say which. */
  share(): void;
  /** What was read for a request is read again from now on. */
  forget(request: object): void;
  /** Whether this login of a session was ended, as far as can be known right now. Never rejects. */
  isEnded(sid: string, login: Login): Promise<boolean>;
}

export interface SessionReaderOptions {
  readonly entries: readonly SessionEntry[];
  readonly ledger: Pick<SessionLedger, 'marks' | 'markKey' | 'openMarks' | 'reads'>;
  readonly heard: Pick<KnownEnds, 'endedLogin' | 'endedPerson'>;
  readonly resurrectionSeconds: number;
  /** Called with what came of each cookie. */
  readonly read: (entry: string, reading: RecordReading) => void;
  readonly clock: Clock;
}

/** How long the bridge's own Redis is not asked once it has failed: sessions are served without it, and without its delay. */
const PAUSE_MS = 1000;

export function createSessionReader(options: SessionReaderOptions): SessionReader {
  const { entries, ledger, heard, resurrectionSeconds, read, clock } = options;
  const unfinishedListeners: Parameters<SessionReader['onUnfinished']>[0][] = [];
  const seenListeners: Parameters<SessionReader['onSeen']>[0][] = [];
  /** By a clock that nobody sets. */
  let pausedUntil = 0;

  /** What was read for a request, by session; held no longer than the request itself. */
  const byRequest = new WeakMap<object, Map<string, Promise<RecordReading>>>();
  let isShared = false;

  /** Tombstones are in the bridge's own Redis. While that is away, what was heard before has to do. */
  async function marksOf(sid: string): Promise<SessionMarks> {
    if (performance.now() < pausedUntil) return NO_MARKS;
    try {
      const { values } = await ledger.reads.read([ledger.markKey(sid)]);
      return ledger.openMarks(sid, values[0] ?? null);
    } catch {
      pausedUntil = performance.now() + PAUSE_MS;
      return NO_MARKS;
    }
  }

  function judge(sid: string, login: Login, ended: Ended | undefined, reusesIds: boolean): boolean {
    if (heard.endedPerson(sid, login)) return true;
    const here = heard.endedLogin(sid, login.subject);
    if (!ended && !here) return false;
    const earliest = Math.min(...readingsOf(clock));
    return [ended, here].some((one) => one && refusesRecord(one, login, earliest, resurrectionSeconds, reusesIds));
  }

  function conclude(entry: SessionEntry, reading: RecordReading, { sid, key, signer }: RecordPlace, marks: SessionMarks): RecordReading {
    if (reading.kind === 'rejected') return reading;
    if (judge(sid, reading.session.identity, marks.ended, entry.reusesIds)) {
      const { ended } = marks;
      if (ended?.unfinished) for (const listener of unfinishedListeners) listener({ sid, key, entry: entry.name, ended });
      return { kind: 'rejected', reason: 'logged-out' };
    }
    if (signer !== undefined && signer !== '') entry.signerSeen?.(signer);
    for (const listener of seenListeners) listener(reading.session, marks.hasTokens);
    return reading;
  }

  async function readOne(entry: SessionEntry, place: RecordPlace, strict = false): Promise<RecordReading> {
    const { sid } = place;
    const [reading, marks] = await Promise.all([readSession(entry, place, clock), strict ? ledger.marks(sid) : marksOf(sid)]);
    return conclude(entry, reading, place, marks);
  }

  /** Together with all that is read in the same turn: record and tombstone by one command where both are in one Redis; else the one without the other. */
  function readTogether(entry: SessionEntry, place: RecordPlace): Promise<RecordReading> {
    const { key, sid } = place;
    const { store, format } = entry;
    if (!store.reads) return readOne(entry, place);
    const lifeOf = format.endsWithKey ? key : undefined;

    function readValue(value: Value, ttlMs: number | undefined, marks: SessionMarks): RecordReading | Promise<RecordReading> {
      return after(readAs(entry, place, toStoredString(format.storage, value, ttlMs), clock), (reading) => {
        // This one does not say when it ends: then its key does.
        if (ttlMs === undefined && reading.kind === 'session' && reading.session.expiresAt === undefined) return readOne(entry, place);
        return conclude(entry, reading, place, marks);
      });
    }

    if (store.reads === ledger.reads && store.reads.areWhole) {
      return store.reads
        .read([key, ledger.markKey(sid)], lifeOf)
        .then(({ values: [value = null, mark = null], ttlMs }) => readValue(value, ttlMs, ledger.openMarks(sid, mark)), cannotKnow);
    }
    return Promise.all([store.reads.read([key], lifeOf).catch(cannotKnow), marksOf(sid)]).then(([{ values, ttlMs }, marks]) =>
      readValue(values[0] ?? null, ttlMs, marks),
    );
  }

  function readFor(request: object | undefined, entry: SessionEntry, place: RecordPlace): Promise<RecordReading> {
    if (!isShared || !request) return readTogether(entry, place);
    const known = byRequest.get(request);
    const before = known?.get(place.sid);
    if (before) return before;
    const reading = readTogether(entry, place);
    if (known) known.set(place.sid, reading);
    else byRequest.set(request, new Map([[place.sid, reading]]));
    return reading;
  }

  function locate(cookies: CookiePairs): readonly LocatedCookie[] {
    const found: LocatedCookie[] = [];
    for (const entry of entries) for (const located of entry.format.locate(cookies)) found.push({ entry, located });
    return found;
  }

  return {
    cookieNames: new Set(entries.flatMap(({ format }) => format.cookieNames)),

    read(cookies, request) {
      const found = locate(cookies);
      const [first] = found;
      if (!first) return ABSENT;
      const readOf = ({ entry, located }: LocatedCookie) =>
        after('key' in located ? readFor(request, entry, located) : refused(located.rejected), (reading) => {
          read(entry.name, reading);
          return reading;
        });
      return found.length === 1 ? after(readOf(first), outcomeOfOne) : Promise.all(found.map(readOf)).then(outcomeOf);
    },

    async readExactly(cookies) {
      return outcomeOf(
        await Promise.all(locate(cookies).map(({ entry, located }) => ('key' in located ? readOne(entry, located) : refused(located.rejected)))),
      );
    },

    named(cookies) {
      return locate(cookies).flatMap(({ entry, located }) => ('key' in located ? [{ sid: located.sid, entry: entry.name, key: located.key }] : []));
    },

    async readKnown(name, key, { strict = false, request } = {}) {
      const entry = entries.find((known) => known.name === name);
      if (!entry) return { kind: 'rejected', reason: 'unknown-session' };
      const place = { key, sid: sidOf(name, key) };
      return request ? await readFor(request, entry, place) : await readOne(entry, place, strict);
    },

    onUnfinished: (listener) => void unfinishedListeners.push(listener),
    onSeen: (listener) => void seenListeners.push(listener),

    share() {
      isShared = true;
    },

    forget: (request) => void byRequest.delete(request),

    isEnded: async (sid, login) => judge(sid, login, (await marksOf(sid)).ended, true),
  };
}

const ABSENT: SessionOutcome = { kind: 'absent' };

/** A cookie, by the entry whose it is. */
interface LocatedCookie {
  readonly entry: SessionEntry;
  readonly located: LocatedSession;
}

function refused(reason: SessionRejection): RecordReading {
  return { kind: 'rejected', reason };
}

function outcomeOfOne(reading: RecordReading): SessionOutcome {
  return reading.kind === 'session' ? { kind: 'authenticated', session: reading.session } : { kind: 'rejected', reason: reading.reason };
}

function outcomeOf(found: readonly RecordReading[]): SessionOutcome {
  if (found.length === 0) return ABSENT;
  const sessions = found.flatMap((reading) => (reading.kind === 'session' ? [reading.session] : []));
  const [first] = sessions;
  if (!first) return { kind: 'rejected', reason: furthest(found.flatMap((reading) => (reading.kind === 'rejected' ? [reading.reason] : []))) };
  if (sessions.some(({ identity }) => !samePerson(identity, first.identity))) return { kind: 'conflict' };
  return { kind: 'authenticated', session: first };
}

const ORDER = Object.keys(SESSION_REJECTIONS);

/** The furthest that any of several cookies came is what is worth telling. */
function furthest(reasons: readonly SessionRejection[]): SessionRejection {
  return reasons.reduce<SessionRejection>(
    (furthestYet, reason) => (ORDER.indexOf(reason) > ORDER.indexOf(furthestYet) ? reason : furthestYet),
    'bad-id',
  );
}
