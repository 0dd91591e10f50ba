import type { Context } from 'koa';
import { type Clock, epochSeconds } from '../clock.js';
import type { Config } from '../config/config.js';
import { CrossfadeError, unavailable } from '../errors.js';
import type { LoadedKey } from '../keys/load.js';
import type { Principal } from '../principal.js';
import type { ClientRegistry, ResolvedClient } from '../rollout/clients.js';
import type { Rollout } from '../rollout/rollout.js';
import { type CookiePairs, parseCookies } from '../sessions/cookies.js';
import { type LiveSession, type SessionReader, samePerson } from '../sessions/reader.js';
import type { Audit } from '../telemetry/audit.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { IssueAccessToken } from '../tokens/issue.js';
import { MAX_TOKEN_BYTES, type VerifyBearer } from '../tokens/verify.js';
import { malformedRefusal, toPrincipal } from './authenticator.js';
import { authenticateClient } from './client-authentication.js';
import { clientTraits } from './client-traits.js';
import { readCredentials } from './credentials.js';
import { type Form, readForm } from './form.js';
import { passesOriginCheck } from './origin.js';
import type { Peers } from './peer.js';

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const SESSION_TOKEN_TYPE = 'urn:crossfade:params:oauth:token-type:session';
const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token';

export interface TokenEndpointOptions {
  readonly audience: Config['audience'];
  readonly services: Config['services'];
  readonly sessions: SessionReader;
  readonly verifyBearer: VerifyBearer;
  readonly foreignBearer: Config['bearer']['foreign'];
  readonly clients: ClientRegistry;
  readonly peers: Peers;
  readonly rollout: Rollout;
  readonly signingKey: () => LoadedKey | undefined;
  readonly issueAccessToken: IssueAccessToken;
  readonly clock: Clock;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

type Grant = (ctx: Context, form: Form) => Promise<void>;

/** `POST /auth/token`, the OAuth token endpoint: one function per grant. */
export function createTokenEndpoint(options: TokenEndpointOptions): (ctx: Context) => Promise<void> {
  const grants: ReadonlyMap<string, Grant> = new Map([[TOKEN_EXCHANGE, createExchange(options)]]);

  return async function tokenEndpoint(ctx) {
    const form = await readForm(ctx);
    const grantType = form.get('grant_type');
    if (grantType === undefined) throw new CrossfadeError('invalid_request', { message: 'grant_type is missing' });
    const grant = grants.get(grantType);
    if (!grant) throw new CrossfadeError('unsupported_grant_type');
    await grant(ctx, form);
  };
}

/** The exchange of a session for an access token (RFC 8693), in named steps: each either goes on or throws its answer. */
function createExchange(options: TokenEndpointOptions): Grant {
  const { sessions, clients, peers, rollout, signingKey, issueAccessToken, verifyBearer, clock, audit, metrics } = options;
  const targets = new Set([...options.audience, ...options.services.map(({ audience }) => audience)]);

  function resolveClient(ctx: Context, form: Form): ResolvedClient {
    const authenticated = authenticateClient(ctx.req, form, clients);
    const client = clients.resolve(clientTraits(ctx.req, peers, authenticated?.id));
    if (!authenticated && client.config?.type === 'confidential') throw new CrossfadeError('invalid_client');
    return client;
  }

  /** The cookies that are to be exchanged: the form's, else the request's own where its origin allows. */
  function subjectCookies(ctx: Context, form: Form, client: ResolvedClient): CookiePairs {
    const subjectToken = readSubjectToken(form, sessions.cookieNames);
    const origins = client.config?.origins ?? [];
    const maySetCookie = client.config?.refreshTransport === 'cookie';
    if (!passesOriginCheck(ctx.req, { origins, readsCookie: !subjectToken, maySetCookie })) {
      audit('origin.refused', { client: client.id });
      throw new CrossfadeError('forbidden_origin', { message: 'the origin of this request may not use this client' });
    }
    if (subjectToken) return subjectToken;
    if (origins.length === 0)
      throw new CrossfadeError('invalid_request', {
        message: 'subject_token is missing, and this client has no origins for which the cookie would be read',
      });
    return readCredentials(ctx.req).cookies;
  }

  async function readSession(cookies: CookiePairs): Promise<LiveSession> {
    const outcome = await sessions.read(cookies);
    switch (outcome.kind) {
      case 'authenticated':
        return outcome.session;
      case 'absent':
        throw new CrossfadeError('invalid_request', { message: 'there is no session to exchange' });
      case 'rejected':
        metrics.rejections.inc({ credential: 'session', reason: outcome.reason });
        throw new CrossfadeError('invalid_request', { message: 'the session is not valid', details: { reason: outcome.reason } });
      case 'conflict':
        throw conflict('two session cookies of different principals');
    }
  }

  /** Law 4: what else the request carries must belong to the same person. */
  async function refuseOtherPrincipals(ctx: Context, form: Form, client: ResolvedClient, session: LiveSession): Promise<void> {
    const { bearer, cookies, malformed } = readCredentials(ctx.req);
    if (malformed) throw refusalError(malformed);
    if (bearer !== undefined) {
      const outcome = await verifyBearer(bearer);
      if (outcome.kind === 'in-doubt') throw unavailable('keys');
      if (outcome.kind === 'rejected' || (outcome.kind === 'foreign' && options.foreignBearer === 'reject'))
        throw new CrossfadeError('invalid_token');
      if (outcome.kind === 'authenticated' && !samePerson(outcome.principal, session.identity))
        throw conflict('session and bearer are of different principals');
    }
    const origins = client.config?.origins ?? [];
    const cookieMayBeRead = origins.length > 0 && passesOriginCheck(ctx.req, { origins, readsCookie: true, maySetCookie: false });
    if (form.has('subject_token') && cookieMayBeRead && cookies.some(([name]) => sessions.cookieNames.has(name))) {
      const outcome = await sessions.read(cookies);
      const other = outcome.kind === 'conflict' || (outcome.kind === 'authenticated' && !samePerson(outcome.session.identity, session.identity));
      if (other) throw conflict('subject_token and cookie are of different principals');
    }
  }

  function conflict(message: string): CrossfadeError {
    metrics.conflicts.inc({ where: 'exchange' });
    audit('principal.conflict', { where: 'exchange' });
    return new CrossfadeError('invalid_request', { message });
  }

  async function refuseByStage(client: ResolvedClient, principal: Principal): Promise<void> {
    if (!client.config?.exchanges) throw new CrossfadeError('unauthorized_client', { message: 'this client is not registered for the exchange' });
    const { rules, stage, reason } = await rollout.decide(client, principal);
    if (rules.exchange) return;
    if (reason === 'signing') throw unavailable('signing');
    throw new CrossfadeError('unauthorized_client', { message: 'the exchange is not open at this stage', details: { stage, reason } });
  }

  async function sign(principal: Principal, audience: string, endsAt: number) {
    const key = signingKey();
    if (!key) throw unavailable('signing');
    try {
      return await issueAccessToken(key, { principal, audience, endsAt });
    } catch (cause) {
      throw unavailable('signing', cause);
    }
  }

  async function exchange(ctx: Context, form: Form, client: ResolvedClient): Promise<void> {
    refuseUnknownParameters(form);
    const audience = readTarget(form, targets) ?? options.audience[0] ?? '';
    const cookies = subjectCookies(ctx, form, client);
    const session = await readSession(cookies);
    await refuseOtherPrincipals(ctx, form, client, session);
    const principal = toPrincipal(session, client.id);
    await refuseByStage(client, principal);
    const scope = narrowScope(form.get('scope'), principal.scope);
    if (session.endsAt <= epochSeconds(clock)) throw new CrossfadeError('invalid_request', { message: 'the session is at its end' });
    const { token, expiresIn } = await sign({ ...principal, scope }, audience, session.endsAt);
    if (token.length > MAX_TOKEN_BYTES)
      throw new CrossfadeError('invalid_request', {
        message: `the token would be over ${MAX_TOKEN_BYTES} bytes: ask for less scope, or map fewer roles`,
      });

    audit('exchange.granted', { client: client.id, sid: session.sid, audience });
    ctx.set('Cache-Control', 'no-store');
    ctx.set('Pragma', 'no-cache');
    ctx.body = {
      access_token: token,
      issued_token_type: ACCESS_TOKEN_TYPE,
      token_type: 'Bearer',
      expires_in: expiresIn,
      ...(scope.length > 0 ? { scope: scope.join(' ') } : {}),
    };
  }

  return async function exchangeGrant(ctx, form) {
    const stop = metrics.exchangeSeconds.startTimer();
    let client: ResolvedClient | undefined;
    let outcome = 'granted';
    try {
      client = resolveClient(ctx, form);
      await exchange(ctx, form, client);
    } catch (error) {
      outcome = error instanceof CrossfadeError ? error.code : 'server_error';
      audit('exchange.refused', { client: client?.id ?? 'unknown', code: outcome, ...(error instanceof CrossfadeError ? error.details : {}) });
      throw error;
    } finally {
      metrics.exchanges.inc({ client: client?.id ?? 'unknown', outcome });
      stop();
    }
  };
}

function refusalError(malformed: NonNullable<ReturnType<typeof readCredentials>['malformed']>): CrossfadeError {
  const { code, description = '' } = malformedRefusal(malformed);
  return new CrossfadeError(code, { message: description });
}

/** `subject_token` holds cookie pairs as in a `Cookie` header, of the configured names only. Undefined: there is none. */
function readSubjectToken(form: Form, names: ReadonlySet<string>): CookiePairs | undefined {
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

/** The one audience that is asked for, by `audience` or `resource` (RFC 8693, section 2.1). Undefined: none is. */
function readTarget(form: Form, targets: ReadonlySet<string>): string | undefined {
  const asked = ['audience', 'resource'].flatMap((name) => form.get(name) ?? []);
  const [first] = asked;
  if (asked.some((target) => target !== first || !targets.has(target))) throw new CrossfadeError('invalid_target');
  return first;
}

/** What is asked for can be narrowed, never extended (law 2). */
function narrowScope(asked: string | undefined, has: readonly string[]): readonly string[] {
  if (asked === undefined) return has;
  const wanted = [...new Set(asked.split(' ').filter((token) => token !== ''))];
  if (wanted.some((token) => !has.includes(token))) throw new CrossfadeError('invalid_scope');
  return wanted;
}
