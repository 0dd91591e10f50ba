import { compactVerify } from 'jose';
import { type Clock, epochSeconds } from '../clock.js';
import type { KeySource } from '../keys/jwks.js';
import type { BearerRejection, Principal } from '../principal.js';
import { claimedFamily, claimedPrincipal, isTime } from './claims.js';
import type { RevocableToken } from './revocation.js';
import { decodeOneSpelling } from './spelling.js';

/** What a token must say to be one of ours. */
export interface VerificationPolicy {
  readonly issuer: string;
  /** One of these must be in `aud`. */
  readonly audience: readonly string[];
  readonly clockSkewSeconds: number;
}

export type BearerOutcome =
  /** `endsAt`: its `exp`. */
  | { readonly kind: 'authenticated'; readonly principal: Principal; readonly token: VerifiedToken; readonly endsAt: number }
  /** `ended`: what of a token that was revoked has ended. */
  | { readonly kind: 'rejected'; readonly reason: BearerRejection; readonly ended?: 'session' | 'family' | 'person' }
  /** Somebody else's token, or no JWT at all. */
  | { readonly kind: 'foreign' }
  /** Its key is not here, or what was revoked was not read yet, and that may be our fault. `sid` is what the token claims. */
  | { readonly kind: 'in-doubt'; readonly about: 'keys' | 'revocations'; readonly sid?: string };

/** What a verified token says beside its principal. */
export interface VerifiedToken {
  readonly family?: string;
  readonly jti: string;
  readonly audience: readonly string[];
  /** Seconds since the epoch. */
  readonly issuedAt: number;
}

/** What is known about revocations, in memory. */
export interface Revocations {
  /** Whether they were read since the start: before, no token can be judged. */
  readonly wereRead: boolean;
  whatEnded(token: RevocableToken): 'session' | 'family' | 'person' | undefined;
}

/** `alsoFor`: an audience whose tokens are accepted beside those for the bridge. */
export type VerifyBearer = (token: string, alsoFor?: string) => Promise<BearerOutcome>;

/** Longer tokens are refused unread, and not issued. */
export const MAX_TOKEN_BYTES = 8192;
/** Longer than any access token of ours may live. */
const MAX_LIFE_SECONDS = 86_400;
const ALGORITHMS: ReadonlySet<unknown> = new Set(['ES256', 'EdDSA', 'RS256', 'PS256']);
const HEADER_MEMBERS: ReadonlySet<string> = new Set(['alg', 'typ', 'kid']);
const KID = /^[A-Za-z0-9_-]{43}$/;

/** A policy that is not the config's own. */
export interface FleetPolicy extends Pick<VerificationPolicy, 'issuer' | 'audience'> {
  /** It counts only for tokens that were issued before this time, in ms; absent: it is in use. */
  readonly issuedUntil?: number;
}

export interface VerifierOptions {
  readonly policy: VerificationPolicy;
  /** What the fleet issues under, or did a moment ago, where the config here differs: that must not cost anybody the token. */
  readonly fleetPolicies?: () => readonly FleetPolicy[];
  /** Whether the clocks of the fleet differ by more than the skew, or did a moment ago: then a token from the future may be good. */
  readonly clocksDisagree?: () => boolean;
  readonly keys: KeySource;
  readonly clock: Clock;
  /** Left out for probes. */
  readonly revocations?: Revocations;
}

/**
 * Verifies access tokens (RFC 9068, section 4) offline. What costs little is checked first, the signature last. Never throws: an
 * infrastructure failure is `in-doubt`.
 */
export function createVerifier({ policy, fleetPolicies, clocksDisagree, keys, clock, revocations }: VerifierOptions): VerifyBearer {
  function audienceUnder(issuer: string, issuedAt: unknown): readonly string[] | undefined {
    const others = fleetPolicies?.() ?? [];
    if (others.length === 0) return issuer === policy.issuer ? policy.audience : undefined;
    const counts = ({ issuedUntil }: FleetPolicy) => issuedUntil === undefined || (isTime(issuedAt) && issuedAt * 1000 <= issuedUntil);
    const policies = [policy, ...others.filter(counts)].filter((one) => one.issuer === issuer);
    return policies.length === 0 ? undefined : policies.flatMap((one) => one.audience);
  }

  /** Whether something that speaks against a token under a key of ours may only be unknown here (law 1). */
  function mayBeOurFault(reason: BearerRejection): boolean {
    if (reason === 'not-yet-valid') return clocksDisagree?.() ?? false;
    return (reason === 'bad-issuer' || reason === 'bad-audience') && keys.isStale;
  }

  return async function verifyBearer(token, alsoFor) {
    if (token.split('.', 4).length !== 3) return { kind: 'foreign' };
    if (token.length > MAX_TOKEN_BYTES) return rejected('too-large');
    const decoded = decodeOneSpelling(token);
    if (!decoded || typeof decoded.payload['iss'] !== 'string') return rejected('malformed');

    const { header, payload } = decoded;
    const kid = typeof header['kid'] === 'string' ? header['kid'] : '';
    const key = keys.find(kid);
    const accepted = audienceUnder(decoded.payload['iss'], payload['iat']);
    const audience = accepted && alsoFor !== undefined ? [...accepted, alsoFor] : accepted;
    if (!audience && !key) return { kind: 'foreign' };
    const bad = audience ? (headerProblem(header) ?? claimsProblem(payload, { ...policy, audience }, epochSeconds(clock))) : 'bad-issuer';
    const principal = claimedPrincipal(payload);
    if (bad && key && principal && mayBeOurFault(bad)) return { kind: 'in-doubt', about: 'keys', sid: principal.sid };
    if (bad) return rejected(bad);
    if (!principal) return rejected('bad-claims');
    if (keys.isDenied(kid)) return rejected('revoked-kid');
    if (!key) return keys.inDoubt(kid) ? { kind: 'in-doubt', about: 'keys', sid: principal.sid } : rejected('unknown-kid');
    if (header['alg'] !== key.algorithm) return rejected('bad-algorithm');
    try {
      await compactVerify(token, key.publicKey, { algorithms: [key.algorithm] });
    } catch {
      return rejected('bad-signature');
    }
    const { sid, subject } = principal;
    const verified = describeToken(payload);
    if (revocations?.wereRead === false) return { kind: 'in-doubt', about: 'revocations', sid };
    const ended = revocations?.whatEnded({ sid, subject, ...verified });
    if (ended) return { kind: 'rejected', reason: 'revoked', ended };
    return { kind: 'authenticated', principal, token: verified, endsAt: Number(payload['exp']) };
  };
}

/** Of claims that are checked. */
function describeToken(payload: Readonly<Record<string, unknown>>): VerifiedToken {
  const { aud, iat, jti } = payload;
  const family = claimedFamily(payload);
  return {
    jti: String(jti),
    issuedAt: Number(iat),
    audience: (Array.isArray(aud) ? aud : [aud]).map(String),
    ...(family === undefined ? {} : { family }),
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
