import type { Context } from 'koa';
import { type Clock, epochSeconds } from '../clock.js';
import { CrossfadeError, unavailable } from '../errors.js';
import type { LoadedKey } from '../keys/load.js';
import type { Principal } from '../principal.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { Grant } from '../tokens/grant.js';
import type { IssueAccessToken, IssuedToken } from '../tokens/issue.js';
import { MAX_TOKEN_BYTES } from '../tokens/verify.js';
import { assertInTime } from './budget.js';
import type { BridgeCookies } from './cookies.js';

/** Tokens as they go to the client (RFC 6749, section 5.1): the refresh token in the body or in a cookie. */
export interface TokenAnswer {
  readonly access: IssuedToken;
  /** Absent where the session cannot be asked again without its cookie. */
  readonly refreshToken?: string | undefined;
  readonly scope: readonly string[];
  readonly grant: Grant;
  /** RFC 8693, section 2.2.1: for exchanges. */
  readonly issuedTokenType?: string;
}

/** When a family ends if it is not used from now on, in seconds since the epoch. */
export function unusedEnd({ endsAt, idleSeconds }: Pick<Grant, 'endsAt' | 'idleSeconds'>, clock: Clock): number {
  return Math.min(endsAt, epochSeconds(clock) + idleSeconds);
}

export function answerTokens(ctx: Context, client: ResolvedClient, answer: TokenAnswer, cookies: BridgeCookies, clock: Clock): void {
  assertInTime(ctx);
  const { access, refreshToken, scope, grant, issuedTokenType } = answer;
  const inCookie = client.config?.refreshTransport === 'cookie';
  if (inCookie && refreshToken !== undefined) cookies.setRefresh(ctx, refreshToken, unusedEnd(grant, clock));
  ctx.set('Cache-Control', 'no-store');
  ctx.set('Pragma', 'no-cache');
  ctx.body = {
    access_token: access.token,
    ...(issuedTokenType === undefined ? {} : { issued_token_type: issuedTokenType }),
    token_type: 'Bearer',
    expires_in: access.expiresIn,
    ...(scope.length > 0 ? { scope: scope.join(' ') } : {}),
    ...(inCookie || refreshToken === undefined ? {} : { refresh_token: refreshToken }),
  };
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
