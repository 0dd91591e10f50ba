import { z } from 'zod';
import { unavailable } from '../errors.js';
import type { RedisClient } from '../redis/client.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { asking } from '../redis/replies.js';
import { absentIfForeign, isWrongType, loadScript } from '../redis/script.js';
import { NO_MARKS, type SessionLedger } from '../sessions/ledger.js';
import { personOf } from '../sessions/person-of.js';
import type { Tools } from '../telemetry/tools.js';
import type { Endings } from './endings.js';
import type { PersonEnd } from './event.js';
import type { Logout } from './logout.js';

export interface EndSubjectOptions {
  /** For the audit: what happened, in a few words. Never a name or an address. */
  readonly why: string;
  /** The session that is left as it is: the one in which the password was changed. */
  readonly exceptSid?: string;
}

export interface Persons {
  /**
   * Notes that tokens are made from a session of this person.
   * @returns the end of the person, where there was one.
   * @throws {CrossfadeError} `temporarily_unavailable`, as all of these do.
   */
  note(subject: string, sid: string, endsAtMs: number): Promise<PersonEnd | undefined>;
  /** Ends all sessions that tokens were made from, all tokens, and all logins before this moment. Gives how many sessions that were living. */
  end(subject: string, options: EndSubjectOptions): Promise<number>;
  /** Sessions that tokens were made from for this person, those that have ended of late among them. */
  sessionsOf(subject: string): Promise<readonly string[]>;
  /** Writes an end again that Redis has lost, where no newer one stands; families of that person from before it end. */
  endAgain(ended: PersonEnd): Promise<void>;
  /** Ends the sessions of a person that this instance knows and Redis has lost: who ended the person did not find them. */
  endKnown(ended: PersonEnd): Promise<void>;
  /**
   * Reads the ends of persons that may still matter. `isWhole`: none stands under a secret that is not here. Rejects with what ioredis
   * rejects with.
   */
  load(): Promise<{ readonly ends: readonly PersonEnd[]; readonly isWhole: boolean }>;
  /** Writes them again, where Redis came back without. */
  store(all: readonly PersonEnd[]): Promise<void>;
  /** Whether Redis has any. Rejects with what ioredis rejects with. */
  areStored(): Promise<boolean>;
}

export interface PersonsOptions extends Pick<Tools, 'clock' | 'audit' | 'metrics'> {
  readonly client: RedisClient;
  readonly prefix: string;
  readonly logout: Pick<Logout, 'end'>;
  readonly ledger: Pick<SessionLedger, 'end' | 'marks'>;
  /** Sessions of this person that are known here, also where Redis has lost them. */
  readonly known: (subject: string) => readonly string[];
  readonly endings: Pick<Endings, 'announce' | 'assertHeard'>;
  readonly secrets: FleetSecrets;
  /** Whether what does not open may be of this fleet, under a secret that is not here: then it cannot be known (law 1). */
  readonly isStranger: () => boolean;
  /** How long a login may be carried over at most. */
  readonly keepMs: number;
  /** How far a clock may be off. */
  readonly skewMs: number;
}

const schema = z.object({
  type: z.literal('subject.ended'),
  subject: z.string(),
  endedAt: z.number(),
  notBefore: z.number(),
  exceptSid: z.string().optional(),
});

const noteSession = loadScript('note-session', ['hash']);
const endSubject = loadScript('end-subject', ['hash']);
const notePersonEnded = loadScript('note-person-ended', ['zset']);
const timeOf = loadScript('time');

const PAGE = 1000;
/** So many ms are waited for the next one, at most: a clock may stand still. */
const MAX_TURNS = 5;
/** Another instance may end the same person between two steps. */
const MAX_TRIES = 5;

/** Clocks differ by less, also where one was set wrongly by hours. */
const AHEAD_MS = 86_400_000;

/** What the MAC of the end of a person is bound to. */
export const PERSON_CONTEXT = 'person';

export function createPersons(options: PersonsOptions): Persons {
  const { client, prefix, logout, ledger, known, endings, secrets, isStranger, keepMs, skewMs, clock, audit, metrics } = options;
  const all = `${prefix}persons-ended`;
  const keyOf = (subject: string) => `${prefix}subject:{${personOf(secrets.names.person, subject)}}`;

  function judge(signed: string): PersonEnd | 'bad-mac' | 'unknown-shape' | 'of-later' {
    const text = secrets.openSigned(PERSON_CONTEXT, signed);
    if (text === undefined) return 'bad-mac';
    const read = schema.safeParse(JSON.parse(text)).data;
    if (!read) return 'unknown-shape';
    // No instance writes one that is of later than itself: it would keep a person out for good.
    return read.notBefore <= read.endedAt && read.endedAt <= clock.now() + AHEAD_MS ? read : 'of-later';
  }

  function open(signed: string): PersonEnd | undefined {
    const found = judge(signed);
    if (typeof found !== 'string') return found;
    if (!secrets.isDenied(signed)) refuse(found);
    return undefined;
  }

  /** The end of one person. @throws {CrossfadeError} `temporarily_unavailable` where it may be one, and cannot be read here. */
  function openOwn(signed: string): PersonEnd | undefined {
    const found = judge(signed);
    if (typeof found !== 'string') return found;
    if (secrets.isDenied(signed)) return undefined;
    refuse(found);
    if (found === 'unknown-shape') throw unavailable('release');
    if (found === 'bad-mac' && (isStranger() || secrets.isUnknown(signed))) throw unavailable('secret');
    return undefined;
  }

  function refuse(reason: string): void {
    metrics.refusedValues.inc({ key: 'persons-ended' });
    audit('value.refused', { key: 'persons-ended', reason });
  }

  const sign = (ended: PersonEnd) => secrets.sign(PERSON_CONTEXT, JSON.stringify(ended));

  return {
    async note(subject, sid, endsAtMs) {
      const signed = await asking(noteSession(client, [keyOf(subject)], [sid, endsAtMs, keepMs]));
      const ended = typeof signed === 'string' ? openOwn(signed) : undefined;
      return ended?.subject === subject ? ended : undefined;
    },

    async end(subject, { why, exceptSid }) {
      endings.assertHeard();
      const key = keyOf(subject);
      const endedAt = Number(await asking(timeOf(client, [key], [])));
      // A login is dated by the app's clock, which may be behind that of Redis: a login right after this must not be taken for older.
      const notBefore = Math.max(endedAt - skewMs, Math.min(endedAt, clock.now()));
      const ended: PersonEnd = { type: 'subject.ended', subject, endedAt, notBefore, ...(exceptSid === undefined ? {} : { exceptSid }) };
      const signed = sign(ended);
      const sids = await asking(endSubject(client, [key], [signed, keepMs]));
      await asking(notePersonEnded(client, [all], [keepMs, endedAt, signed]));
      await endings.announce(ended);
      const sessions = [...new Set([...(Array.isArray(sids) ? sids.map(String) : []), ...known(subject)])].filter((sid) => sid !== exceptSid);
      const failures: unknown[] = [];
      let living = 0;
      for (const sid of sessions) {
        const { ended: before } = await ledger.marks(sid).catch(() => NO_MARKS);
        if (!before) living += 1;
        // Ended once more, it is still known whose it was.
        const tenant = before?.subject === subject ? before.tenant : undefined;
        const ending = logout.end(sid, 'person-ended', { person: { subject, tenant }, ...(exceptSid === undefined ? {} : { except: exceptSid }) });
        await ending.catch((error: unknown) => failures.push(error));
      }
      // One that cannot be ended keeps none of the others.
      if (failures.length > 0) throw failures[0];
      // A login in the same ms counts as older: whoever logs in once this has resolved is not to be taken for that.
      for (let turn = 0; turn < MAX_TURNS && clock.now() <= notBefore; turn++) await new Promise((resolve) => setTimeout(resolve, 1));
      audit('person.ended', { why, sessions: living });
      return living;
    },

    async sessionsOf(subject) {
      const fields = await asking(client.hkeys(keyOf(subject)).catch(absentIfForeign<string[]>([])));
      return [...new Set([...fields.filter((field) => field !== 'not-before'), ...known(subject)])];
    },

    async endAgain(ended) {
      const { subject, endedAt, exceptSid } = ended;
      const key = keyOf(subject);
      await notePersonEnded(client, [all], [keepMs, endedAt, sign(ended)]);
      let sids: unknown = 'changed';
      for (let tries = 0; tries < MAX_TRIES && sids === 'changed'; tries++) {
        const stands = await client.hget(key, 'not-before').catch(absentIfForeign<string | null>(null));
        const newest = stands === null ? undefined : open(stands);
        if (newest && newest.endedAt >= endedAt) return;
        sids = await endSubject(client, [key], [sign(ended), keepMs, stands ?? '']);
      }
      const person = personOf(secrets.names.person, subject);
      for (const sid of Array.isArray(sids) ? sids.map(String) : []) {
        if (sid !== exceptSid) await ledger.end(sid, { reason: 'person-ended', upTo: endedAt, person });
      }
    },

    async endKnown({ subject, exceptSid }) {
      for (const sid of known(subject)) {
        const marks = sid === exceptSid ? undefined : await ledger.marks(sid);
        if (!marks || marks.ended || marks.hasTokens !== false) continue;
        await logout.end(sid, 'person-ended', {
          person: { subject },
          ...(exceptSid === undefined ? {} : { except: exceptSid }),
        });
      }
    },

    async load() {
      const found: PersonEnd[] = [];
      let isWhole = true;
      for (let at = 0; ; at += PAGE) {
        const page = await client.zrange(all, String(at), String(at + PAGE - 1)).catch(async (error: unknown) => {
          if (!isWrongType(error)) throw error;
          refuse('wrong-type');
          await client.del(all);
          return [];
        });
        isWhole &&= !page.some((signed) => secrets.isUnknown(signed));
        found.push(...page.flatMap((signed) => open(signed) ?? []));
        if (page.length < PAGE) return { ends: found.filter(({ endedAt }) => endedAt > clock.now() - keepMs), isWhole };
      }
    },

    areStored: async () => (await client.exists(all)) > 0,

    async store(persons) {
      await notePersonEnded(client, [all], [keepMs, ...persons.flatMap((ended) => [ended.endedAt, sign(ended)])]);
    },
  };
}
