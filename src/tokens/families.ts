import { LRUCache } from 'lru-cache';
import type { Config } from '../config/config.js';
import type { Endings } from '../endings/endings.js';
import type { FamilyOf } from '../endings/revocation.js';
import { unavailable } from '../errors.js';
import { madeAt } from '../login.js';
import type { RedisClient } from '../redis/client.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { asking } from '../redis/replies.js';
import { absentIfForeign, isWrongType, loadScript } from '../redis/script.js';
import type { SessionLedger } from '../sessions/ledger.js';
import { personOf } from '../sessions/person-of.js';
import type { Tools } from '../telemetry/tools.js';
import {
  CLOCK_SLACK_MS,
  FAMILY_FIELDS,
  FAMILY_NAME,
  type Families,
  type FamilyEndReason,
  LEAVES_ACCESS_TOKENS,
  openPlace,
  type PartRank,
  returnContext,
  toTexts,
  UNTIMED,
} from './family.js';
import { type Grant, openGrant, sealGrant } from './grant.js';
import { formatRefreshToken, hashSecret, type RefreshToken, sealSuccessor, unsealSuccessor } from './refresh-token.js';
import { createRotatingParts, FIRST_COUNTER, isStillGood, lastCounter, MAX_COUNTER, readAdoption, readCounter } from './rotating-part.js';

export interface FamiliesOptions extends Pick<Tools, 'clock' | 'random' | 'audit' | 'metrics'> {
  readonly client: RedisClient;
  readonly ledger: Pick<SessionLedger, 'keysOf' | 'now'>;
  readonly endings: Pick<Endings, 'announce' | 'assertHeard' | 'hasFamilyEnded' | 'whatEnded'>;
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
const MAX_ENDED_LOST = 10_000;

export function createFamilies(options: FamiliesOptions): Families {
  const { client, ledger, endings, writeAgain, onLostWrite, hasRedisChanged, config, secrets, random, clock, audit, metrics } = options;
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

  async function runEnd(sid: string, family: string, reason: FamilyEndReason, answer = '', part = ''): Promise<readonly string[]> {
    const keys = keysOf(sid, family);
    return toTexts(await asking(endFamily(client, [keys.family, keys.families, keys.session], [family, reason, answer, part])));
  }

  async function announceEnd(sid: string, family: string, reason: string): Promise<void> {
    if (endings.hasFamilyEnded(family)) return;
    await endings.announce({ type: 'family.ended', sid, family, endedAt: await ledger.now(sid) });
    metrics.familiesEnded.inc({ reason });
    audit('family.revoked', { sid, family, reason });
    await asking(client.hdel(keysOf(sid, family).family, 'untold')).catch(() => undefined); // Then it is published once more.
  }

  /** Lost with the rest of Redis: the token is ours, and the family could still live. It may have ended unused, too: Redis does not say. */
  function isLost({ sid, family, secret, rotating }: RefreshToken): boolean {
    const age = clock.now() - madeAt(family);
    const counter = parts.counterOf({ sid, family, secretHash: hashSecret(secret) }, rotating);
    const { refreshIdleSeconds: idle, refreshAbsoluteSeconds: most } = config;
    if (counter === undefined || !(age > -CLOCK_SLACK_MS)) return false;
    // One that was never used since it was made has its idle life only.
    return age < (counter === FIRST_COUNTER ? Math.min(idle, most) : most) * 1000;
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
        for (const other of others) await announceEnd(sid, other, 'other-person');
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
        client.hmget(keysOf(sid, family).family, ...FAMILY_FIELDS).catch((error: unknown) => {
          if (isWrongType(error)) return [];
          throw error;
        }),
      );
      const [knownSecret, current, older, sealed, ended, returned, clientId, person, counted, adopted, untold] = found;
      if (typeof knownSecret !== 'string') return { kind: isLost(token) ? 'lost' : 'unknown' };
      if (knownSecret !== secretHash) return { kind: 'unknown' };
      const presented = hashSecret(rotating);
      const isCurrent = current === presented;
      const of = { client: clientId ?? '', person: person ?? '' };
      if (typeof ended === 'string') {
        const to = ended === 'returned' && isCurrent ? openPlace(secrets, { sid, family }, returned) : undefined;
        if (to === 'later') return { kind: 'unreadable', why: 'later', ...of };
        if (to) return { kind: 'returned', ...of, to };
        // The instance that ended it may not have come to publish it.
        if (untold === '1') await announceEnd(sid, family, ended);
        return { kind: 'ended', ...of, reason: ended };
      }
      const opened = open(sid, secretHash, sealed);
      const grant = opened === 'later' ? undefined : opened;
      const known = { sid, family, subject: grant?.identity.subject ?? '' };
      if (endings.whatEnded({ ...known, issuedAt: 0 }) !== undefined) {
        // A node that takes no writes now is another one soon, and then all is written.
        await writeAgain(known).catch(onLostWrite);
        return { kind: 'ended', ...of, reason: 'revoked' };
      }
      if (typeof sealed === 'string' && (opened ? grant !== undefined && secrets.isRevoked(grant.under ?? []) : secrets.isDenied(sealed)))
        return { kind: 'ended', ...of, reason: 'secret-denied' };
      // The fleet may have gone on to a secret that is not here, while this instance was away.
      if (!grant) return { kind: 'unreadable', why: opened || secrets.isUnknown(sealed ?? '') ? 'later' : 'unopened', ...of };
      const stored = readCounter(counted, current);
      const counter = parts.counterOf({ sid, family, secretHash }, rotating);
      const live = (part: PartRank) =>
        ({
          kind: 'live',
          grant,
          part,
          // An earlier part of the last release has the current one for its successor.
          counter: Math.min(counter ?? lastCounter(counted) - (part === 'earlier' ? 1 : 0), MAX_COUNTER - 1),
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
      const ended = await asking(client.hget(keysOf(sid, family).family, 'ended').catch(absentIfForeign<string | null>(null)));
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
          await announceEnd(sid, family, 'reused');
          return { kind: 'refused', reason: 'reused' };
        default:
          return { kind: 'refused', reason: detail || outcome };
      }
    },

    async end(sid, family, reason) {
      endings.assertHeard();
      await runEnd(sid, family, reason);
      // Also where it had ended before, or Redis has forgotten it: its access tokens may live, and nobody may have been told.
      await announceEnd(sid, family, reason);
    },

    async endLost({ sid, family, secret }) {
      // The time in front of a family's id is not in the token's MAC: without this one token could name families without end.
      const name = `${sid} ${family.slice(-FAMILY_NAME)} ${hashSecret(secret)}`;
      if (endedLost.has(name)) return;
      await announceEnd(sid, family, 'revoked');
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
      const known = reason === 'returned' ? openPlace(secrets, token, before) : undefined;
      if (known === 'later') throw unavailable('family');
      return known;
    },
  };
}
