import { type Clock, epochSeconds } from '../clock.js';
import { CrossfadeError, unavailable } from '../errors.js';
import type { LoadedKey } from '../keys/load.js';
import type { Principal } from '../principal.js';
import type { IssueAccessToken, IssuedToken } from '../tokens/access-token.js';
import type { Grant } from '../tokens/grant.js';
import { MAX_TOKEN_BYTES } from '../tokens/verify.js';

/** When a family ends if it is not used from now on, in seconds since the epoch. */
export function unusedEnd({ endsAt, idleSeconds }: Pick<Grant, 'endsAt' | 'idleSeconds'>, clock: Clock): number {
  return Math.min(endsAt, epochSeconds(clock) + idleSeconds);
}

export interface SignerOptions {
  readonly signingKey: () => LoadedKey | undefined;
  /** Whether all live instances accept what is signed for this audience. */
  readonly mayIssue: (audience: string) => boolean;
  readonly issueAccessToken: IssueAccessToken;
  readonly clock: Clock;
}

/** @throws {CrossfadeError} `temporarily_unavailable` where signing is broken, `invalid_request` for a token that would be too large. */
export type SignAccessToken = (
  principal: Principal,
  family: string,
  grant: Pick<Grant, 'audience' | 'endsAt' | 'idleSeconds'>,
) => Promise<IssuedToken>;

export function createSigner({ signingKey, mayIssue, issueAccessToken, clock }: SignerOptions): SignAccessToken {
  return async function signAccessToken(principal, family, grant) {
    const key = signingKey();
    if (!key || !mayIssue(grant.audience)) throw unavailable('signing');
    const request = { principal, family, audience: grant.audience, endsAt: unusedEnd(grant, clock) };
    const issued = await issueAccessToken(key, request).catch((cause: unknown) => {
      throw unavailable('signing', cause);
    });
    if (issued.token.length > MAX_TOKEN_BYTES)
      throw new CrossfadeError('invalid_request', {
        message: `the token would be over ${MAX_TOKEN_BYTES} bytes: ask for less scope, or map fewer roles`,
        reason: 'token-too-large',
      });
    return issued;
  };
}
