import { type Ended, endLogin, endsWith, type Login, madeAt, refusesRecord, UNKNOWN_SUBJECT } from '../login.js';
import type { KeptSession } from '../sessions/kept-session.js';
import type { SessionLedger } from '../sessions/ledger.js';
import { personOf } from '../sessions/person-of.js';
import type { SessionReader } from '../sessions/reader.js';
import type { SessionEntry } from '../sessions/record.js';
import type { Tools } from '../telemetry/tools.js';
import type { Endings } from './endings.js';
import type { KnownPlace } from './places.js';

/** Why a session was ended: stands in audits and metrics, and beside the families that ended with it. */
export type EndReason = 'logout' | 'legacy-logout' | 'other-person' | 'person-ended';

export interface SessionPlace {
  readonly sid: string;
  readonly entry: string;
  readonly key: string;
}

export interface Logout {
  /**
   * Ends a session for good, wherever its record is: deletes the record, sets the tombstone, ends all its families and
   * tells every instance. May be repeated: what is ended stays ended.
   * @throws {CrossfadeError} `temporarily_unavailable`: it may be half done, and should be tried again.
   */
  end(sid: string, reason: EndReason, known?: KnownSession & { /** A `sid` that is left as it is. */ readonly except?: string }): Promise<void>;
  /**
   * Notes that a login has ended without us, at the legacy app. What was made from it up to `ended.endedAt` ends; the record
   * that stands there now, if any, is another matter. Throws as `end` does.
   */
  note(sid: string, reason: EndReason, ended: Ended): Promise<void>;
  /** Deletes the record of a logout that did not find it, at `place` or where this instance knows it to be. Throws as `end` does. */
  finish(sid: string, ended: Omit<Ended, 'unfinished'>, place?: Omit<SessionPlace, 'sid'>): Promise<void>;
  /** Calls back before a record is deleted here, so that its own news is no surprise. */
  onDelete(listener: (place: Omit<SessionPlace, 'sid'>) => void): void;
  /** Tells every instance once more of a login that has ended: whoever ended it may not have come to it. Throws as `end` does. */
  repeat(sid: string, ended: Ended): Promise<void>;
}

export interface LogoutOptions extends Pick<Tools, 'clock' | 'audit' | 'metrics'> {
  readonly ledger: SessionLedger;
  readonly endings: Pick<Endings, 'announce' | 'assertHeard'>;
  readonly entries: readonly Pick<SessionEntry, 'name' | 'store' | 'refreshable' | 'reusesIds'>[];
  readonly readKnown: SessionReader['readKnown'];
  /** Where the record of a session is, as far as this instance has seen it. */
  readonly placeOf: (sid: string) => KnownPlace | undefined;
  /** Whether Redis may have lost something of late. */
  readonly mayHaveLost: () => boolean;
  readonly resurrectionSeconds: number;
  readonly personKey: Buffer;
}

/** How long a logout waits for an instance that knows where the record is, and how often it looks. */
export const FINISH_MS = 1000;
const FINISH_LOOK_MS = 50;

/** A restored session continues another, which may have continued one: so many are ended together. */
const MAX_LINKED = 64;

interface KnownSession {
  /** Who logs out. Where the session is somebody else's by now, only what was made for this person ends. */
  readonly person?: Login;
  /** The same, as `personOf` names one: then nothing ends. */
  readonly onlyOf?: string;
  /** A token of ours names the session, and Redis does not know any more whose it was: only the session that this instance knows is meant. */
  readonly isOurs?: boolean;
  /** The record that a cookie of the request names: it is deleted, whosever it is. */
  readonly place?: Omit<SessionPlace, 'sid'>;
  /** Where the record is to be looked for, if what is kept does not say so. */
  readonly at?: Omit<SessionPlace, 'sid'>;
}

interface EndedOne {
  readonly done: boolean;
  /** Whose session it was, where that is known. */
  readonly person?: Login | undefined;
}

export function createLogout(options: LogoutOptions): Logout {
  const { ledger, endings, entries, readKnown, placeOf, mayHaveLost, resurrectionSeconds, clock, personKey, audit, metrics } = options;
  /** Sessions whose record is being looked for: to read it is to meet the tombstone again. */
  const finishing = new Set<string>();
  const deleting: ((place: Omit<SessionPlace, 'sid'>) => void)[] = [];

  function conclude(sid: string, reason: EndReason, families: readonly string[]): void {
    metrics.sessionsEnded.inc({ reason });
    audit('session.ended', { sid, reason, families: families.length });
  }

  async function deleteRecord({ entry: name, key }: Omit<SessionPlace, 'sid'>): Promise<void> {
    const entry = entries.find((known) => known.name === name);
    if (!entry) return;
    for (const listener of deleting) listener({ entry: name, key });
    await entry.store.remove(key);
  }

  /** Whose session it is now: the same id may have been given to another person since. */
  async function ownerOf(place: Omit<SessionPlace, 'sid'> | undefined, kept: KeptSession | undefined): Promise<Login | undefined> {
    // An app that is to be asked, and may be away, must not keep anybody from logging out.
    const canBeRead = entries.some(({ name, refreshable }) => name === place?.entry && refreshable);
    const reading = place && canBeRead ? await readKnown(place.entry, place.key) : undefined;
    if (reading?.kind === 'session') return reading.session.identity;
    return kept;
  }

  function isMeant(subject: string, { person, onlyOf }: KnownSession): boolean {
    if (person) return person.subject === subject;
    return onlyOf === undefined || personOf(personKey, subject) === onlyOf;
  }

  async function isStillThat(sid: string, owner: Login | undefined): Promise<boolean> {
    return owner !== undefined && owner.subject === placeOf(sid)?.subject && (await ledger.marks(sid)).hasTokens === false;
  }

  async function endOne(sid: string, reason: EndReason, known: KnownSession): Promise<EndedOne> {
    const [kept, endedAt] = await Promise.all([ledger.kept(sid), ledger.now(sid)]);
    const place = known.place ?? kept ?? known.at ?? placeOf(sid);
    const owner = known.place ? kept : await ownerOf(place, kept);
    if (owner && !known.place && !isMeant(owner.subject, known)) {
      if (!known.person) return { done: false };
      await noteOne(sid, reason, endLogin(known.person, endedAt));
      return { done: true, person: known.person };
    }
    // The id may have gone to another person since, whose session is not meant.
    if (known.isOurs && !known.person && place && !(await isStillThat(sid, owner))) return { done: false };
    if (place) await deleteRecord(place);
    // A token knows the login only to the second; the record, or what is kept of it, knows better.
    const person = known.person && (known.person.authTimeMs !== undefined || owner?.subject !== known.person.subject) ? known.person : owner;
    // Where tokens were made from a session, Redis knows it: it has come back empty, and the record lives somewhere.
    const isLost = !place && (person !== undefined || (known.isOurs === true && mayHaveLost())) && (await ledger.marks(sid)).hasTokens === false;
    const login = person ?? (isLost ? { subject: UNKNOWN_SUBJECT } : undefined);
    const ended = login && { ...endLogin(login, endedAt), ...(isLost ? { unfinished: true } : {}) };
    const families = await ledger.end(sid, {
      reason,
      ...(ended ? { ended } : {}),
      ...(person ? { person: personOf(personKey, person.subject) } : {}),
    });
    // Where nobody is known any more, it was ended before; but perhaps not everybody was told.
    const told = ended ?? (await ledger.marks(sid)).ended;
    if (told) await endings.announce({ type: 'session.ended', sid, ...told });
    // Those made in the same moment, after the time of the logout was taken, are named one by one.
    for (const family of families.filter((id) => !told || !endsWith(madeAt(id), told.endedAt)))
      await endings.announce({ type: 'family.ended', sid, family, endedAt });
    // The others were told where it is known whose it is.
    if (isLost && !(ended && (await wasFinished(sid)))) {
      metrics.logoutsIncomplete.inc();
      audit('logout.incomplete', { sid });
    }
    conclude(sid, reason, families);
    return { done: true, person: told && told.subject !== UNKNOWN_SUBJECT ? told : undefined };
  }

  /** The others have heard of it by the stream: one that knows where the record is deletes it within moments. */
  async function wasFinished(sid: string): Promise<boolean> {
    for (let left = FINISH_MS; left > 0; left -= FINISH_LOOK_MS) {
      if (await ledger.wasDeleted(sid).catch(() => false)) return true;
      await new Promise((resolve) => setTimeout(resolve, FINISH_LOOK_MS));
    }
    return false;
  }

  async function noteOne(sid: string, reason: EndReason, ended: Ended): Promise<void> {
    // Told first: once the families have ended, nobody comes again to find that nobody was told.
    await endings.announce({ type: 'session.ended', sid, ...ended });
    const families = await ledger.end(sid, { ended, reason, upTo: ended.endedAt, person: personOf(personKey, ended.subject) });
    conclude(sid, reason, families);
  }

  /** A session that was brought back and the one that it continues end together. */
  async function endLinked(first: string, reason: EndReason, person: Login, except?: string): Promise<void> {
    const done = new Set([first, ...(except === undefined ? [] : [except])]);
    for (const waiting = [...(await ledger.links(first))]; waiting.length > 0; ) {
      const { sid, entry, key } = waiting.shift() ?? { sid: first };
      if (done.has(sid) || done.size > MAX_LINKED) continue;
      done.add(sid);
      await endOne(sid, reason, { person, ...(entry !== undefined && key !== undefined ? { at: { entry, key } } : {}) });
      waiting.push(...(await ledger.links(sid)));
    }
  }

  return {
    async end(sid, reason, known = {}) {
      endings.assertHeard();
      const { except, ...one } = known;
      const { done, person } = await endOne(sid, reason, one);
      // Of nobody in particular nothing else ends.
      if (done && person) await endLinked(sid, reason, person, except);
    },

    async note(sid, reason, ended) {
      await noteOne(sid, reason, ended);
      await endLinked(sid, reason, ended);
    },

    async finish(sid, ended, place = placeOf(sid)) {
      const entry = place && entries.find(({ name }) => name === place.entry);
      if (!place || !entry || finishing.has(sid)) return;
      finishing.add(sid);
      try {
        const reading = await readKnown(place.entry, place.key);
        // A record of that login is refused already, or judged here: its end may be heard of before its tombstone is read.
        const isThat =
          reading.kind === 'session'
            ? refusesRecord({ ...ended, unfinished: true }, reading.session.identity, clock.now(), resurrectionSeconds, entry.reusesIds)
            : reading.reason === 'logged-out';
        if (!isThat) return;
        await deleteRecord({ entry: place.entry, key: place.key });
        await ledger.noteDeleted(sid);
      } finally {
        finishing.delete(sid);
      }
    },

    onDelete: (listener) => void deleting.push(listener),

    async repeat(sid, ended) {
      await endings.announce({ type: 'session.ended', sid, ...ended });
    },
  };
}
