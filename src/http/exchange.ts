import type { Context } from 'koa';
import { epochSeconds } from '../clock.js';
import type { Config } from '../config/config.js';
import type { Logout } from '../endings/logout.js';
import type { Persons } from '../endings/person.js';
import type { StoreEpochs } from '../endings/store-epoch.js';
import { CrossfadeError, unavailable } from '../errors.js';
import { type CookiePairs, parseCookies } from '../formats/cookies.js';
import { endLogin, endsLogin, isSameLogin } from '../login.js';
import type { Principal } from '../principal.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { SessionReader } from '../sessions/reader.js';
import type { LiveSession } from '../sessions/record.js';
import type { OpenedFamily } from '../tokens/family.js';
import type { Grant } from '../tokens/grant.js';
import { familyLife, toKept } from '../tokens/session-grant.js';
import { type Attempt, frameAttempt } from './attempt.js';
import { toPrincipal } from './authenticator.js';
import { readCredentials } from './credentials.js';
import type { Form } from './form.js';
import type { SessionGranting } from './granting.js';
import { readScope, readTarget } from './parameters.js';
import { answerTokens } from './token-answer.js';

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const SESSION_TOKEN_TYPE = 'urn:crossfade:params:oauth:token-type:session';
const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token';

export interface ExchangeOptions extends SessionGranting {
  readonly audience: Config['audience'];
  readonly services: Config['services'];
  readonly sessions: SessionReader;
  readonly persons: Pick<Persons, 'note'>;
  readonly logout: Pick<Logout, 'note'>;
  readonly epochsOf: (entry: string) => StoreEpochs | undefined;
}

export type GrantType = (ctx: Context, form: Form) => Promise<void>;

/** The exchange of a session for tokens (RFC 8693), in named steps: each either goes on or throws its answer. */
export function createExchange(options: ExchangeOptions): GrantType {
  const { sessions, requests, rollout, families, sign, clock, audit, metrics } = options;
  const targets = new Set([...options.audience, ...options.services.map(({ audience }) => audience)]);
  const defaultAudience = options.audience[0] ?? '';

  /** The cookies that are to be exchanged: the form's, else the request's own where its origin allows. */
  function subjectCookies(ctx: Context, form: Form, client: ResolvedClient): CookiePairs {
    const subjectToken = readSubjectToken(form, sessions.cookieNames);
    requests.checkOrigin(ctx, client, { readsCookie: !subjectToken, maySetCookie: client.config?.refreshTransport === 'cookie' });
    if (subjectToken) return subjectToken;
    if ((client.config?.origins ?? []).length === 0)
      throw new CrossfadeError('invalid_request', {
        message: 'subject_token is missing, and this client has no origins for which the cookie would be read',
      });
    return readCredentials(ctx.req).cookies;
  }

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
    if (life.endsAt <= epochSeconds(clock)) throw new CrossfadeError('invalid_request', { message: 'the session is at its end' });
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

  async function open(session: LiveSession, grant: Grant): Promise<OpenedFamily> {
    const { sid, identity, source } = session;
    const [epoch, kept] = await Promise.all([options.epochsOf(source.entry)?.recent(), options.ledger.kept(sid)]);
    // The id has gone from somebody to this person: what was made for them ends, and everybody is told.
    if (kept && kept.subject !== identity.subject) await options.logout.note(sid, 'other-person', endLogin(kept, await options.ledger.now(sid)));
    const before = await options.persons.note(identity.subject, sid, grant.endsAt * 1000);
    if (before && endsLogin(before, sid, identity)) throw noValidSession('logged-out');
    const opened = await families.open(sid, grant, options.ledger.seal(sid, toKept(session, epoch)));
    try {
      await options.watch.watch(session, epoch);
      // Whoever ended the person in between found the note, but no family yet.
      const after = await options.persons.note(identity.subject, sid, grant.endsAt * 1000);
      if (after?.endedAt !== before?.endedAt && after?.exceptSid !== sid) throw noValidSession('logged-out');
      return opened;
    } catch (error) {
      await takeBack(sid, opened.family);
      throw error;
    }
  }

  /** Nobody has its token. */
  async function takeBack(sid: string, family: string): Promise<void> {
    await families.end(sid, family, 'taken-back').catch(() => undefined);
  }

  /** Somebody may have logged out while the family was made: then it was made from nothing. */
  async function refuseIfGone({ identity, source }: LiveSession): Promise<void> {
    const reading = await sessions.readKnown(source.entry, source.key, { strict: true });
    if (reading.kind === 'rejected') throw noValidSession(reading.reason);
    if (!isSameLogin(identity, reading.session.identity)) throw noValidSession('logged-out');
  }

  async function exchange(ctx: Context, form: Form, client: ResolvedClient, attempt: Attempt): Promise<void> {
    refuseUnknownParameters(form);
    const audience = readTarget(form, targets) ?? defaultAudience;
    const session = await readSession(subjectCookies(ctx, form, client), client);
    await options.others.refuse(ctx, client, { sid: session.sid, ...session.identity }, { where: 'exchange', cookies: form.has('subject_token') });
    await refuseByStage(client, toPrincipal(session, client.id), attempt);
    const asked = readScope(form, session.identity.scope);
    const grant = toGrant(session, client, audience, asked);
    await options.limits.count('exchange', session.sid);

    const { family, token: refreshToken } = await open(session, grant);
    const scope = asked ?? session.identity.scope;
    try {
      const access = await sign({ ...toPrincipal(session, client.id), scope }, family, grant);
      await refuseIfGone(session);
      audit('exchange.granted', { client: client.id, sid: session.sid, family, audience });
      const given = session.refreshable ? { refreshToken } : {};
      answerTokens(ctx, client, { access, ...given, scope, grant, issuedTokenType: ACCESS_TOKEN_TYPE }, options.cookies, clock);
    } catch (error) {
      await takeBack(session.sid, family);
      throw error;
    }
  }

  return async function exchangeGrant(ctx, form) {
    const stop = metrics.exchangeSeconds.startTimer();
    const work = frameAttempt({ ...options, what: 'exchange', counter: metrics.exchanges }, async (attempt) => {
      const client = requests.resolve(ctx, form);
      attempt.client = client;
      await exchange(ctx, form, client, attempt);
      return 'granted';
    });
    await work.finally(stop);
  };
}

function noValidSession(reason: string): CrossfadeError {
  return new CrossfadeError('invalid_request', { message: 'the session is not valid', details: { reason } });
}

/** `subject_token` holds cookie pairs as in a `Cookie` header, of the configured names only. Undefined: there is none. */
export function readSubjectToken(form: Form, names: ReadonlySet<string>): CookiePairs | undefined {
  const token = form.get('subject_token');
  const type = form.get('subject_token_type');
  if (type !== undefined && type !== SESSION_TOKEN_TYPE)
    throw new CrossfadeError('invalid_request', { message: `subject_token_type must be ${SESSION_TOKEN_TYPE}` });
  if (token === undefined) return undefined;
  if (type === undefined) throw new CrossfadeError('invalid_request', { message: 'subject_token_type is missing' });
  const pairs = parseCookies(token);
  if (pairs.length === 0 || pairs.length !== token.split(';').length || pairs.some(([name]) => !names.has(name))) {
    throw new CrossfadeError('invalid_request', { message: 'subject_token must be cookie pairs of the configured names' });
  }
  return pairs;
}

function refuseUnknownParameters(form: Form): void {
  const requested = form.get('requested_token_type');
  if (requested !== undefined && requested !== ACCESS_TOKEN_TYPE)
    throw new CrossfadeError('invalid_request', { message: `requested_token_type must be ${ACCESS_TOKEN_TYPE}` });
  if (form.has('actor_token')) throw new CrossfadeError('invalid_request', { message: 'actor_token is not supported' });
}
