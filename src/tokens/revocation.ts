import type { Clock } from '../clock.js';
import type { Identity } from '../principal.js';
import type { BridgeEvent } from '../redis/events.js';
import { madeAt } from '../sessions/logout.js';
import type { Ended } from '../sessions/tombstone.js';
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
  apply(event: BridgeEvent): void;
  isRevoked(token: RevocableToken): boolean;
  endedLogin(sid: string, subject: string): Ended | undefined;
  /** Whether this login of a person is older than the moment in which the person was ended. */
  endedPerson(sid: string, identity: Identity): boolean;
  /** What Redis should have: to be written again where it came back without. */
  known(): readonly BridgeEvent[];
  /** The ends of persons; kept for as long as a login may be carried over. */
  knownPersons(): readonly PersonEnded[];
  /** Calls `ended` when the session, or what was made from it, has ended. Gives what stops it. */
  onEnded(sid: string, ended: () => void): () => void;
}

export type PersonEnded = Extract<BridgeEvent, { type: 'subject.ended' }>;

export interface RevocationOptions {
  /** How long an ended session or family matters: longer than any access token lives. */
  readonly keepMs: number;
  /** How long the end of a person matters: as long as a login may be carried over. */
  readonly keepPersonMs: number;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

export function createRevocationIndex({ keepMs, keepPersonMs, clock, metrics }: RevocationOptions): RevocationIndex {
  const logins = createExpiring<Extract<BridgeEvent, { type: 'session.ended' }>>(clock);
  const families = createExpiring<Extract<BridgeEvent, { type: 'family.ended' }>>(clock);
  const persons = createExpiring<PersonEnded>(clock);
  const listeners = new Map<string, Set<() => void>>();
  const loginKey = (sid: string, subject: string) => `${sid} ${subject}`;

  function tell(sid: string): void {
    for (const ended of listeners.get(sid) ?? []) ended();
  }

  return {
    apply(event) {
      switch (event.type) {
        case 'session.ended': {
          const key = loginKey(event.sid, event.subject);
          const known = logins.get(key);
          if (known && known.endedAt >= event.endedAt) return;
          logins.set(key, event, event.endedAt + keepMs);
          tell(event.sid);
          break;
        }
        case 'family.ended':
          if (families.get(event.family)) return;
          families.set(event.family, event, event.endedAt + keepMs);
          tell(event.sid);
          break;
        case 'subject.ended': {
          const known = persons.get(event.subject);
          if (known && known.endedAt >= event.endedAt) return;
          persons.set(event.subject, event, event.endedAt + keepPersonMs);
          break;
        }
      }
      metrics.revocations.set({ of: 'session' }, logins.size);
      metrics.revocations.set({ of: 'family' }, families.size);
      metrics.revocations.set({ of: 'person' }, persons.size);
    },

    isRevoked({ sid, subject, family, issuedAt }) {
      // Without a family there is only the second in which the token was issued: what was issued in the second of a logout is taken for older.
      const made = family === undefined ? issuedAt * 1000 : madeAt(family);
      if (family !== undefined && families.get(family)) return true;
      const login = logins.get(loginKey(sid, subject));
      if (login && !(made > login.endedAt)) return true;
      const person = persons.get(subject);
      return person !== undefined && person.exceptSid !== sid && !(made > person.endedAt);
    },

    endedLogin: (sid, subject) => logins.get(loginKey(sid, subject)),

    endedPerson(sid, { subject, authTimeMs }) {
      const person = persons.get(subject);
      return person !== undefined && person.exceptSid !== sid && authTimeMs !== undefined && authTimeMs < person.notBefore;
    },

    known() {
      const oldest = clock.now() - keepMs;
      return [...logins.values(), ...families.values(), ...[...persons.values()].filter(({ endedAt }) => endedAt > oldest)];
    },

    knownPersons: () => [...persons.values()],

    onEnded(sid, ended) {
      const own = () => ended();
      const all = listeners.get(sid) ?? new Set();
      listeners.set(sid, all.add(own));
      return () => {
        all.delete(own);
        if (all.size === 0 && listeners.get(sid) === all) listeners.delete(sid);
      };
    },
  };
}

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
