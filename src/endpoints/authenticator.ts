import { unavailable } from '../errors.js';
import type { CookiePairs } from '../formats/cookies.js';
import type { OwnFaults } from '../grants/own-faults.js';
import { samePerson } from '../login.js';
import { after } from '../now-or-later.js';
import type { Principal } from '../principal.js';
import type { ClientRegistry, ResolvedClient } from '../rollout/clients.js';
import type { Progress } from '../rollout/progress.js';
import type { Decision, Rollout } from '../rollout/rollout.js';
import type { ShadowMint } from '../rollout/shadow.js';
import type { SessionOutcome, SessionReader } from '../sessions/reader.js';
import type { LiveSession } from '../sessions/record.js';
import { toPrincipal } from '../sessions/session-principal.js';
import type { Tools } from '../telemetry/tools.js';
import type { TokenFit } from '../tokens/fit.js';
import type { BearerOutcome, VerifyBearer } from '../tokens/verify.js';
import type { Refusal } from './answer.js';
import { clientTraits } from './client-traits.js';
import { isPageNavigation, type PresentedCredentials, readCredentials } from './credentials.js';
import type { Peers } from './peer.js';
import type { RequestHead } from './reply.js';
import type { Rejection } from './state.js';

/** `endsAt`: when whatever is made of the credential ends at the latest, in seconds since the epoch. `family`: of a bearer. */
export type Authentication =
  | { readonly kind: 'anonymous'; readonly client: ResolvedClient; readonly rejection?: Rejection }
  | {
      readonly kind: 'authenticated';
      readonly client: ResolvedClient;
      readonly principal: Principal;
      readonly decision: Decision;
      readonly endsAt: number;
      /** The same, asked of the store: `endsAt` of a session is what its record says, where that says any. */
      readonly endsExactly?: () => Promise<number>;
      readonly family?: string | undefined;
      /** No token can be made from this session: the client is not told to exchange it. */
      readonly staysSession?: true;
    }
  /** `principal`: of a session that is good, and that the stage does not accept here. */
  | { readonly kind: 'refused'; readonly client: ResolvedClient; readonly refusal: Refusal; readonly principal?: Principal };

export type Authenticated = Extract<Authentication, { kind: 'authenticated' }>;

export interface AuthenticatorOptions extends Pick<Tools, 'audit' | 'metrics'> {
  readonly sessions: SessionReader;
  readonly verifyBearer: VerifyBearer;
  readonly foreignBearer: 'pass' | 'reject';
  readonly rollout: Rollout;
  readonly clients: ClientRegistry;
  readonly peers: Peers;
  readonly ownFaults: Pick<OwnFaults, 'accepted' | 'refused'>;
  /** Called for sessions whose stage asks for it. */
  readonly shadowMint: ShadowMint;
  readonly exchangeUri: string;
  /** Whether an exchange could be done at this moment, as far as is known. */
  readonly canExchange: () => boolean;
  readonly fit: Pick<TokenFit, 'whyNot' | 'note'>;
  readonly progress: Pick<Progress, 'count'>;
}

/**
 * credential → principal → stage → decision; at once, where nobody has to be asked. `alsoFor`: an audience whose tokens are accepted beside
 * those for the bridge. Throws, or rejects, where an infrastructure failure leaves no answer but 503.
 */
export type Authenticate = (request: RequestHead, alsoFor?: string) => Authentication | Promise<Authentication>;

/** Conflicts that are looked into at once, at most: they are counted beside the request, never in its way. */
const MAX_CONFLICT_LOOKS = 64;

export function createAuthenticator(options: AuthenticatorOptions): Authenticate {
  const {
    sessions,
    verifyBearer,
    foreignBearer,
    rollout,
    clients,
    peers,
    ownFaults,
    shadowMint,
    exchangeUri,
    canExchange,
    fit,
    progress,
    audit,
    metrics,
  } = options;
  let conflictLooks = 0;

  function clientOf(request: RequestHead, provenId?: string): ResolvedClient {
    return clients.resolve(clientTraits(request, peers, provenId));
  }

  function byBearer(request: RequestHead, bearer: string, cookies: CookiePairs, outcome: BearerOutcome): Authentication | Promise<Authentication> {
    switch (outcome.kind) {
      case 'authenticated': {
        const { principal, token, endsAt } = outcome;
        const client = clientOf(request, principal.client);
        if (cookies.length > 0) lookForConflict(principal, cookies);
        return after(rollout.decide(client, principal, principal), (decision) => {
          ownFaults.accepted(decision.cohort, principal.subject);
          return { kind: 'authenticated', client, principal, decision, endsAt, family: token.family };
        });
      }
      case 'rejected':
        metrics.rejections.count('bearer', outcome.reason);
        ownFaults.refused(bearer, outcome.reason);
        return { kind: 'refused', client: clientOf(request), refusal: INVALID_TOKEN };
      case 'foreign':
        metrics.rejections.count('bearer', 'foreign');
        if (foreignBearer === 'reject') return { kind: 'refused', client: clientOf(request), refusal: INVALID_TOKEN };
        return { kind: 'anonymous', client: clientOf(request), rejection: { credential: 'bearer', reason: 'foreign' } };
      case 'in-doubt':
        return bySameSession(request, outcome, cookies);
    }
  }

  /** The one case in which a cookie answers for a bearer: the bearer cannot be judged, and it is the session that it names. */
  async function bySameSession(
    request: RequestHead,
    { sid, about }: Extract<BearerOutcome, { kind: 'in-doubt' }>,
    cookies: CookiePairs,
  ): Promise<Authentication> {
    const outcome = await sessions.read(cookies);
    if (outcome.kind !== 'authenticated' || outcome.session.sid !== sid) throw unavailable(about);
    metrics.sessionAnswers.inc();
    audit('session.answered', { sid });
    const client = clientOf(request);
    const principal = toPrincipal(outcome.session, client.id);
    return bySession(outcome.session, principal, client, await rollout.decide(client, principal));
  }

  function bySession(session: LiveSession, principal: Principal, client: ResolvedClient, decision: Decision): Authenticated {
    const { entry, key, keyEndsAtMs } = session.source;
    const endsAt = endOf(session);
    if (keyEndsAtMs !== undefined || !session.refreshable) return { kind: 'authenticated', client, principal, decision, endsAt };
    const endsExactly = async () => {
      const reading = await sessions.readKnown(entry, key);
      return reading.kind === 'session' ? endOf(reading.session) : 0;
    };
    return { kind: 'authenticated', client, principal, decision, endsAt, endsExactly };
  }

  function byCookie(request: RequestHead, outcome: SessionOutcome): Authentication | Promise<Authentication> {
    const client = clientOf(request);
    switch (outcome.kind) {
      case 'absent':
        return { kind: 'anonymous', client };
      case 'rejected':
        metrics.rejections.count('session', outcome.reason);
        return { kind: 'anonymous', client, rejection: { credential: 'session', reason: outcome.reason } };
      case 'conflict':
        metrics.conflicts.inc({ where: 'cookies' });
        audit('principal.conflict', { where: 'cookies', client: client.id });
        return { kind: 'refused', client, refusal: { code: 'invalid_request', description: 'two session cookies of different principals' } };
      case 'authenticated': {
        const principal = toPrincipal(outcome.session, client.id);
        const { subject, tenant, via } = principal;
        const isPage = isPageNavigation(request, peers.methodOf(request));
        return after(rollout.decide(client, { subject, tenant, via, isPage }), (decision) => {
          const misfit = decision.rules.nudge === 'forward' ? fit.whyNot(outcome.session, principal) : undefined;
          // Only demand an exchange while an exchange is possible (law 1).
          if (decision.rules.session === 'navigation' && canExchange() && !isPage) {
            if (misfit === undefined) {
              progress.count('refused', '401:exchange-first', decision.cohort);
              const refusal = sessionNotAccepted(decision, exchangeUri);
              return { kind: 'refused', client, refusal, principal };
            }
            fit.note(misfit, principal.sid, client.id);
          }
          if (decision.rules.shadowMint) shadowMint(principal, decision.cohort);
          const accepted = bySession(outcome.session, principal, client, decision);
          return misfit === undefined ? accepted : { ...accepted, staysSession: true };
        });
      }
    }
  }

  /** A bearer beside the cookie of another person: the bearer decides, and it is counted (law 4). */
  function lookForConflict(principal: Principal, cookies: CookiePairs): void {
    if (conflictLooks >= MAX_CONFLICT_LOOKS || !cookies.some(([name]) => sessions.cookieNames.has(name))) return;
    if (sessions.named(cookies).every(({ sid }) => sid === principal.sid)) return;
    conflictLooks += 1;
    Promise.resolve(sessions.read(cookies))
      .then((outcome) => {
        if (outcome.kind !== 'conflict' && (outcome.kind !== 'authenticated' || samePerson(outcome.session.identity, principal))) return;
        metrics.conflicts.inc({ where: 'cookie-and-bearer' });
        audit('principal.conflict', { where: 'cookie-and-bearer', client: principal.client, sid: principal.sid });
      })
      .catch(() => undefined) // The bearer has decided; a Redis that is away takes nothing from that.
      .finally(() => {
        conflictLooks -= 1;
      });
  }

  return function authenticate(request, alsoFor) {
    const { malformed, bearer, cookies } = readCredentials(request, peers.urisOf(request));
    if (malformed) return { kind: 'refused', client: clientOf(request), refusal: malformedRefusal(malformed) };
    if (bearer !== undefined) return after(verifyBearer(bearer, alsoFor), (outcome) => byBearer(request, bearer, cookies, outcome));
    if (cookies.length === 0) return { kind: 'anonymous', client: clientOf(request) };
    return after(sessions.read(cookies, request), (outcome) => byCookie(request, outcome));
  };
}

const INVALID_TOKEN: Refusal = { code: 'invalid_token' };

/** As it is now: unused, a rolling session ends before what is made of it may. */
function endOf({ endsAt, expiresAt = endsAt }: LiveSession): number {
  return Math.min(endsAt, expiresAt);
}

export function malformedRefusal(malformed: NonNullable<PresentedCredentials['malformed']>): Refusal {
  const description = malformed === 'token-in-query' ? 'a token does not belong in the query' : 'two Authorization headers';
  return { code: 'invalid_request', description };
}

/** The structured dictionary (RFC 9651) that tells a client what to do next: to exchange its session, or to return to it. */
export function migrationHeader(stage: string, what: 'exchange' | 'return', uri: string): string {
  return `stage=${stage}, ${what}="${uri}"`;
}

function sessionNotAccepted({ stage }: Decision, exchangeUri: string): Refusal {
  return {
    code: 'session_not_accepted',
    details: { stage, exchange_uri: exchangeUri },
    headers: { 'Auth-Migration': migrationHeader(stage, 'exchange', exchangeUri) },
  };
}
