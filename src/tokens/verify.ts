import { compactVerify } from 'jose';
import { type Clock, epochSeconds } from '../clock.js';
import type { KeySource } from '../keys/jwks.js';
import type { BearerRejection, Principal } from '../principal.js';
import { claimedPrincipal, isTime } from './claims.js';
import { decodeOneSpelling } from './spelling.js';

/** What a token must say to be one of ours. */
export interface VerificationPolicy {
  readonly issuer: string;
  /** One of these must be in `aud`. */
  readonly audience: readonly string[];
  readonly clockSkewSeconds: number;
}

export type BearerOutcome =
  | { readonly kind: 'authenticated'; readonly principal: Principal }
  | { readonly kind: 'rejected'; readonly reason: BearerRejection }
  /** Somebody else's token, or no JWT at all. */
  | { readonly kind: 'foreign' }
  /** Its key is not here, and that may be our fault. `sid` is what the token claims, unverified. */
  | { readonly kind: 'in-doubt'; readonly sid?: string };

export type VerifyBearer = (token: string) => Promise<BearerOutcome>;

/** Longer tokens are refused unread, and not issued. */
export const MAX_TOKEN_BYTES = 8192;
/** Longer than any access token of ours may live. */
const MAX_LIFE_SECONDS = 86_400;
const ALGORITHMS: ReadonlySet<unknown> = new Set(['ES256', 'EdDSA', 'RS256', 'PS256']);
const HEADER_MEMBERS: ReadonlySet<string> = new Set(['alg', 'typ', 'kid']);
const KID = /^[A-Za-z0-9_-]{43}$/;

/**
 * Verifies access tokens (RFC 9068, section 4) offline. What costs little is checked first, the signature last.
 * Never throws: an infrastructure failure is `in-doubt`.
 */
export function createVerifier(policy: VerificationPolicy, keys: KeySource, clock: Clock): VerifyBearer {
  return async function verifyBearer(token) {
    if (token.split('.', 4).length !== 3) return { kind: 'foreign' };
    if (token.length > MAX_TOKEN_BYTES) return rejected('too-large');
    const decoded = decodeOneSpelling(token);
    if (!decoded || typeof decoded.payload['iss'] !== 'string') return rejected('malformed');

    const { header, payload } = decoded;
    const { kid } = header;
    const key = typeof kid === 'string' ? keys.find(kid) : undefined;
    if (payload['iss'] !== policy.issuer) return key ? rejected('bad-issuer') : { kind: 'foreign' };
    const bad = headerProblem(header) ?? claimsProblem(payload, policy, epochSeconds(clock));
    if (bad) return rejected(bad);
    const principal = claimedPrincipal(payload);
    if (!principal) return rejected('bad-claims');
    if (!key) return keys.inDoubt() ? { kind: 'in-doubt', sid: principal.sid } : rejected('unknown-kid');
    if (header['alg'] !== key.algorithm) return rejected('bad-algorithm');
    try {
      await compactVerify(token, key.publicKey, { algorithms: [key.algorithm] });
    } catch {
      return rejected('bad-signature');
    }
    return { kind: 'authenticated', principal };
  };
}

function rejected(reason: BearerRejection): BearerOutcome {
  return { kind: 'rejected', reason };
}

function headerProblem(header: Readonly<Record<string, unknown>>): BearerRejection | undefined {
  const { alg, typ, kid } = header;
  if (!ALGORITHMS.has(alg)) return 'bad-algorithm';
  if (typ !== 'at+jwt') return 'bad-type';
  if (typeof kid !== 'string' || !KID.test(kid)) return 'bad-kid';
  // jwk, jku, x5u, x5c would let the token bring its own key; crit and b64 would change what is signed.
  if (Object.keys(header).some((member) => !HEADER_MEMBERS.has(member))) return 'bad-header';
  return undefined;
}

function claimsProblem(payload: Readonly<Record<string, unknown>>, policy: VerificationPolicy, now: number): BearerRejection | undefined {
  const { aud, exp, iat, nbf } = payload;
  const audiences: readonly unknown[] = Array.isArray(aud) ? aud : [aud];
  if (!policy.audience.some((accepted) => audiences.includes(accepted))) return 'bad-audience';
  if (!isTime(exp) || !isTime(iat) || (nbf !== undefined && !isTime(nbf))) return 'bad-claims';
  if (exp - iat > MAX_LIFE_SECONDS) return 'bad-claims';
  if (exp + policy.clockSkewSeconds <= now) return 'expired';
  if (Math.max(iat, nbf ?? 0) > now + policy.clockSkewSeconds) return 'not-yet-valid';
  return undefined;
}
