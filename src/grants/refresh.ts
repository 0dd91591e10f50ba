import type { Resumed, ResumeSession } from '../endings/resume.js';
import { CrossfadeError, unavailable } from '../errors.js';
import { type Identity, type Principal, tokenPrincipal } from '../principal.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { LiveSession } from '../sessions/record.js';
import type { Restore } from '../sessions/restore.js';
import type { TokenFit } from '../tokens/fit.js';
import type { Grant } from '../tokens/grant.js';
import { familyIdle, toKept } from '../tokens/session-grant.js';
import { chooseTarget, narrowScope } from './asked.js';
import { type Attempt, invalidGrant } from './attempt.js';
import type { AskedTokens, GrantCommand, GrantedTokens } from './command.js';
import type { SessionGranting } from './granting.js';
import type { JudgePresented } from './presented.js';
import { unusedEnd } from './sign.js';

export interface RefreshOptions extends SessionGranting {
  readonly judgePresented: JudgePresented;
  readonly resume: ResumeSession;
  readonly restore: Restore;
  readonly returnUri: string;
  /** Whether tokens are given for this audience, here or by another live instance. */
  readonly isTarget: (audience: string) => boolean;
  readonly fit: Pick<TokenFit, 'whyNot' | 'note'>;
}

/** Why a family cannot be used that nobody has ended. What Redis has lost is no fault of the bridge: a restore must not clamp all cohorts. */
const OWN_FAULTS: ReadonlySet<string> = new Set(['unreadable']);

export interface RefreshCommand extends GrantCommand, AskedTokens {
  /** Refresh tokens, of which the good one counts. */
  readonly presented: readonly string[];
}

export type Refresh = (command: RefreshCommand, attempt: Attempt) => Promise<GrantedTokens & { readonly outcome: string }>;

/**
 * The refresh grant (RFC 6749, section 6) with rotation (RFC 9700, section 4.14.2), in named steps. Nothing is consumed before
 * everything that can be refused has passed.
 */
export function createRefresh(options: RefreshOptions): Refresh {
  const { families, resume, rollout, judgePresented, limits, sign, clock, audit } = options;

  /** The session as it is now; undefined for tokens that come from none. */
  async function readSession(sid: string, grant: Grant): Promise<Exclude<Resumed, { kind: 'ended' }> | undefined> {
    if (!grant.hasSession) return undefined;
    const resumed = await resume(sid, grant.identity);
    if (resumed.kind === 'ended') throw invalidGrant('session-ended');
    return resumed;
  }

  /** The session has grown beyond what a token can hold: then it keeps what it had of that, so that its client is not locked out (law 1). */
  function fitting(session: LiveSession, { identity: before }: Grant, client: ResolvedClient): Identity {
    const { identity, sid } = session;
    const misfit = options.fit.whyNot(session, tokenPrincipal(identity, { sid, client: client.id, scope: identity.scope }));
    if (misfit !== 'token-too-large') return identity;
    options.fit.note(misfit, sid, client.id);
    const had = (now: readonly string[], then: readonly string[]) => now.filter((one) => then.includes(one));
    return { ...identity, roles: had(identity.roles, before.roles), scope: had(identity.scope, before.scope) };
  }

  /** At `recall`, who can return is told to; nobody else notices. */
  async function refuseByStage(
    client: ResolvedClient,
    principal: Principal,
    { narrowed, endsAt }: Grant,
    resumed: Awaited<ReturnType<typeof readSession>>,
    attempt: Attempt,
  ): Promise<void> {
    if (!options.canSign()) throw unavailable('signing');
    const { rules, stage, reason, cohort } = await rollout.decide(client, principal);
    attempt.cohort = cohort;
    if (rules.refresh !== 'return' || !client.config?.wayBack || narrowed || !resumed) return;
    if (resumed.kind === 'dormant' && (resumed.isThere || !options.restore.canRestore(resumed.kept, endsAt * 1000))) return;
    throw new CrossfadeError('unauthorized_client', {
      message: 'this client is called back to its session',
      details: { stage, reason, return_uri: options.returnUri },
    });
  }

  return async function refresh(command, attempt) {
    const { client, beside } = command;
    const { token, found } = await judgePresented(command.presented, client, 'refresh');
    if (found.kind === 'returned') throw invalidGrant('returned');
    const { sid, family } = token;
    const { grant } = found;
    chooseTarget(command, new Set([grant.audience]));
    // The configuration has lost it. The refresh token stays as it is: the audience may come back.
    if (!options.isTarget(grant.audience))
      throw new CrossfadeError('invalid_target', { message: 'tokens for the audience of this family are no longer given' });

    await options.others.refuse(beside, { sid, ...grant.identity }, { where: 'refresh', expiredBearer: true });
    const resumed = await readSession(sid, grant);
    const session = resumed?.kind === 'live' ? resumed.session : undefined;
    const epoch = resumed?.kind === 'live' ? resumed.epoch : undefined;
    const identity = session ? fitting(session, grant, client) : grant.identity;
    const scope = grant.askedScope ? identity.scope.filter((one) => grant.askedScope?.includes(one)) : identity.scope;
    const asked = narrowScope(command, scope) ?? scope;
    const principal = tokenPrincipal(identity, { sid, client: client.id, scope: asked });
    await refuseByStage(client, principal, grant, resumed, attempt);
    const limited = `${sid}.${family}`;
    if (found.part !== 'earlier') await limits.check('refresh', limited);

    const renewed: Grant = { ...grant, identity, ...(session ? { idleSeconds: familyIdle(session, options.lives) } : {}) };
    const access = await sign(principal, family, renewed);
    const sealed = session ? options.ledger.seal(sid, toKept(session, epoch)) : '';
    const rotation = await families.rotate(token, found, renewed, sealed);
    if (rotation.kind === 'refused') {
      if (OWN_FAULTS.has(rotation.reason)) {
        options.ownFaults.lost(client.id, { subject: identity.subject, tenant: identity.tenant });
        options.progress.count('refresh', 'failed', attempt.cohort ?? client.id);
      }
      throw invalidGrant(rotation.reason);
    }
    if (rotation.kind !== 'repeated') await limits.count('refresh', limited).catch(() => undefined); // The next one is refused, not this one: it is done.
    if (session) void options.watch.watch(session, epoch);
    command.assertInTime();
    audit('refresh.granted', { client: client.id, sid, family, outcome: rotation.kind });
    return { outcome: rotation.kind, access, refreshToken: rotation.token, scope: asked, unusedEnd: unusedEnd(renewed, clock) };
  };
}
