import { epochSeconds } from '../clock.js';
import type { Config } from '../config/config.js';
import type { Logout } from '../endings/logout.js';
import type { Persons } from '../endings/person.js';
import type { StoreEpochs } from '../endings/store-epoch.js';
import { CrossfadeError, unavailable } from '../errors.js';
import type { CookiePairs } from '../formats/cookies.js';
import { endLogin, endsLogin, isSameLogin } from '../login.js';
import type { Principal } from '../principal.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { KeptSession } from '../sessions/kept-session.js';
import type { SessionReader } from '../sessions/reader.js';
import type { LiveSession } from '../sessions/record.js';
import { toPrincipal } from '../sessions/session-principal.js';
import type { Grant } from '../tokens/grant.js';
import { familyLife, isAtItsEnd, toKept } from '../tokens/session-grant.js';
import { chooseTarget, narrowScope } from './asked.js';
import type { Attempt } from './attempt.js';
import type { AskedTokens, GrantCommand, GrantedTokens } from './command.js';
import type { SessionGranting } from './granting.js';
import { withNewFamily } from './new-family.js';
import { unusedEnd } from './sign.js';

export interface ExchangeOptions extends SessionGranting {
  readonly audience: Config['audience'];
  readonly services: Config['services'];
  readonly sessions: SessionReader;
  readonly persons: Pick<Persons, 'note'>;
  readonly logout: Pick<Logout, 'note'>;
  readonly epochsOf: (entry: string) => StoreEpochs | undefined;
}

export interface ExchangeCommand extends GrantCommand, AskedTokens {
  /** The cookies that are to be exchanged. */
  readonly cookies: CookiePairs;
}

export type Exchange = (command: ExchangeCommand, attempt: Attempt) => Promise<GrantedTokens & { readonly outcome: string }>;

/** The exchange of a session for tokens (RFC 8693), in named steps: each either goes on or throws its answer. */
export function createExchange(options: ExchangeOptions): Exchange {
  const { sessions, rollout, sign, clock, audit, metrics } = options;
  const targets = new Set([...options.audience, ...options.services.map(({ audience }) => audience)]);
  const defaultAudience = options.audience[0] ?? '';

  async function readSession(cookies: CookiePairs, client: ResolvedClient): Promise<LiveSession> {
    const outcome = await sessions.readExactly(cookies).catch((error: unknown) => {
      // Its signature is good and its record is there: nobody else can have caused this.
      const [named] = sessions.named(cookies);
      if (named && error instanceof CrossfadeError && error.reason === 'mapping') options.ownFaults.mapped(client, named.sid, false);
      throw error;
    });
    switch (outcome.kind) {
      case 'authenticated':
        options.ownFaults.mapped(client, outcome.session.sid, true);
        return outcome.session;
      case 'absent':
        throw new CrossfadeError('invalid_request', { message: 'there is no session to exchange' });
      case 'rejected':
        metrics.rejections.count('session', outcome.reason);
        throw noValidSession(outcome.reason);
      case 'conflict':
        throw options.others.conflict('exchange', 'two session cookies of different principals');
    }
  }

  async function refuseByStage(client: ResolvedClient, principal: Principal, attempt: Attempt): Promise<void> {
    if (!client.config?.exchanges) {
      const message = client.config
        ? `${client.id} is not registered with exchanges: true`
        : 'this request shows no registered client: neither client_id, Origin nor what clients[].match looks at is known';
      throw new CrossfadeError('unauthorized_client', { message });
    }
    const { rules, stage, reason, cohort } = await rollout.decide(client, principal);
    attempt.cohort = cohort;
    if (!rules.exchange && reason !== 'signing')
      throw new CrossfadeError('unauthorized_client', { message: 'the exchange is not open at this stage', details: { stage, reason } });
    if (!options.canSign()) throw unavailable('signing');
  }

  function toGrant(session: LiveSession, client: ResolvedClient, audience: string, scope: readonly string[] | undefined): Grant {
    const whole = familyLife(session, options.lives, clock);
    // Without a refresh token the family is there for its one access token.
    const life = session.refreshable ? whole : { ...whole, endsAt: Math.min(whole.endsAt, epochSeconds(clock) + options.lives.accessTtlSeconds) };
    if (isAtItsEnd(life, clock)) throw new CrossfadeError('invalid_request', { message: 'the session is at its end' });
    return {
      client: client.id,
      audience,
      identity: session.identity,
      ...(scope ? { askedScope: [...scope] } : {}),
      narrowed: (scope !== undefined && session.identity.scope.some((one) => !scope.includes(one))) || audience !== defaultAudience,
      hasSession: true,
      ...life,
    };
  }

  /** The id has gone from somebody to this person: what was made for them ends, and everybody is told. */
  async function endOther({ sid, identity }: LiveSession, kept: KeptSession | undefined): Promise<void> {
    if (kept && kept.subject !== identity.subject) await options.logout.note(sid, 'other-person', endLogin(kept, await options.ledger.now(sid)));
  }

  /** Somebody may have logged out while the family was made: then it was made from nothing. */
  async function refuseIfGone({ identity, source }: LiveSession): Promise<void> {
    const reading = await sessions.readKnown(source.entry, source.key, { strict: true });
    if (reading.kind === 'rejected') throw noValidSession(reading.reason);
    if (!isSameLogin(identity, reading.session.identity)) throw noValidSession('logged-out');
  }

  return async function exchange(command, attempt) {
    const { client, beside } = command;
    const audience = chooseTarget(command, targets) ?? defaultAudience;
    const session = await readSession(command.cookies, client);
    await options.others.refuse(beside, { sid: session.sid, ...session.identity }, { where: 'exchange' });
    await refuseByStage(client, toPrincipal(session, client.id), attempt);
    const asked = narrowScope(command, session.identity.scope);
    const grant = toGrant(session, client, audience, asked);
    await options.limits.count('exchange', session.sid);

    const { sid, identity } = session;
    const [epoch, kept] = await Promise.all([options.epochsOf(session.source.entry)?.recent(), options.ledger.kept(sid)]);
    await endOther(session, kept);
    return await withNewFamily(options, {
      sid,
      grant,
      sealedSession: options.ledger.seal(sid, toKept(session, epoch)),
      refusedBy: (ended) => (endsLogin(ended, sid, identity) ? noValidSession('logged-out') : undefined),
      refusedSince: (ended) => (ended?.exceptSid === sid ? undefined : noValidSession('logged-out')),
      watch: async () => await options.watch.watch(session, epoch),
      async finish({ family, token: refreshToken }) {
        const scope = asked ?? identity.scope;
        const access = await sign({ ...toPrincipal(session, client.id), scope }, family, grant);
        await refuseIfGone(session);
        audit('exchange.granted', { client: client.id, sid, family, audience });
        command.assertInTime();
        return { outcome: 'granted', access, ...(session.refreshable ? { refreshToken } : {}), scope, unusedEnd: unusedEnd(grant, clock) };
      },
    });
  };
}

function noValidSession(reason: string): CrossfadeError {
  return new CrossfadeError('invalid_request', { message: 'the session is not valid', details: { reason } });
}
