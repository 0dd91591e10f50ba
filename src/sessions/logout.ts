import { pseudonym } from '../config/secret.js';
import { unavailable } from '../errors.js';
import type { Identity } from '../principal.js';
import type { EventStream } from '../redis/events.js';
import type { Audit } from '../telemetry/audit.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { KeptSession } from './kept-session.js';
import type { SessionLedger } from './ledger.js';
import type { SessionReader } from './reader.js';
import type { SessionEntry } from './record.js';
import type { Ended } from './tombstone.js';

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
  end(sid: string, reason: EndReason, known?: { readonly person?: Identity; readonly place?: Omit<SessionPlace, 'sid'> }): Promise<void>;
  /**
   * Notes that a login has ended without us, at the legacy app. What was made from it up to `ended.endedAt` ends; the record
   * that stands there now, if any, is another matter. Throws as `end` does.
   */
  note(sid: string, reason: EndReason, ended: Ended): Promise<void>;
}

export interface LogoutOptions {
  readonly ledger: SessionLedger;
  readonly events: Pick<EventStream, 'publish'>;
  /** Tells this instance before anybody else. */
  readonly apply: (event: Parameters<EventStream['publish']>[0]) => void;
  readonly entries: readonly Pick<SessionEntry, 'name' | 'client'>[];
  readonly readKnown: SessionReader['readKnown'];
  /** Called before a record is deleted here, so that its own news is no surprise. */
  readonly forget: (place: Omit<SessionPlace, 'sid'>) => void;
  readonly personKey: Buffer;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

/** A restored session continues another, which may have continued one: so many steps are followed back. */
const MAX_PREDECESSORS = 8;

/** A short name for a person, for keys and fields of the bridge's own. */
export function personOf(personKey: Buffer, { subject, tenant }: Pick<Identity, 'subject' | 'tenant'>): string {
  return pseudonym(personKey, JSON.stringify([subject, tenant ?? null])).slice(0, 22);
}

export function createLogout(options: LogoutOptions): Logout {
  const { ledger, events, apply, entries, readKnown, forget, personKey, audit, metrics } = options;

  async function publish(event: Parameters<EventStream['publish']>[0]): Promise<void> {
    apply(event);
    await events.publish(event).catch((cause: unknown) => {
      throw unavailable('redis', cause);
    });
  }

  async function tell(sid: string, reason: EndReason, ended: Ended, families: readonly string[]): Promise<void> {
    await publish({ type: 'session.ended', sid, ...ended });
    // Made in the same moment, after the time of the logout was taken: named one by one.
    for (const family of families.filter((id) => madeAt(id) > ended.endedAt)) {
      await publish({ type: 'family.ended', sid, family, endedAt: ended.endedAt });
    }
    metrics.sessionsEnded.inc({ reason });
    audit('session.ended', { sid, reason, families: families.length });
  }

  async function deleteRecord({ entry: name, key }: Omit<SessionPlace, 'sid'>): Promise<void> {
    const entry = entries.find((known) => known.name === name);
    if (!entry) return;
    forget({ entry: name, key });
    await entry.client.del(key).catch((cause: unknown) => {
      throw unavailable('redis', cause);
    });
  }

  /** The same id may have been given to another person since. */
  async function isSomebodyElses({ entry, key, subject }: KeptSession): Promise<boolean> {
    const reading = await readKnown(entry, key);
    return reading.kind === 'session' && reading.session.identity.subject !== subject;
  }

  async function end(sid: string, reason: EndReason, known: Parameters<Logout['end']>[2] = {}, steps = 0): Promise<void> {
    const [kept, predecessor, endedAt] = await Promise.all([ledger.kept(sid), ledger.predecessor(sid), ledger.now(sid)]);
    if (kept && known.person && !known.place && kept.subject !== known.person.subject) {
      // Whoever this is, the session has gone to somebody else: only what was made for this person ends.
      await note(sid, reason, endedLogin(known.person, endedAt));
      return;
    }
    if (known.place) await deleteRecord(known.place);
    else if (kept && !(await isSomebodyElses(kept))) await deleteRecord(kept);
    // A token knows the login only to the second; what is kept knows better.
    const person = known.person && (known.person.authTimeMs !== undefined || kept?.subject !== known.person.subject) ? known.person : kept;
    const ended = person ? endedLogin(person, endedAt) : undefined;
    const families = await ledger.end(sid, { reason, ...(ended ? { ended } : {}) });
    if (ended) await tell(sid, reason, ended, families);
    else for (const family of families) await publish({ type: 'family.ended', sid, family, endedAt });
    if (predecessor !== undefined && steps < MAX_PREDECESSORS)
      await end(predecessor, reason, known.person ? { person: known.person } : {}, steps + 1);
  }

  async function note(sid: string, reason: EndReason, ended: Ended): Promise<void> {
    const families = await ledger.end(sid, { ended, reason, upTo: ended.endedAt, person: personOf(personKey, toPerson(ended)) });
    await tell(sid, reason, ended, families);
  }

  return { end: async (sid, reason, known) => await end(sid, reason, known), note };
}

function endedLogin(
  { subject, tenant, authTimeMs }: { subject: string; tenant?: string | undefined; authTimeMs?: number | undefined },
  endedAt: number,
): Ended {
  return { subject, endedAt, ...(tenant === undefined ? {} : { tenant }), ...(authTimeMs === undefined ? {} : { authTimeMs }) };
}

function toPerson({ subject, tenant }: Ended): Pick<Identity, 'subject' | 'tenant'> {
  return { subject, ...(tenant === undefined ? {} : { tenant }) };
}

/** When a family was made, in ms by Redis' clock: its id starts with it. NaN for what is no family id. */
export function madeAt(family: string): number {
  return /^\d{13}[A-Za-z0-9_-]{16}$/.test(family) ? Number(family.slice(0, 13)) : Number.NaN;
}
