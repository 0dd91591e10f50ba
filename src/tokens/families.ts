import { LRUCache } from 'lru-cache';
import { z } from 'zod';
import type { Config } from '../config/config.js';
import type { EventStream } from '../endings/event-stream.js';
import type { SessionPlace } from '../endings/logout.js';
import type { FamilyOf, RevocationIndex } from '../endings/revocation.js';
import { unavailable } from '../errors.js';
import { madeAt } from '../login.js';
import type { Identity } from '../principal.js';
import type { RedisClient } from '../redis/client.js';
import type { FleetSecrets } from '../redis/fleet-secrets.js';
import { asking, parseJson } from '../redis/replies.js';
import { absentIfForeign, isWrongType, loadScript } from '../redis/script.js';
import type { SessionLedger } from '../sessions/ledger.js';
import { personOf } from '../sessions/person-of.js';
import type { Tools } from '../telemetry/tools.js';
import { type Grant, openGrant, sealGrant } from './grant.js';
import { formatRefreshToken, hashSecret, type RefreshToken, sealSuccessor, unsealSuccessor } from './refresh-token.js';
import { createRotatingParts, FIRST_COUNTER, MAX_COUNTER } from './rotating-part.js';

/** Why a family was ended by itself, not with its session. */
export type FamilyEndReason = 'revoked' | 'reused' | 'returned' | 'taken-back' | 'other-person';

/**
 * What a good part is to its family. `current`: the next use rotates it. `ahead`: newer than Redis knows, because Redis lost a write; it
 * rotates as well. `earlier`: it gets the successor that it had.
 */
export type PartRank = 'ahead' | 'current' | 'earlier';

export type FoundFamily =
  | {
      readonly kind: 'live';
      readonly grant: Grant;
      readonly part: PartRank;
      /** What the successor counts from: the counter of the presented part, else the last one that the family had. */
      readonly counter: number;
      /** Hash of the part that Redis has as the current one. */
      readonly current: string;
      /** The grant as Redis has it. */
      readonly sealed: string;
    }
  /** An earlier part, out of its grace, under the right family secret: somebody else has used the family (RFC 9700, section 4.14.2). */
  | { readonly kind: 'reused'; readonly grant: Grant }
  /** It has returned: a retry is answered with the same session. */
  | { readonly kind: 'returned'; readonly client: string; readonly person: string; readonly to: SessionPlace }
  | { readonly kind: 'ended'; readonly client: string; readonly person: string; readonly reason: string }
  /** The right family secret, and what stands there cannot be read. `later`: a later release wrote it; else no secret here opens it. */
  | { readonly kind: 'unreadable'; readonly why: 'later' | 'unopened' }
  /** Redis has no such family, though the token is ours and could still live: Redis has lost it. */
  | { readonly kind: 'lost' }
  /** No such family, or a wrong secret: the family is not touched. */
  | { readonly kind: 'unknown' };

export type LiveFamily = Extract<FoundFamily, { kind: 'live' }>;

export type Rotation =
  | { readonly kind: 'rotated' | 'repeated' | 'caught-up'; readonly token: string }
  | { readonly kind: 'refused'; readonly reason: string };

export interface OpenedFamily {
  readonly family: string;
  readonly token: string;
}

/** The families of refresh tokens in Redis. All methods throw `temporarily_unavailable` where Redis does not answer or refuses to write. */
export interface Families {
  open(sid: string, grant: Grant, sealedSession: string): Promise<OpenedFamily>;
  /** What a refresh token stands for; consumes nothing. */
  find(token: RefreshToken): Promise<FoundFamily>;
  /** Whose the tokens of a session are; undefined: nothing that can be read says so. */
  ownerOf(sid: string): Promise<Identity | undefined>;
  /** Whether `person`, as a family names one, is this subject. */
  isOf(person: string, subject: string): boolean;
  /** Whether this family was ended with its access tokens. Asks Redis, not memory; what Redis has lost it does not know. */
  hasEnded(sid: string, family: string): Promise<boolean>;
  /** Uses the token that was found. `grant`: what the family is from now on. `sealedSession`: the session as it is now; empty leaves it. */
  rotate(token: RefreshToken, found: LiveFamily, grant: Grant, sealedSession: string): Promise<Rotation>;
  /** Ends a family, and with it its access tokens on every instance. May be repeated. */
  end(sid: string, family: string, reason: Exclude<FamilyEndReason, 'returned'>): Promise<void>;
  /** Ends the access tokens of a family that Redis has lost, by a token of ours. May be repeated; of one token only the first counts. */
  endLost(token: RefreshToken): Promise<void>;
  /** Ends a family by its return to a session; gives the one that counts: this, or that of whoever was faster. Undefined: it had ended otherwise. */
  close(token: RefreshToken, found: LiveFamily, to: SessionPlace): Promise<SessionPlace | undefined>;
}

export interface FamiliesOptions extends Pick<Tools, 'clock' | 'random' | 'audit' | 'metrics'> {
  readonly client: RedisClient;
  readonly ledger: Pick<SessionLedger, 'keysOf' | 'now'>;
  readonly events: Pick<EventStream, 'publish'>;
  /** Tells this instance. */
  readonly apply: (event: Parameters<EventStream['publish']>[0]) => void;
  /** What this instance knows to have ended. */
  readonly heard: Pick<RevocationIndex, 'hasFamilyEnded' | 'whatEnded'>;
  /** Writes an end again that this instance knows and Redis has lost. */
  readonly writeAgain: (family: FamilyOf) => Promise<void>;
  /** Called where Redis has lost a write: it may have lost others. */
  readonly onLostWrite: () => void;
  /** Whether the Redis node or the connection to it has changed within the last hour: then a lost write is no surprise. */
  readonly hasRedisChanged: () => Promise<boolean>;
  readonly config: Pick<Config['tokens'], 'reuseGraceSeconds' | 'lateRetry' | 'familiesPerSession' | 'refreshIdleSeconds' | 'refreshAbsoluteSeconds'>;
  readonly secrets: FleetSecrets;
}

const openFamily = loadScript('open-family', ['zset', 'hash', 'hash', 'string']);
const rotateFamily = loadScript('rotate-family', ['hash', 'zset', 'hash', 'string']);
const endFamily = loadScript('end-family', ['hash', 'zset', 'hash']);

const SECRET_BYTES = 32;
/** The random part of a family's id. */
const FAMILY_NAME = 16;
const MAX_ENDED_LOST = 10_000;
/** Clocks differ. */
const CLOCK_SLACK_MS = 60_000;
/** Stands where the time of a family is not known yet; rotating parts do not depend on it. */
const UNTIMED = '0'.repeat(13);
/** COUNTER.HASH of the part that has this counter. */
const COUNTED = /^(\d+)\.(.+)$/;
/** Until when, in ms by Redis' clock, and the lowest counter that is answered until then. */
const ADOPTED = /^(\d+)\.(\d+)$/;

/** Ends of a family after which its access tokens run out by themselves. */
const LEAVES_ACCESS_TOKENS: ReadonlySet<string> = new Set(['superseded', 'returned']);

const placeSchema = z.object({ sid: z.string(), entry: z.string(), key: z.string() });
const returnContext = ({ sid, family }: Pick<RefreshToken, 'sid' | 'family'>) => `returned\0${sid}\0${family}`;

export function createFamilies(options: FamiliesOptions): Families {
  const { client, ledger, events, apply, heard, writeAgain, onLostWrite, hasRedisChanged } = options;
  const { config, secrets, random, clock, audit, metrics } = options;
  const personKey = secrets.names.person;
  const parts = createRotatingParts(secrets);
  const endedLost = new LRUCache<string, true>({ max: MAX_ENDED_LOST });
  // There from the start, so that the first one is an increase.
  for (const redis of ['changed', 'same']) metrics.lostWrites.inc({ redis }, 0);

  function keysOf(sid: string, family: string) {
    const keys = ledger.keysOf(sid);
    return { ...keys, family: keys.family + family };
  }

  function open(sid: string, secretHash: string, sealed: string | null | undefined): Grant | 'later' | undefined {
    if (typeof sealed !== 'string') return undefined;
    const grant = openGrant(secrets, sid, secretHash, sealed);
    if (!grant && !secrets.isDenied(sealed)) {
      metrics.refusedValues.inc({ key: 'family' });
      audit('value.refused', { key: 'family', reason: 'bad-mac' });
    }
    return grant;
  }

  function openPlace(token: Pick<RefreshToken, 'sid' | 'family'>, sealed: string | null | undefined): SessionPlace | 'later' | undefined {
    const text = typeof sealed === 'string' ? secrets.unseal(returnContext(token), sealed) : undefined;
    return text === undefined ? undefined : (placeSchema.safeParse(JSON.parse(text)).data ?? 'later');
  }

  async function runEnd(sid: string, family: string, reason: FamilyEndReason, answer = '', part = ''): Promise<readonly string[]> {
    const keys = keysOf(sid, family);
    return toTexts(await asking(endFamily(client, [keys.family, keys.families, keys.session], [family, reason, answer, part])));
  }

  async function tell(sid: string, family: string, reason: string): Promise<void> {
    if (heard.hasFamilyEnded(family)) return;
    const event = { type: 'family.ended', sid, family, endedAt: await ledger.now(sid) } as const;
    await asking(events.publish(event));
    apply(event);
    metrics.familiesEnded.inc({ reason });
    audit('family.revoked', { sid, family, reason });
    await asking(client.hdel(keysOf(sid, family).family, 'untold')).catch(() => undefined); // Then it is published once more.
  }

  /** Lost with the rest of Redis: the token is ours, and the family could still live. It may have ended unused, too: Redis does not say. */
  function isLost({ sid, family, secret, rotating }: RefreshToken): boolean {
    const age = clock.now() - madeAt(family);
    const counter = parts.counterOf({ sid, family, secretHash: hashSecret(secret) }, rotating);
    if (counter === undefined || !(age > -CLOCK_SLACK_MS)) return false;
    // One that was never used since it was made has its idle life only.
    return (
      age < (counter === FIRST_COUNTER ? Math.min(config.refreshIdleSeconds, config.refreshAbsoluteSeconds) : config.refreshAbsoluteSeconds) * 1000
    );
  }

  /** Redis knew less than this token says. `lost`: how many rotations. */
  async function noteLostWrite({ sid, family }: RefreshToken, lost?: number): Promise<void> {
    metrics.lostWrites.inc({ redis: (await hasRedisChanged()) ? 'changed' : 'same' });
    audit('family.caught-up', { sid, family, lost });
    onLostWrite();
  }

  return {
    async open(sid, grant, sealedSession) {
      const keys = ledger.keysOf(sid);
      const secret = random.token(SECRET_BYTES);
      const secretHash = hashSecret(secret);
      const name = random.token(12);
      const rotating = parts.derive({ sid, family: UNTIMED + name, secretHash }, FIRST_COUNTER);
      const args = [
        name,
        grant.client,
        personOf(personKey, grant.identity.subject),
        secretHash,
        hashSecret(rotating),
        sealGrant(secrets, sid, secretHash, grant),
        grant.endsAt * 1000,
        grant.idleSeconds * 1000,
        sealedSession,
        config.familiesPerSession,
        FIRST_COUNTER,
      ];
      const [family = '', ...others] = toTexts(await asking(openFamily(client, [keys.families, keys.session, keys.family, keys.ended], args)));
      try {
        for (const other of others) await tell(sid, other, 'other-person');
      } catch (error) {
        await runEnd(sid, family, 'taken-back').catch(() => undefined); // Nobody has its token.
        throw error;
      }
      return { family, token: formatRefreshToken({ sid, family, secret, rotating }) };
    },

    async find(token) {
      const { sid, family, secret, rotating } = token;
      const secretHash = hashSecret(secret);
      const found = await asking(
        client
          .hmget(
            keysOf(sid, family).family,
            'secret',
            'current',
            'older',
            'grant',
            'ended',
            'returned',
            'client',
            'person',
            'counter',
            'adopted',
            'untold',
          )
          .catch((error: unknown) => {
            if (isWrongType(error)) return [];
            throw error;
          }),
      );
      const [knownSecret, current, older, sealed, ended, returned, clientId, person, counted, adopted, untold] = found;
      if (typeof knownSecret !== 'string') return { kind: isLost(token) ? 'lost' : 'unknown' };
      if (knownSecret !== secretHash) return { kind: 'unknown' };
      const presented = hashSecret(rotating);
      const isCurrent = current === presented;
      if (typeof ended === 'string') {
        const to = ended === 'returned' && isCurrent ? openPlace({ sid, family }, returned) : undefined;
        if (to === 'later') return { kind: 'unreadable', why: 'later' };
        if (to) return { kind: 'returned', client: clientId ?? '', person: person ?? '', to };
        // The instance that ended it may not have come to publish it.
        if (untold === '1') await tell(sid, family, ended);
        return { kind: 'ended', client: clientId ?? '', person: person ?? '', reason: ended };
      }
      const opened = open(sid, secretHash, sealed);
      const grant = opened === 'later' ? undefined : opened;
      const known = { sid, family, subject: grant?.identity.subject ?? '' };
      if (heard.whatEnded({ ...known, issuedAt: 0 }) !== undefined) {
        // A node that takes no writes now is another one soon, and then all is written.
        await writeAgain(known).catch(onLostWrite);
        return { kind: 'ended', client: clientId ?? '', person: person ?? '', reason: 'revoked' };
      }
      if (typeof sealed === 'string' && (opened ? grant !== undefined && secrets.isRevoked(grant.under ?? []) : secrets.isDenied(sealed)))
        return { kind: 'ended', client: clientId ?? '', person: person ?? '', reason: 'secret-denied' };
      if (!grant) return { kind: 'unreadable', why: opened ? 'later' : 'unopened' };
      const stored = readCounter(counted, current);
      const counter = parts.counterOf({ sid, family, secretHash }, rotating);
      const live = (part: PartRank) =>
        ({
          kind: 'live',
          grant,
          part,
          counter: Math.min(counter ?? lastCounter(counted), MAX_COUNTER - 1),
          current: current ?? '',
          sealed: sealed ?? '',
        }) as const;
      if (isCurrent) return live('current');
      const now = await ledger.now(sid);
      if (isStillGood(older, presented, now)) return live('earlier');
      if (counter === undefined || stored === undefined) return { kind: 'reused', grant };
      if (counter > stored) return live('ahead');
      const grace = readAdoption(adopted);
      return grace && now < grace.untilMs && counter >= grace.from ? live('earlier') : { kind: 'reused', grant };
    },

    async ownerOf(sid) {
      const names = await asking(client.zrange(ledger.keysOf(sid).families, '0', '-1').catch(absentIfForeign<string[]>([])));
      for (const family of names) {
        const [secretHash, sealed] = await asking(client.hmget(keysOf(sid, family).family, 'secret', 'grant').catch(absentIfForeign<string[]>([])));
        const grant = typeof secretHash === 'string' ? open(sid, secretHash, sealed) : undefined;
        if (grant === 'later') throw unavailable('family');
        if (grant) return grant.identity;
      }
      return undefined;
    },

    isOf: (person, subject) => personOf(personKey, subject) === person,

    async hasEnded(sid, family) {
      const ended = await asking(
        client.hget(keysOf(sid, family).family, 'ended').catch((error: unknown) => {
          if (isWrongType(error)) return null;
          throw error;
        }),
      );
      return ended !== null && !LEAVES_ACCESS_TOKENS.has(ended);
    },

    async rotate(token, found, grant, sealedSession) {
      const { sid, family, secret, rotating } = token;
      const keys = keysOf(sid, family);
      const secretHash = hashSecret(secret);
      const of = { sid, family, secretHash };
      const counter = found.counter + 1;
      const successor = parts.derive(of, counter);
      const args = [
        family,
        secretHash,
        hashSecret(rotating),
        hashSecret(successor),
        sealSuccessor(token, successor),
        sealGrant(secrets, sid, secretHash, { ...grant, ...secrets.passedThrough(grant.under, found.sealed) }),
        sealedSession,
        grant.endsAt * 1000,
        grant.idleSeconds * 1000,
        config.reuseGraceSeconds * 1000,
        config.lateRetry,
        parts.counterOf(of, rotating) ?? '',
        counter,
      ];
      const [outcome = '', detail = ''] = toTexts(await asking(rotateFamily(client, [keys.family, keys.families, keys.session, keys.ended], args)));
      switch (outcome) {
        case 'rotated':
          return { kind: 'rotated', token: formatRefreshToken({ ...token, rotating: successor }) };
        case 'derived': {
          // What was given out before may have been derived under the secret that the fleet wrote with then.
          const given = parts.deriveAll(of, counter).find((part) => hashSecret(part) === found.current);
          return { kind: 'repeated', token: formatRefreshToken({ ...token, rotating: given ?? successor }) };
        }
        case 'caught-up':
          await noteLostWrite(token, Number(detail));
          return { kind: 'caught-up', token: formatRefreshToken({ ...token, rotating: successor }) };
        case 'repeated': {
          const sealed = unsealSuccessor(token, detail);
          return sealed === undefined
            ? { kind: 'refused', reason: 'unreadable' }
            : { kind: 'repeated', token: formatRefreshToken({ ...token, rotating: sealed }) };
        }
        case 'reused':
          await tell(sid, family, 'reused');
          return { kind: 'refused', reason: 'reused' };
        default:
          return { kind: 'refused', reason: detail || outcome };
      }
    },

    async end(sid, family, reason) {
      await runEnd(sid, family, reason);
      // Also where it had ended before, or Redis has forgotten it: its access tokens may live, and nobody may have been told.
      await tell(sid, family, reason);
    },

    async endLost({ sid, family, secret }) {
      // The time in front of a family's id is not in the token's MAC: without this one token could name families without end.
      const name = `${sid} ${family.slice(-FAMILY_NAME)} ${hashSecret(secret)}`;
      if (endedLost.has(name)) return;
      await tell(sid, family, 'revoked');
      endedLost.set(name, true);
    },

    async close(token, found, to) {
      const sealed = secrets.seal(returnContext(token), JSON.stringify(to));
      const [outcome, reason, before] = await runEnd(token.sid, token.family, 'returned', sealed, hashSecret(token.rotating));
      if (outcome === 'done') {
        metrics.familiesEnded.inc({ reason: 'returned' });
        audit('family.returned', { sid: token.sid, family: token.family });
        if (found.part === 'ahead') await noteLostWrite(token);
        return to;
      }
      const known = reason === 'returned' ? openPlace(token, before) : undefined;
      if (known === 'later') throw unavailable('family');
      return known;
    },
  };
}

/** Whether an earlier part may still be used: as long as its entry says (0: no end yet). */
function isStillGood(older: string | null | undefined, presented: string, nowMs: number): boolean {
  const parts = z.array(z.tuple([z.string(), z.string(), z.number()])).safeParse(parseJson(older ?? '[]'));
  return parts.success && parts.data.some(([hash, , until]) => hash === presented && (until === 0 || until > nowMs));
}

/** The stored counter, where it belongs to the current part: an earlier release rotates without it. Of a family that never had one: 0. */
function readCounter(stored: string | null | undefined, current: string | null | undefined): number | undefined {
  if (typeof current !== 'string') return undefined;
  if (typeof stored !== 'string') return 0;
  const [, counter, of] = COUNTED.exec(stored) ?? [];
  return of !== undefined && of === current ? Number(counter) : undefined;
}

function lastCounter(stored: string | null | undefined): number {
  return Math.min(Number(COUNTED.exec(stored ?? '')?.[1] ?? 0), MAX_COUNTER - 1);
}

function readAdoption(stored: string | null | undefined): { readonly untilMs: number; readonly from: number } | undefined {
  const [, until, from] = ADOPTED.exec(stored ?? '') ?? [];
  return until !== undefined && from !== undefined ? { untilMs: Number(until), from: Number(from) } : undefined;
}

function toTexts(reply: unknown): readonly string[] {
  return Array.isArray(reply) ? reply.map(String) : [];
}
