import { LRUCache } from 'lru-cache';
import type { LoadedKey } from '../keys/load.js';
import type { Principal } from '../principal.js';
import type { LiveSession } from '../sessions/record.js';
import type { Tools } from '../telemetry/tools.js';
import { lengthOfToken } from './access-token.js';
import { isAtItsEnd } from './session-grant.js';
import { MAX_TOKEN_BYTES } from './verify.js';

/** Why no token can be made from a live session: it would be over 8 KiB, or the session has reached `absoluteTtlSeconds`. */
export type Misfit = 'token-too-large' | 'at-its-end';

export interface TokenFit {
  /** Undefined: an exchange of this session would give a token. `principal`: as the token would name it. */
  whyNot(session: Pick<LiveSession, 'sid' | 'endsAt'>, principal: Principal): Misfit | undefined;
  /** Counts a request that was served by session for that reason. */
  note(misfit: Misfit, sid: string, client: string): void;
  /** For the operator: how many sessions of the last hour, a sentence for each reason. */
  readonly problems: readonly string[];
}

export interface TokenFitOptions extends Pick<Tools, 'clock' | 'log' | 'metrics'> {
  readonly issuer: string;
  readonly audience: string;
  readonly signingKey: () => LoadedKey | undefined;
}

/** Sessions that are told apart, and for how long. */
const MAX_SESSIONS = 10_000;
const REMEMBER_MS = 3_600_000;
/** JSON writes a character in six bytes at most, and everything else in a token takes less than 1 KB. */
const SURELY_FITS = 500;
/** As long as the id of a family. */
const SOME_FAMILY = '-'.repeat(29);

const WORDS: Readonly<Record<Misfit, string>> = {
  'token-too-large': `their token would be over ${MAX_TOKEN_BYTES} bytes: map fewer roles or less scope`,
  'at-its-end': 'they are older than sessions[].absoluteTtlSeconds: raise it, or let the app end them',
};

/** Whether a token can be made from a session. A client must not be told to exchange what cannot be exchanged (law 1). */
export function createTokenFit({ issuer, audience, signingKey, clock, log, metrics }: TokenFitOptions): TokenFit {
  const noted: Readonly<Record<Misfit, LRUCache<string, true>>> = {
    'token-too-large': new LRUCache({ max: MAX_SESSIONS, ttl: REMEMBER_MS, ttlAutopurge: false }),
    'at-its-end': new LRUCache({ max: MAX_SESSIONS, ttl: REMEMBER_MS, ttlAutopurge: false }),
  };

  function isTooLarge(principal: Principal): boolean {
    const { subject, tenant = '', roles, scope } = principal;
    const characters = [subject, tenant, ...roles, ...scope].reduce((sum, text) => sum + text.length + 3, 0);
    const key = characters <= SURELY_FITS ? undefined : signingKey();
    return key !== undefined && lengthOfToken(key, issuer, { principal, family: SOME_FAMILY, audience }) > MAX_TOKEN_BYTES;
  }

  return {
    whyNot(session, principal) {
      if (isAtItsEnd(session, clock)) return 'at-its-end';
      return isTooLarge(principal) ? 'token-too-large' : undefined;
    },
    note(misfit, sid, client) {
      metrics.sessionsWithoutToken.inc({ client, reason: misfit });
      if (noted[misfit].size === 0)
        log.warn({ client, reason: misfit }, `sessions that no token can be made from are served by session: ${WORDS[misfit]}`);
      noted[misfit].set(sid, true);
    },
    get problems() {
      return (['token-too-large', 'at-its-end'] as const).flatMap((misfit) => {
        noted[misfit].purgeStale();
        const { size } = noted[misfit];
        return size === 0
          ? []
          : [`${size === 1 ? '1 session' : `${size} sessions`} of the last hour cannot be exchanged and stay on their cookie: ${WORDS[misfit]}`];
      });
    },
  };
}
