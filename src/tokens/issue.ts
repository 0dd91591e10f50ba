import { SignJWT } from 'jose';
import { type Clock, epochSeconds } from '../clock.js';
import type { LoadedKey } from '../keys/load.js';
import type { Principal } from '../principal.js';
import { principalClaims } from './claims.js';

/** Randomness, passed in so that tests can fix it. */
export interface RandomSource {
  /** Unguessable text of `bytes` bytes, base64url. */
  token(bytes: number): string;
  /** 0 ≤ x < 1; for jitter, not for secrets. */
  fraction(): number;
}

export interface IssuerOptions {
  readonly issuer: string;
  readonly accessTtlSeconds: number;
  /** Share of the life that a token may lose at random. */
  readonly expiryJitter: number;
  readonly clock: Clock;
  readonly random: RandomSource;
}

export interface IssueRequest {
  readonly principal: Principal;
  /** Id of its family of refresh tokens: `fid`; absent for tokens that nothing renews. */
  readonly family?: string;
  readonly audience: string;
  /** The token never lives beyond this, in seconds since the epoch (law 2). */
  readonly endsAt: number;
}

export interface IssuedToken {
  readonly token: string;
  readonly jti: string;
  /** Seconds. */
  readonly expiresIn: number;
}

export type IssueAccessToken = (key: LoadedKey, request: IssueRequest) => Promise<IssuedToken>;

/** Signs access tokens as RFC 9068 has them. */
export function createIssuer({ issuer, accessTtlSeconds, expiryJitter, clock, random }: IssuerOptions): IssueAccessToken {
  return async function issueAccessToken(key, { principal, family, audience, endsAt }) {
    const now = epochSeconds(clock);
    const life = Math.max(1, Math.floor(accessTtlSeconds * (1 - expiryJitter * random.fraction())));
    const exp = Math.min(now + life, endsAt);
    if (exp <= now) throw new Error('the token would have ended before it began');
    const jti = random.token(16);
    const token = await new SignJWT({ iss: issuer, aud: audience, exp, iat: now, jti, ...principalClaims(principal, family) })
      .setProtectedHeader({ alg: key.algorithm, typ: 'at+jwt', kid: key.kid })
      .sign(key.privateKey);
    return { token, jti, expiresIn: exp - now };
  };
}
