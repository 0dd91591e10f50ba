import type { Clock } from '../clock.js';
import type { Identity } from '../principal.js';
import type { EndEvent } from '../redis/events.js';
import { madeAt } from '../sessions/logout.js';
import type { Ended } from '../sessions/tombstone.js';
import { describeFailure, type Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';

/** What of a verified token decides whether it was revoked. */
export interface RevocableToken {
  readonly sid: string;
  readonly subject: string;
  /** Absent in tokens of a release that had no families. */
  readonly family?: string;
  /** Seconds since the epoch. */
  readonly issuedAt: number;
}

/** Everything that has ended and may still have tokens about, in memory: verification asks no Redis. */
export interface RevocationIndex {
  apply(event: EndEvent): void;
  /** What of a token was ended; undefined: nothing. */
  whatEnded(token: RevocableToken): 'session' | 'family' | 'person' | undefined;
  endedLogin(sid: string, subject: string): Ended | undefined;
  hasFamilyEnded(family: string): boolean;
  /** Whether this login of a person is older than the moment in which the person was ended. */
  endedPerson(sid: string, login: Pick<Identity, 'subject' | 'authTimeMs'>): boolean;
  /** What Redis should have: to be written again where it came back without. */
  known(): readonly EndEvent[];
  /** The ends of persons; kept for as long as a login may be carried over. */
  knownPersons(): readonly PersonEnded[];
  /** Calls `ended` when the session, or what was made from it, has ended; with a subject also when the person was. Gives what stops it. */
  onEnded(session: string | EndableSession, ended: () => void | Promise<void>): () => void;
}

/** A session that somebody waits for the end of. A principal is one. */
export interface EndableSession {
  readonly sid: string;
  readonly subject: string;
}

export type PersonEnded = Extract<EndEvent, { type: 'subject.ended' }>;

export interface RevocationOptions {
  /** How long an ended session or family matters: longer than any access token lives. */
  readonly keepMs: number;
  /** How long the end of a person matters: as long as a login may be carried over. */
  readonly keepPersonMs: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export function createRevocationIndex({ keepMs, keepPersonMs, clock, log, metrics }: RevocationOptions): RevocationIndex {
  const logins = createExpiring<Extract<EndEvent, { type: 'session.ended' }>>(clock);
  const families = createExpiring<Extract<EndEvent, { type: 'family.ended' }>>(clock);
  const persons = createExpiring<PersonEnds>(clock);
  const listeners = new Map<string, Set<Listener>>();
  const loginKey = (sid: string, subject: string) => `${sid} ${subject}`;

  function tell(sid: string, subject?: string): void {
    for (const listener of [...(listeners.get(sid) ?? [])]) {
      if (subject === undefined || (listener.subject ?? subject) === subject) void call(listener);
    }
  }

  async function call({ ended }: Listener): Promise<void> {
    try {
      await ended();
    } catch (error) {
      log.error({ failure: describeFailure(error) }, 'a callback of onEnded failed');
    }
  }

  function tellPerson({ subject, exceptSid }: PersonEnded): void {
    for (const [sid, all] of [...listeners]) {
      if (sid === exceptSid) continue;
      for (const listener of [...all]) if (listener.subject === subject) void call(listener);
    }
  }

  return {
    apply(event) {
      switch (event.type) {
        case 'session.ended': {
          const key = loginKey(event.sid, event.subject);
          const known = logins.get(key);
          if (known && known.endedAt >= event.endedAt) return;
          logins.set(key, event, event.endedAt + keepMs);
          tell(event.sid, event.subject);
          break;
        }
        case 'family.ended':
          if (families.get(event.family)) return;
          families.set(event.family, event, event.endedAt + keepMs);
          tell(event.sid);
          break;
        case 'subject.ended': {
          const all = persons.get(event.subject)?.all ?? [];
          const isKnown = ({ endedAt, exceptSid }: PersonEnded) =>
            exceptSid === undefined ? endedAt >= event.endedAt : endedAt === event.endedAt && exceptSid === event.exceptSid;
          if (all.some(isKnown)) return;
          // One that spares a session does not undo an earlier one that did not.
          const next = [...all.filter((one) => event.exceptSid !== undefined || one.endedAt > event.endedAt), event]
            .sort((one, other) => one.endedAt - other.endedAt)
            .slice(-MAX_ENDS);
          const endedAt = Math.max(...next.map((one) => one.endedAt));
          persons.set(event.subject, { all: next, endedAt }, endedAt + keepPersonMs);
          tellPerson(event);
          break;
        }
      }
      metrics.revocations.set({ of: 'session' }, logins.size);
      metrics.revocations.set({ of: 'family' }, families.size);
      metrics.revocations.set({ of: 'person' }, persons.size);
    },

    whatEnded({ sid, subject, family, issuedAt }) {
      // Without a family there is only the second in which the token was issued: what was issued in the second of a logout is taken for older.
      const made = family === undefined ? issuedAt * 1000 : madeAt(family);
      if (family !== undefined && families.get(family)) return 'family';
      const login = logins.get(loginKey(sid, subject));
      if (login && !(made > login.endedAt)) return 'session';
      const ends = persons.get(subject)?.all ?? [];
      return ends.some(({ exceptSid, endedAt }) => exceptSid !== sid && !(made > endedAt)) ? 'person' : undefined;
    },

    hasFamilyEnded: (family) => families.get(family) !== undefined,

    endedLogin: (sid, subject) => logins.get(loginKey(sid, subject)),

    endedPerson(sid, { subject, authTimeMs }) {
      const ends = persons.get(subject)?.all ?? [];
      return authTimeMs !== undefined && ends.some(({ exceptSid, notBefore }) => exceptSid !== sid && authTimeMs <= notBefore);
    },

    known() {
      const oldest = clock.now() - keepMs;
      return [...logins.values(), ...families.values(), ...[...persons.values()].flatMap(({ all }) => all.filter(({ endedAt }) => endedAt > oldest))];
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

interface PersonEnds {
  readonly all: readonly PersonEnded[];
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
