import { z } from 'zod';
import type { Config } from '../config/config.js';
import type { RedisClient } from '../redis/connection.js';
import type { EventStream } from '../redis/events.js';
import { asking, parseJson } from '../redis/replies.js';
import { isWrongType, loadScript } from '../redis/script.js';
import { seal, unseal } from '../redis/signed-text.js';
import type { SessionLedger } from '../sessions/ledger.js';
import { personOf, type SessionPlace } from '../sessions/logout.js';
import type { Audit } from '../telemetry/audit.js';
import type { Metrics } from '../telemetry/metrics.js';
import { type Grant, openGrant, sealGrant } from './grant.js';
import type { RandomSource } from './issue.js';
import { formatRefreshToken, hashSecret, type RefreshToken, sealSuccessor, unsealSuccessor } from './refresh-token.js';

/** Why a family was ended by itself, not with its session. */
export type FamilyEndReason = 'revoked' | 'reused' | 'returned' | 'taken-back' | 'other-person';

export type FoundFamily =
  | { readonly kind: 'live'; readonly grant: Grant; readonly isCurrent: boolean }
  /** An earlier part, out of its grace, under the right family secret: somebody else has used the family (RFC 9700, section 4.14.2). */
  | { readonly kind: 'reused'; readonly grant: Grant }
  /** It took the way back: a retry is answered with the same session. */
  | { readonly kind: 'returned'; readonly client: string; readonly person: string; readonly to: SessionPlace }
  | { readonly kind: 'ended'; readonly client: string; readonly person: string; readonly reason: string }
  /** The right family secret, and what stands there cannot be opened: nobody ended it, and it is lost. */
  | { readonly kind: 'unreadable' }
  /** No such family, or a wrong secret: whoever it is, the family is not touched. */
  | { readonly kind: 'unknown' };

export type Rotation = { readonly kind: 'rotated' | 'repeated'; readonly token: string } | { readonly kind: 'refused'; readonly reason: string };

export interface OpenedFamily {
  readonly family: string;
  readonly token: string;
}

/** The families of refresh tokens in Redis. All methods throw `temporarily_unavailable` where Redis does not answer or refuses to write. */
export interface Families {
  open(sid: string, grant: Grant, sealedSession: string): Promise<OpenedFamily>;
  /** What a refresh token stands for; consumes nothing. */
  find(token: RefreshToken): Promise<FoundFamily>;
  /** Whether `person`, as a family names one, is this subject. */
  isOf(person: string, subject: string): boolean;
  /** Whether this family was ended with its access tokens. Asks Redis, not memory; what Redis has lost it does not know. */
  hasEnded(sid: string, family: string): Promise<boolean>;
  /** Uses the token. `sealedSession`: what is known of the session now; empty leaves it. */
  rotate(token: RefreshToken, grant: Grant, sealedSession: string): Promise<Rotation>;
  /** Ends a family, and with it its access tokens on every instance. May be repeated. */
  end(sid: string, family: string, reason: Exclude<FamilyEndReason, 'returned'>): Promise<void>;
  /** Ends a family by the way back to a session; gives the one that counts: this, or that of whoever was faster. Undefined: it had ended otherwise. */
  close(token: RefreshToken, to: SessionPlace): Promise<SessionPlace | undefined>;
}

export interface FamiliesOptions {
  readonly client: RedisClient;
  readonly ledger: Pick<SessionLedger, 'keysOf' | 'now'>;
  readonly events: Pick<EventStream, 'publish'>;
  /** Tells this instance. */
  readonly apply: (event: Parameters<EventStream['publish']>[0]) => void;
  readonly heard: { hasFamilyEnded(family: string): boolean };
  readonly config: Pick<Config['tokens'], 'reuseGraceSeconds' | 'lateRetry' | 'familiesPerSession'>;
  readonly sealKey: Buffer;
  readonly personKey: Buffer;
  readonly random: RandomSource;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

const openFamily = loadScript('open-family', ['zset', 'hash', 'hash', 'string']);
const rotateFamily = loadScript('rotate-family', ['hash', 'zset', 'hash', 'string']);
const endFamily = loadScript('end-family', ['hash', 'zset', 'hash']);

const SECRET_BYTES = 32;

/** Ends of a family after which its access tokens run out by themselves. */
const LEAVES_ACCESS_TOKENS: ReadonlySet<string> = new Set(['superseded', 'returned']);

const placeSchema = z.object({ sid: z.string(), entry: z.string(), key: z.string() });
const returnContext = ({ sid, family }: Pick<RefreshToken, 'sid' | 'family'>) => `returned\0${sid}\0${family}`;

export function createFamilies(options: FamiliesOptions): Families {
  const { client, ledger, events, apply, heard, config, sealKey, personKey, random, audit, metrics } = options;

  function keysOf(sid: string, family: string) {
    const keys = ledger.keysOf(sid);
    return { ...keys, family: keys.family + family };
  }

  function open(sid: string, secretHash: string, sealed: string | null | undefined): Grant | undefined {
    if (typeof sealed !== 'string') return undefined;
    const grant = openGrant(sealKey, sid, secretHash, sealed);
    if (!grant) {
      metrics.refusedValues.inc({ key: 'family' });
      audit('value.refused', { key: 'family', reason: 'bad-mac' });
    }
    return grant;
  }

  function openPlace(token: Pick<RefreshToken, 'sid' | 'family'>, sealed: string | null | undefined): SessionPlace | undefined {
    const text = typeof sealed === 'string' ? unseal(sealKey, returnContext(token), sealed) : undefined;
    return text === undefined ? undefined : placeSchema.safeParse(JSON.parse(text)).data;
  }

  async function runEnd(sid: string, family: string, reason: FamilyEndReason, answer = '', part = ''): Promise<readonly string[]> {
    const keys = keysOf(sid, family);
    return toTexts(await asking(endFamily(client, [keys.family, keys.families, keys.session], [family, reason, answer, part])));
  }

  async function tell(sid: string, family: string, reason: FamilyEndReason): Promise<void> {
    if (heard.hasFamilyEnded(family)) return;
    const event = { type: 'family.ended', sid, family, endedAt: await ledger.now(sid) } as const;
    await asking(events.publish(event));
    apply(event);
    metrics.familiesEnded.inc({ reason });
    audit('family.revoked', { sid, family, reason });
  }

  return {
    async open(sid, grant, sealedSession) {
      const keys = ledger.keysOf(sid);
      const secret = random.token(SECRET_BYTES);
      const rotating = random.token(SECRET_BYTES);
      const secretHash = hashSecret(secret);
      const args = [
        random.token(12),
        grant.client,
        personOf(personKey, grant.identity.subject),
        secretHash,
        hashSecret(rotating),
        sealGrant(sealKey, sid, secretHash, grant),
        grant.endsAt * 1000,
        grant.idleSeconds * 1000,
        sealedSession,
        config.familiesPerSession,
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

    async find({ sid, family, secret, rotating }) {
      const secretHash = hashSecret(secret);
      const found = await asking(
        client
          .hmget(keysOf(sid, family).family, 'secret', 'current', 'older', 'grant', 'ended', 'returned', 'client', 'person')
          .catch((error: unknown) => {
            if (isWrongType(error)) return [];
            throw error;
          }),
      );
      const [knownSecret, current, older, sealed, ended, returned, clientId, person] = found;
      if (knownSecret !== secretHash) return { kind: 'unknown' };
      const presented = hashSecret(rotating);
      const isCurrent = current === presented;
      if (typeof ended === 'string') {
        const to = ended === 'returned' && isCurrent ? openPlace({ sid, family }, returned) : undefined;
        return to
          ? { kind: 'returned', client: clientId ?? '', person: person ?? '', to }
          : { kind: 'ended', client: clientId ?? '', person: person ?? '', reason: ended };
      }
      const grant = open(sid, secretHash, sealed);
      if (!grant) return { kind: 'unreadable' };
      const good = isCurrent || isStillGood(older, presented, await ledger.now(sid));
      return good ? { kind: 'live', grant, isCurrent } : { kind: 'reused', grant };
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

    async rotate(token, grant, sealedSession) {
      const { sid, family, secret, rotating } = token;
      const keys = keysOf(sid, family);
      const successor = random.token(SECRET_BYTES);
      const secretHash = hashSecret(secret);
      const args = [
        family,
        secretHash,
        hashSecret(rotating),
        hashSecret(successor),
        sealSuccessor(token, successor),
        sealGrant(sealKey, sid, secretHash, grant),
        sealedSession,
        grant.endsAt * 1000,
        grant.idleSeconds * 1000,
        config.reuseGraceSeconds * 1000,
        config.lateRetry,
      ];
      const [outcome = '', detail = ''] = toTexts(await asking(rotateFamily(client, [keys.family, keys.families, keys.session, keys.ended], args)));
      switch (outcome) {
        case 'rotated':
          return { kind: 'rotated', token: formatRefreshToken({ ...token, rotating: successor }) };
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

    async close(token, to) {
      const sealed = seal(sealKey, returnContext(token), JSON.stringify(to));
      const [outcome, reason, before] = await runEnd(token.sid, token.family, 'returned', sealed, hashSecret(token.rotating));
      if (outcome === 'done') {
        metrics.familiesEnded.inc({ reason: 'returned' });
        audit('family.returned', { sid: token.sid, family: token.family });
        return to;
      }
      return reason === 'returned' ? openPlace(token, before) : undefined;
    },
  };
}

/** Whether an earlier part may still be used: as long as its entry says (0: no end yet). */
function isStillGood(older: string | null | undefined, presented: string, nowMs: number): boolean {
  const parts = z.array(z.tuple([z.string(), z.string(), z.number()])).safeParse(parseJson(older ?? '[]'));
  return parts.success && parts.data.some(([hash, , until]) => hash === presented && (until === 0 || until > nowMs));
}

function toTexts(reply: unknown): readonly string[] {
  return Array.isArray(reply) ? reply.map(String) : [];
}
