import { epochSeconds } from '../clock.js';
import type { LoadedKey } from '../keys/load.js';
import type { Principal } from '../principal.js';
import type { Tools } from '../telemetry/tools.js';
import { principalClaims } from './claims.js';

export interface IssuerOptions extends Pick<Tools, 'clock' | 'random'> {
  readonly issuer: string;
  readonly accessTtlSeconds: number;
  /** Share of the life that a token may lose at random. */
  readonly expiryJitter: number;
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
    const claims = { iss: issuer, aud: audience, exp, iat: now, jti, ...principalClaims(principal, family) };
    const signed = `${encode(headerOf(key))}.${encode(claims)}`;
    const signature = await key.sign(Buffer.from(signed));
    return { token: `${signed}.${Buffer.from(signature).toString('base64url')}`, jti, expiresIn: exp - now };
  };
}

function encode(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url');
}

function headerOf({ algorithm, kid }: Pick<LoadedKey, 'algorithm' | 'kid'>) {
  return { alg: algorithm, typ: 'at+jwt', kid };
}

/** What stands for values that are new in each token, of the same length. */
const [SOME_TIME, SOME_JTI] = [1_700_000_000, '-'.repeat(22)];

/** Length in characters of the token that the issuer would make. Signs nothing. */
export function lengthOfToken(key: LoadedKey, issuer: string, { principal, family, audience }: Omit<IssueRequest, 'endsAt'>): number {
  const claims = { iss: issuer, aud: audience, exp: SOME_TIME, iat: SOME_TIME, jti: SOME_JTI, ...principalClaims(principal, family) };
  const parts = [Buffer.byteLength(JSON.stringify(headerOf(key))), Buffer.byteLength(JSON.stringify(claims)), key.signatureBytes];
  return parts.reduce((length, bytes) => length + Math.ceil((bytes * 4) / 3), parts.length - 1);
}
