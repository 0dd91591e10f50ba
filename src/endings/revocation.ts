import type { Clock } from '../clock.js';
import { type EndedPerson, endsLogin, endsWith, type KnownEnds, madeAt } from '../login.js';
import { traceOf } from '../telemetry/log.js';
import type { Tools } from '../telemetry/tools.js';
import type { EndEvent, PersonEnd } from './event.js';

/** What of a verified token decides whether it was revoked. */
export interface RevocableToken {
  readonly sid: string;
  readonly subject: string;
  /** Absent in tokens of a release that had no families. */
  readonly family?: string | undefined;
  /** Seconds since the epoch. */
  readonly issuedAt: number;
}

/** A family, and whom it belongs to; '' where that cannot be read. */
export interface FamilyOf {
  readonly sid: string;
  readonly family: string;
  readonly subject: string;
}

/** Everything that has ended and may still have tokens about, in memory: verification asks no Redis. */
export interface RevocationIndex extends KnownEnds {
  /** False: it was known. */
  apply(event: EndEvent): boolean;
  /** What of a token was ended; undefined: nothing. */
  whatEnded(token: RevocableToken): 'session' | 'family' | 'person' | undefined;
  /** What Redis should have: to be written again where it came back without. */
  known(): readonly EndEvent[];
  /** The ends of persons; kept for as long as a login may be carried over. */
  knownPersons(): readonly PersonEnd[];
  /** Calls `ended` when the session, or what was made from it, has ended; with a subject also when the person was. Gives what stops it. */
  onEnded(session: string | EndableSession, ended: () => void | Promise<void>): () => void;
}

/** A session that somebody waits for the end of. A principal is one. */
export interface EndableSession {
  readonly sid: string;
  readonly subject: string;
}

export interface RevocationOptions extends Pick<Tools, 'clock' | 'log' | 'metrics'> {
  /** How long an ended session or family matters: longer than any access token lives. */
  readonly keepMs: number;
  /** How long the end of a person matters: as long as a login may be carried over. */
  readonly keepPersonMs: number;
}

export function createRevocationIndex({ keepMs, keepPersonMs, clock, log, metrics }: RevocationOptions): RevocationIndex {
  /** By session, then by person: an id may have gone from one to another. */
  const logins = createExpiring<LoginEnds>(clock);
  const families = createExpiring<Extract<EndEvent, { type: 'family.ended' }>>(clock);
  const persons = createExpiring<PersonEnds>(clock);
  const listeners = new Map<string, Set<Listener>>();
  for (const of of ['session', 'family', 'person']) metrics.revocations.set({ of }, 0);

  function callBack(sid: string, subject?: string): void {
    for (const listener of [...(listeners.get(sid) ?? [])]) {
      if (subject === undefined || (listener.subject ?? subject) === subject) void call(listener);
    }
  }

  function endedLogin(sid: string, subject: string): LoginEnded | undefined {
    return logins.get(sid)?.all.find((one) => one.subject === subject);
  }

  async function call({ ended }: Listener): Promise<void> {
    try {
      await ended();
    } catch (error) {
      log.error({ failure: traceOf(error) }, 'a callback of onEnded failed');
    }
  }

  function tellPerson({ subject, exceptSid }: EndedPerson): void {
    for (const [sid, all] of [...listeners]) {
      if (sid === exceptSid) continue;
      for (const listener of [...all]) if (listener.subject === subject) void call(listener);
    }
  }

  return {
    apply(event) {
      switch (event.type) {
        case 'session.ended': {
          const all = logins.get(event.sid)?.all ?? [];
          const known = all.find(({ subject }) => subject === event.subject);
          if (known && known.endedAt >= event.endedAt) return false;
          const next = [...all.filter((one) => one !== known && one.endedAt > clock.now() - keepMs), event];
          const endedAt = Math.max(...next.map((one) => one.endedAt));
          logins.set(event.sid, { all: next, endedAt }, endedAt + keepMs);
          metrics.revocations.set({ of: 'session' }, logins.size);
          callBack(event.sid, event.subject);
          return true;
        }
        case 'family.ended':
          if (families.get(event.family)) return false;
          families.set(event.family, event, event.endedAt + keepMs);
          metrics.revocations.set({ of: 'family' }, families.size);
          callBack(event.sid);
          return true;
        case 'subject.ended': {
          const all = persons.get(event.subject)?.all ?? [];
          const isKnown = ({ endedAt, exceptSid }: EndedPerson) =>
            exceptSid === undefined ? endedAt >= event.endedAt : endedAt === event.endedAt && exceptSid === event.exceptSid;
          if (all.some(isKnown)) return false;
          // One that spares a session does not undo an earlier one that did not.
          const next = [...all.filter((one) => event.exceptSid !== undefined || one.endedAt > event.endedAt), event]
            .sort((one, other) => one.endedAt - other.endedAt)
            .slice(-MAX_ENDS);
          const endedAt = Math.max(...next.map((one) => one.endedAt));
          persons.set(event.subject, { all: next, endedAt }, endedAt + keepPersonMs);
          metrics.revocations.set({ of: 'person' }, persons.size);
          tellPerson(event);
          return true;
        }
      }
    },

    whatEnded({ sid, subject, family, issuedAt }) {
      if (family !== undefined && families.get(family)) return 'family';
      const login = endedLogin(sid, subject);
      const person = persons.get(subject);
      if (!login && !person) return undefined;
      // Without a family there is only the second in which the token was issued: what was issued in the second of a logout is taken for older.
      const made = family === undefined ? issuedAt * 1000 : madeAt(family);
      if (login && endsWith(made, login.endedAt)) return 'session';
      return person?.all.some(({ exceptSid, endedAt }) => exceptSid !== sid && endsWith(made, endedAt)) ? 'person' : undefined;
    },

    hasFamilyEnded: (family) => families.get(family) !== undefined,

    endedLogin,

    endedPerson: (sid, login) => persons.get(login.subject)?.all.some((ended) => endsLogin(ended, sid, login)) ?? false,

    known() {
      const oldest = clock.now() - keepMs;
      const recent = <T extends { readonly endedAt: number }>({ all }: { readonly all: readonly T[] }) =>
        all.filter(({ endedAt }) => endedAt > oldest);
      return [...[...logins.values()].flatMap(recent), ...families.values(), ...[...persons.values()].flatMap(recent)];
    },

    knownPersons: () => [...persons.values()].flatMap(({ all }) => all),

    onEnded(session, ended) {
      const { sid, subject } = typeof session === 'string' ? { sid: session, subject: undefined } : session;
      const own: Listener = { ended, subject };
      const all = listeners.get(sid) ?? new Set();
      listeners.set(sid, all.add(own));
      return () => {
        all.delete(own);
        if (all.size === 0 && listeners.get(sid) === all) listeners.delete(sid);
      };
    },
  };
}

interface Listener {
  readonly subject: string | undefined;
  readonly ended: () => void | Promise<void>;
}

type LoginEnded = Extract<EndEvent, { type: 'session.ended' }>;

interface LoginEnds {
  readonly all: readonly LoginEnded[];
  /** Of the latest. */
  readonly endedAt: number;
}

interface PersonEnds {
  readonly all: readonly PersonEnd[];
  /** Of the latest. */
  readonly endedAt: number;
}

/** So many ends of one person are told apart. */
const MAX_ENDS = 16;

/** A map that forgets: looked through now and then, so that it holds what still matters and little else. */
function createExpiring<T extends { readonly endedAt: number }>(clock: Clock) {
  const held = new Map<string, { readonly value: T; readonly until: number }>();
  let sweepAt = 1000;

  function sweep(): void {
    const now = clock.now();
    for (const [key, { until }] of held) if (until <= now) held.delete(key);
    sweepAt = Math.max(1000, held.size * 2);
  }

  return {
    get(key: string): T | undefined {
      return held.get(key)?.value;
    },
    set(key: string, value: T, until: number): void {
      held.set(key, { value, until });
      if (held.size >= sweepAt) sweep();
    },
    *values(): Iterable<T> {
      const now = clock.now();
      for (const { value, until } of held.values()) if (until > now) yield value;
    },
    get size(): number {
      return held.size;
    },
  };
}
