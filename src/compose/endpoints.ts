import type { Middleware } from 'koa';
import { type ConnectMount, createConnectMount } from '../adapters/connect.js';
import { koaAuthenticate, koaRequire, koaRoutes } from '../adapters/koa.js';
import { type AnswerOwn, nodeAnswer } from '../adapters/node.js';
import { type Expected, expectedByHeader, koaObserve } from '../adapters/observe.js';
import type { FleetClock } from '../clock.js';
import type { Config, FileSecrets } from '../config/config.js';
import type { Live, LiveFiles } from '../config/live-files.js';
import type { Secret } from '../config/secret.js';
import type { ClampSource } from '../console/clamping.js';
import type { FleetAudit } from '../console/fleet-audit.js';
import { createOperatorAccess } from '../console/operator-access.js';
import { createOperatorApi } from '../console/operator-api.js';
import { readPageFiles } from '../console/page-files.js';
import { FINISH_MS } from '../endings/logout.js';
import { createAdmission } from '../endpoints/admission.js';
import { createAnswers } from '../endpoints/answer.js';
import { createAuthenticator } from '../endpoints/authenticator.js';
import { createBridgeCookies } from '../endpoints/bridge-cookies.js';
import { createClientRequests } from '../endpoints/client-request.js';
import { createCountFailure } from '../endpoints/failed-addresses.js';
import { createIntrospectEndpoint } from '../endpoints/introspect-endpoint.js';
import { createIssueEndpoint } from '../endpoints/issue-endpoint.js';
import { createIssueFor, type IssueFor } from '../endpoints/issue-for.js';
import { createLogoutEndpoint } from '../endpoints/logout-endpoint.js';
import { createNudge } from '../endpoints/nudge.js';
import { createObserveRoutes, createObserver } from '../endpoints/observer.js';
import { createOwnPathOf, type PostPath } from '../endpoints/own-paths.js';
import { createPeers } from '../endpoints/peer.js';
import { createRefreshCookies } from '../endpoints/refresh-cookies.js';
import { createRequirement, type RequireOptions } from '../endpoints/require.js';
import { createRevokeEndpoint } from '../endpoints/revoke-endpoint.js';
import { createRoutes } from '../endpoints/routes.js';
import { createSessionEndpoint } from '../endpoints/session-endpoint.js';
import { createTokenEndpoint } from '../endpoints/token-endpoint.js';
import { createVerifyEndpoint } from '../endpoints/verify-endpoint.js';
import { createReadVerifySettings } from '../endpoints/verify-settings.js';
import { createJwksEndpoint, createMetadataEndpoint, JWKS_PATH } from '../endpoints/well-known.js';
import { createFrameAttempt } from '../grants/attempt.js';
import { createExchange } from '../grants/exchange.js';
import { createIssueGrant } from '../grants/issue.js';
import { createLimits } from '../grants/limits.js';
import { createOwnFaults } from '../grants/own-faults.js';
import { createJudgePresented } from '../grants/presented.js';
import { createRefresh } from '../grants/refresh.js';
import { createReturn } from '../grants/return.js';
import { createSigner } from '../grants/sign.js';
import { createOtherPrincipals } from '../grants/two-persons.js';
import { systemRandom } from '../random.js';
import type { RedisClient } from '../redis/client.js';
import type { ClientRegistry } from '../rollout/clients.js';
import type { Guardrail } from '../rollout/guardrail.js';
import type { Progress } from '../rollout/progress.js';
import type { Rollout } from '../rollout/rollout.js';
import { createShadowMint } from '../rollout/shadow.js';
import { MAPPING_TIMEOUT_MS } from '../sessions/mapping.js';
import type { Problems } from '../telemetry/problems.js';
import type { Tools } from '../telemetry/tools.js';
import type { Families } from '../tokens/family.js';
import { createTokenFit } from '../tokens/fit.js';
import { createUpstreamTokens } from '../tokens/upstream.js';
import type { Membership } from './fleet.js';
import type { Lifecycle } from './lifecycle.js';

export interface EndpointsOptions extends Pick<Tools, 'log' | 'audit' | 'metrics'> {
  readonly config: Config;
  /** For limits. */
  readonly client: RedisClient;
  readonly hasMappingFunction: boolean;
  /** Whether the bridge's own Redis takes writes, as far as is known. */
  readonly canWrite: () => boolean;
  /** Where secrets are looked up again when they change. */
  readonly files: LiveFiles;
  /** What all of the bridge's keys start with. */
  readonly prefix: string;
  readonly lifecycle: Lifecycle;
  readonly membership: Membership;
  readonly problems: Pick<Problems, 'add'>;
  readonly rollout: Rollout;
  readonly progress: Progress;
  readonly clients: ClientRegistry;
  readonly guardrail: Guardrail;
  /** What operators are shown, and steer. */
  readonly source: ClampSource;
  readonly fleetAudit: FleetAudit;
  /** For `mode: observe`: whom the app itself found. */
  readonly expected: Expected | undefined;
  readonly clock: FleetClock;
}

/** The bridge as frameworks see it. */
export interface Endpoints {
  authenticate(): Middleware;
  require(options?: RequireOptions): Middleware;
  routes(): Middleware;
  /** @throws {TypeError} in `mode: observe`. */
  connect(): ConnectMount;
  readonly answer: AnswerOwn;
  operatorApi(): Middleware;
  readonly issueFor: IssueFor;
}

/** Everything that answers requests, made of the parts that know. */
export function createEndpoints(options: EndpointsOptions): Endpoints {
  const { config, client, prefix, rollout, progress, clients, guardrail, clock, log, audit, metrics } = options;
  const { ring, signing, issueAccessToken, verifyBearer, verifyOnce } = options.membership;
  const { entries, sessions, ledger, logout, persons, resume, restore, watch, revocations, epochsOf } = options.lifecycle;

  const families: Families = {
    ...options.lifecycle.families,
    async find(token) {
      const found = await options.lifecycle.families.find(token);
      // It may be of another live instance, of another release or with another secret.
      return found.kind === 'unreadable' && options.membership.mayBeOfOthers ? { ...found, why: 'later' } : found;
    },
  };

  // Nothing is signed while nobody knows what time it is, nor by an instance that fails where others do not.
  const signingKey = () => (clock.inDoubt || guardrail.held ? undefined : signing.signingKey());
  // Tokens that last are made by a clock that somebody has checked.
  const canSign = () => signingKey() !== undefined && !clock.isUnchecked;
  const peers = createPeers(config.http.trustProxy, [...clients.origins, new URL(config.issuer).origin]);
  const answering = { log, metrics, progress, fraction: systemRandom.fraction, nowMs: () => clock.now() };
  const answers = createAnswers(answering);
  const root = config.issuer.replace(/\/$/, '');
  const base = `${root}${config.http.basePath}`;
  const uris = { exchangeUri: `${base}/token`, returnUri: `${base}/session` };
  const sign = createSigner({ signingKey, mayIssue: signing.mayIssue, issueAccessToken, clock });
  const ownFaults = createOwnFaults({ guardrail, clients, sign, audience: config.audience, progress, metrics });
  const shadowMint = createShadowMint({
    sampleRate: config.rollout.shadowSampleRate,
    audience: config.audience[0] ?? '',
    signingKey,
    issueAccessToken,
    verifyOnce,
    fraction: systemRandom.fraction,
    clock,
    progress,
    metrics,
  });
  const { issuer, audience } = config;
  const fit = createTokenFit({ issuer, audience: audience[0] ?? '', signingKey, clock, log, metrics });
  options.problems.add(() => fit.problems);
  const authenticate = createAuthenticator({
    sessions,
    verifyBearer,
    foreignBearer: config.bearer.foreign,
    rollout,
    clients,
    peers,
    ownFaults,
    shadowMint,
    exchangeUri: uris.exchangeUri,
    canExchange: () => options.canWrite() && signing.mayIssue(audience[0] ?? ''),
    fit,
    progress,
    audit,
    metrics,
  });

  const upstream = createUpstreamTokens({
    signingKey,
    verifies: (kid) => ring.find(kid) !== undefined && !ring.isDenied(kid),
    revocations,
    issueAccessToken,
    clock,
    metrics,
  });

  const foreignBearer = config.bearer.foreign;
  const hashes = new Map(
    config.clients.flatMap(({ id, secretHashes: found }) => (found ? [[id, followSecrets(options.files, found)] as const] : [])),
  );
  const secretHashes = (client: string) => hashes.get(client)?.current ?? [];
  const adminToken = config.admin.token && followSecrets(options.files, config.admin.token);
  const requests = createClientRequests(clients, secretHashes, peers, audit);
  const cookies = createBridgeCookies(config, entries, clock);
  const limiting = { client, prefix, config: config.limits, audit, metrics };
  const limits = createLimits(limiting);
  const frameAttempt = createFrameAttempt({ progress, audit, metrics });
  const others = createOtherPrincipals({ sessions, verifyBearer, foreignBearer, audit, metrics });
  const judgePresented = createJudgePresented({
    families,
    others,
    resume,
    ownFaults,
    clock,
    metrics,
  });
  const granting = {
    lives: config.tokens,
    ledger,
    families,
    watch,
    others,
    rollout,
    limits,
    ownFaults,
    canSign,
    progress,
    clock,
    audit,
    metrics,
  };
  const targets = { audience: config.audience, services: config.services };
  const known = new Set([...config.audience, ...config.services.map((service) => service.audience)]);
  const isTarget = (wanted: string) => known.has(wanted) || options.membership.isTargetElsewhere(wanted);
  const signed = { exchange: ownFaults.signFor('exchange'), refresh: ownFaults.signFor('refresh') };
  const grants = {
    exchange: createExchange({ ...granting, ...targets, sign: signed.exchange, epochsOf, sessions, persons, logout }),
    refresh: createRefresh({ ...granting, sign: signed.refresh, judgePresented, resume, restore, isTarget, fit, returnUri: uris.returnUri }),
    goBack: createReturn({ judgePresented, resume, restore, ledger, logout, sessions, families, rollout, others, audit }),
    issue: createIssueGrant({ ...granting, ...targets, sign: signed.exchange, frameAttempt, clients, persons, random: systemRandom }),
  };
  const issueFor = createIssueFor(grants.issue, cookies);
  const refreshCookies = createRefreshCookies(requests, cookies);
  const asking = { ...grants, frameAttempt, requests, refreshCookies, cookies };
  const posts = {
    token: createTokenEndpoint({ ...asking, sessions, metrics }),
    session: createSessionEndpoint(asking),
    issue: createIssueEndpoint(requests, issueFor),
    revoke: createRevokeEndpoint({ families, verifyBearer, requests, audit }),
    introspect: createIntrospectEndpoint({ issuer: config.issuer, families, ledger, verifyBearer, requests, audit }),
    logout: createLogoutEndpoint({ sessions, verifyBearer, foreignBearer, families, logout, requests, cookies, others }),
  };
  // Beside Redis a request may have to wait for the app that is asked, or for a mapping function; a logout for the other instances.
  const askedMs = Math.max(0, ...config.sessions.map(({ http }) => http?.timeoutMs ?? 0)) + (options.hasMappingFunction ? MAPPING_TIMEOUT_MS : 0);
  const budgetMs = (endpoint: PostPath) => 2 * config.redis.commandTimeoutMs + askedMs + (endpoint === 'logout' ? FINISH_MS : 0);
  const makesCredentials: ReadonlySet<PostPath> = new Set(['token', 'session', 'issue']);
  const cannotNow = (endpoint: PostPath) => {
    if (!makesCredentials.has(endpoint)) return undefined;
    if (clock.inDoubt || clock.isUnchecked) return 'clock';
    return guardrail.held && endpoint !== 'session' ? 'held' : undefined;
  };
  const ownPathOf = createOwnPathOf(config.http.basePath);
  const nudge = createNudge({ config: config.rollout, fleetSize: () => options.membership.fleet.size, nowMs: () => clock.now(), metrics, ...uris });
  const readSettings = createReadVerifySettings({
    path: `${config.http.basePath}/verify`,
    anonymous: config.verify.anonymous,
    services: config.services,
  });
  const decides = config.mode === 'enforce';
  const observer = createObserver({ authenticate, log, metrics });
  const routes = decides
    ? createRoutes({
        basePath: config.http.basePath,
        ownPathOf,
        origins: clients.origins,
        answers,
        cannotNow,
        budgetMs,
        audit,
        countFailure: createCountFailure(peers, limiting),
        metrics,
        posts,
        verify: createVerifyEndpoint({ authenticate, answers, readSettings, upstream, peers, nudge, metrics }),
        jwks: createJwksEndpoint(() => ring.jwks, config.keys.jwksMaxAgeSeconds),
        metadata: createMetadataEndpoint({ issuer: config.issuer, base, jwksUri: `${root}${JWKS_PATH}` }),
      })
    : createObserveRoutes(config.http.basePath, ownPathOf, observer);
  const admission = createAdmission({ authenticate, answers, nudge, metrics, log });
  /** It would refuse everybody, or let everybody in. */
  const refuseInObserve = (what: string) => {
    if (!decides) throw new TypeError(`mode: observe decides nothing: ${what} is for mode: enforce`);
  };
  const { expectedHeader } = config.observe;
  const expected = options.expected ?? (expectedHeader === undefined ? undefined : expectedByHeader(expectedHeader));

  return {
    authenticate: () => (decides ? koaAuthenticate(admission, ownPathOf) : koaObserve({ observer, expected, ownPathOf, log, metrics })),
    require(required) {
      refuseInObserve('bridge.require()');
      return koaRequire(createRequirement(answers, required));
    },
    routes: () => koaRoutes(routes, ownPathOf),
    connect() {
      refuseInObserve('bridge.connect()');
      return createConnectMount({ admission, ownPathOf, routes, requirementOf: (required) => createRequirement(answers, required) });
    },
    answer: nodeAnswer(routes),
    operatorApi: () =>
      createOperatorApi({
        access: createOperatorAccess(config.admin, () => adminToken?.current[0], clock),
        // What an operator is refused is no refusal of anybody's credential.
        answers: createAnswers({ ...answering, progress: { count: () => undefined } }),
        audit,
        source: options.source,
        fleetAudit: options.fleetAudit,
        page: readPageFiles(),
        nowMs: () => clock.now(),
        endSubject: persons.end,
      }),
    issueFor: async (principal, request) => await issueFor(principal, request),
  };
}

function followSecrets(files: LiveFiles, { at, file, current, read }: FileSecrets): Live<readonly Secret[]> {
  return files.follow({ at, files: [file], initial: current, read });
}
