import { z } from 'zod';
import type { SessionPlace } from '../endings/logout.js';
import type { Identity } from '../principal.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import type { Grant } from './grant.js';
import type { RefreshToken } from './refresh-token.js';

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
  /** The right family secret, and what stands there cannot be read. `later`: another live instance may, of a later release or with another secret; else nobody can. */
  | { readonly kind: 'unreadable'; readonly why: 'later' | 'unopened'; readonly client: string; readonly person: string }
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

/** What of a family decides about a token, as its Redis hash names it. */
export const FAMILY_FIELDS = [
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
] as const;

/** Clocks differ. */
export const CLOCK_SLACK_MS = 60_000;
/** Stands where the time of a family is not known yet; rotating parts do not depend on it. */
export const UNTIMED = '0'.repeat(13);
/** Ends of a family after which its access tokens run out by themselves. */
export const LEAVES_ACCESS_TOKENS: ReadonlySet<string> = new Set(['superseded', 'returned']);
/** The random part of a family's id. */
export const FAMILY_NAME = 16;

export function toTexts(reply: unknown): readonly string[] {
  return Array.isArray(reply) ? reply.map(String) : [];
}

const placeSchema = z.object({ sid: z.string(), entry: z.string(), key: z.string() });

/** What the seal of a return is bound to. */
export const returnContext = ({ sid, family }: Pick<RefreshToken, 'sid' | 'family'>) => `returned\0${sid}\0${family}`;

/** The session that a family has returned to. `later`: of a later release. */
export function openPlace(
  secrets: Pick<FleetSecrets, 'unseal'>,
  token: Pick<RefreshToken, 'sid' | 'family'>,
  sealed: string | null | undefined,
): SessionPlace | 'later' | undefined {
  const text = typeof sealed === 'string' ? secrets.unseal(returnContext(token), sealed) : undefined;
  return text === undefined ? undefined : (placeSchema.safeParse(JSON.parse(text)).data ?? 'later');
}
