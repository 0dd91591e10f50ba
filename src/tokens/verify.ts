import { type Clock, readingsOf } from '../clock.js';
import type { RevocableToken } from '../endings/revocation.js';
import type { KeySource, VerificationKey } from '../keys/jwks.js';
import { after } from '../now-or-later.js';
import type { BearerRejection, Principal } from '../principal.js';
import { createTurns } from '../turns.js';
import { claimedFamily, claimedPrincipal, isTime } from './claims.js';
import { createRememberedTokens, digestOf, type Remembered, type RememberedOptions } from './remembered.js';
import { createSharedTexts } from './shared-texts.js';
import { verifySignature } from './signature.js';
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
  | { readonly kind: 'in-doubt'; readonly about: 'keys' | 'revocations' | 'clock'; readonly sid?: string };

/** What a verified token says beside its principal. */
export interface VerifiedToken extends RevocableToken {
  readonly audience: readonly string[];
}

/** What is known about revocations, in memory. */
export interface Revocations {
  /** Whether they were read since the start: before, no token can be judged. */
  readonly wereRead: boolean;
  whatEnded(token: RevocableToken): 'session' | 'family' | 'person' | undefined;
}

/**
 * `alsoFor`: an audience whose tokens are accepted beside those for the bridge. Of a token that is remembered the outcome is there at once,
 * and is the same object each time.
 */
export type VerifyBearer = (token: string, alsoFor?: string) => BearerOutcome | Promise<BearerOutcome>;

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
  /** Called after each signature that was looked at. */
  readonly checked?: (isGood: boolean) => void;
  /** How many tokens are remembered; left out where none comes twice. */
  readonly remember?: Pick<RememberedOptions<SignedBearer>, 'max' | 'counted'>;
}

/** A token that is good but for its revocation, which is looked up each time that it is shown. */
interface SignedBearer extends Remembered {
  readonly outcome: Extract<BearerOutcome, { kind: 'authenticated' }>;
  readonly key: VerificationKey;
  readonly issuer: string;
  /** From when on it is good, in seconds since the epoch. */
  readonly startsAt: number;
}

/** Signatures that are looked at in one turn of the event loop, about a millisecond: forged tokens must not hold up all else. */
const PER_TURN = 16;

/**
 * Verifies access tokens (RFC 9068, section 4) offline. What costs little is checked first, the signature last, and that once for all who
 * show the same token at the same time. Never throws: an infrastructure failure is `in-doubt`.
 */
export function createVerifier(options: VerifierOptions): VerifyBearer {
  const { policy, fleetPolicies, clocksDisagree, keys, clock, revocations } = options;
  const remembered =
    options.remember && options.remember.max > 0
      ? createRememberedTokens<SignedBearer>({
          ...options.remember,
          holds: (known) => isCurrent(known) && !endOf(known),
          nowMs: () => clock.now(),
        })
      : undefined;
  const turns = createTurns(PER_TURN);
  const texts = createSharedTexts();

  function audienceUnder(issuer: string, issuedAt: unknown): readonly string[] | undefined {
    const others = fleetPolicies?.() ?? NO_POLICIES;
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

  /** All but the signature: what a token claims to be, or what is wrong with it. */
  function examine(token: string, alsoFor: string | undefined): SignedBearer | Exclude<BearerOutcome, { kind: 'authenticated' }> {
    if (token.split('.', 4).length !== 3) return FOREIGN;
    if (token.length > MAX_TOKEN_BYTES) return rejected('too-large');
    const decoded = decodeOneSpelling(token);
    if (!decoded || typeof decoded.payload['iss'] !== 'string') return rejected('malformed');

    const { header, payload } = decoded;
    const issuer = decoded.payload['iss'];
    const kid = typeof header['kid'] === 'string' ? header['kid'] : '';
    const key = keys.find(kid);
    const accepted = audienceUnder(issuer, payload['iat']);
    const audience = accepted && alsoFor !== undefined ? [...accepted, alsoFor] : accepted;
    if (!audience && !key) return FOREIGN;
    const problems = audience ? seconds().map((now) => headerProblem(header) ?? claimsProblem(payload, { ...policy, audience }, now)) : BAD_ISSUER;
    const bad = problems.find((problem) => problem !== undefined);
    const principal = claimedPrincipal(payload);
    if (bad && key && principal && problems.includes(undefined)) return { kind: 'in-doubt', about: 'clock', sid: principal.sid };
    if (bad && key && principal && mayBeOurFault(bad)) return { kind: 'in-doubt', about: 'keys', sid: principal.sid };
    if (bad) return rejected(bad);
    if (!principal) return rejected('bad-claims');
    if (keys.isDenied(kid)) return rejected('revoked-kid');
    if (!key) return keys.inDoubt(kid) ? { kind: 'in-doubt', about: 'keys', sid: principal.sid } : rejected('unknown-kid');
    if (header['alg'] !== key.algorithm) return rejected('bad-algorithm');
    const outcome = { kind: 'authenticated', principal, token: describeToken(payload, principal), endsAt: Number(payload['exp']) } as const;
    return { outcome, key, issuer, startsAt: Math.max(Number(payload['iat']), Number(payload['nbf'] ?? 0)), length: token.length };
  }

  /** What time it may be, in whole seconds. */
  function seconds(): readonly number[] {
    return readingsOf(clock).map((ms) => Math.floor(ms / 1000));
  }

  /** Whether the times and the key of what was verified once are good still, whatever time it may be. */
  function isCurrent({ outcome: { endsAt }, key, startsAt }: SignedBearer): boolean {
    for (const ms of readingsOf(clock)) {
      const now = Math.floor(ms / 1000);
      if (endsAt + policy.clockSkewSeconds <= now || startsAt > now + policy.clockSkewSeconds) return false;
    }
    return keys.find(key.kid) === key && !keys.isDenied(key.kid);
  }

  function isAccepted({ outcome: { token }, issuer }: SignedBearer, alsoFor: string | undefined): boolean {
    const audience = audienceUnder(issuer, token.issuedAt);
    return audience !== undefined && token.audience.some((one) => one === alsoFor || audience.includes(one));
  }

  /** What of it was ended; nothing where that is not known yet. */
  function endOf({ outcome: { token } }: SignedBearer): ReturnType<Revocations['whatEnded']> {
    return revocations?.wereRead === false ? undefined : revocations?.whatEnded(token);
  }

  /** In as little room as can be: what many tokens say is held once. */
  function keepSmall(bearer: SignedBearer): void {
    const { principal, token } = bearer.outcome;
    Object.assign(principal, texts.share(principal));
    Object.assign(token, { audience: texts.list(token.audience) });
    Object.assign(bearer, { issuer: texts.text(bearer.issuer) });
  }

  function judge(bearer: SignedBearer, digest: string | undefined): BearerOutcome {
    const { outcome } = bearer;
    if (revocations?.wereRead === false) return { kind: 'in-doubt', about: 'revocations', sid: outcome.principal.sid };
    const ended = endOf(bearer);
    if (!ended) return outcome;
    if (digest !== undefined) remembered?.drop(digest);
    return { kind: 'rejected', reason: 'revoked', ended };
  }

  function isSigned(token: string, key: VerificationKey): boolean {
    const isGood = verifySignature(token, key);
    options.checked?.(isGood);
    return isGood;
  }

  /** `digest`: of a token that is to be remembered. */
  function verifyAnew(token: string, digest: string | undefined, alsoFor: string | undefined): BearerOutcome | Promise<BearerOutcome> {
    const examined = examine(token, alsoFor);
    if (!('outcome' in examined)) return examined;
    return after(
      turns.run(() => {
        // Somebody else may have shown it while this one waited.
        const known = digest === undefined ? undefined : remembered?.get(digest);
        if (known || !isSigned(token, examined.key)) return known;
        if (digest !== undefined && remembered) {
          keepSmall(examined);
          remembered.set(digest, examined);
        }
        const { principal } = examined.outcome;
        for (const shown of [principal, principal.roles, principal.scope]) Object.freeze(shown);
        return examined;
      }),
      (bearer) => {
        if (!bearer) return rejected('bad-signature');
        // Its time or its key may have ended while it waited for its turn.
        const still = isCurrent(bearer) ? bearer : examine(token, alsoFor);
        return 'outcome' in still ? judge(still, digest) : still;
      },
    );
  }

  return function verifyBearer(token, alsoFor) {
    if (!remembered || token.length > MAX_TOKEN_BYTES) return verifyAnew(token, undefined, alsoFor);
    const digest = digestOf(token);
    const known = remembered.get(digest);
    if (known && isCurrent(known) && isAccepted(known, alsoFor)) return judge(known, digest);
    if (known) remembered.drop(digest);
    return verifyAnew(token, digest, alsoFor);
  };
}

const NO_POLICIES: readonly FleetPolicy[] = [];
const BAD_ISSUER: readonly (BearerRejection | undefined)[] = ['bad-issuer'];
const FOREIGN: BearerOutcome & { readonly kind: 'foreign' } = { kind: 'foreign' };

/** Of claims that are checked. */
function describeToken(payload: Readonly<Record<string, unknown>>, { sid, subject }: Principal): VerifiedToken {
  const { aud, iat } = payload;
  const family = claimedFamily(payload);
  return {
    sid,
    subject,
    issuedAt: Number(iat),
    audience: (Array.isArray(aud) ? aud : [aud]).map(String),
    ...(family === undefined ? {} : { family }),
  };
}

function rejected(reason: BearerRejection): Extract<BearerOutcome, { kind: 'rejected' }> {
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
