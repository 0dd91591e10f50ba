import type { Middleware } from 'koa';
import { createObserve, type Expected, expectedByHeader } from '../adapters/observe.js';
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
import { createAnswers } from '../http/answer.js';
import { createAuthenticate } from '../http/authenticate.js';
import { createAuthenticator } from '../http/authenticator.js';
import { createClientRequests } from '../http/client-request.js';
import { createBridgeCookies } from '../http/cookies.js';
import { createExchange, TOKEN_EXCHANGE } from '../http/exchange.js';
import { createIntrospectEndpoint } from '../http/introspect-endpoint.js';
import { createIssueEndpoint } from '../http/issue-endpoint.js';
import { createIssueFor, type IssueFor } from '../http/issue-for.js';
import { createLimits } from '../http/limits.js';
import { createLogoutEndpoint } from '../http/logout-endpoint.js';
import { createOtherPrincipals } from '../http/other-principals.js';
import { createOwnFaults } from '../http/own-faults.js';
import { createOwnRequests, type PostPath } from '../http/own-paths.js';
import { createPeers } from '../http/peer.js';
import { createReadRefresh } from '../http/presented-refresh.js';
import { createRefresh } from '../http/refresh.js';
import { createRequire, type RequireOptions } from '../http/require.js';
import { createRevokeEndpoint } from '../http/revoke-endpoint.js';
import { createObserveRoutes, createRoutes } from '../http/routes.js';
import { createSigner } from '../http/token-answer.js';
import { createTokenEndpoint } from '../http/token-endpoint.js';
import { createVerifyEndpoint } from '../http/verify-endpoint.js';
import { createReadVerifySettings } from '../http/verify-settings.js';
import { createWayBack } from '../http/way-back.js';
import { createJwksEndpoint, createMetadataEndpoint, JWKS_PATH } from '../http/well-known.js';
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

/** The bridge as Koa sees it. */
export interface Endpoints {
  authenticate(): Middleware;
  require(options?: RequireOptions): Middleware;
  routes(): Middleware;
  operatorApi(): Middleware;
  readonly issueFor: IssueFor;
}

/** Everything that answers requests, made of the parts that know. */
export function createEndpoints(options: EndpointsOptions): Endpoints {
  const { config, client, prefix, rollout, progress, clients, guardrail, clock, log, audit, metrics } = options;
  const { ring, signing, issueAccessToken, verifyBearer, verifyOnce } = options.membership;
  const { entries, sessions, ledger, logout, persons, families, resume, restore, watch, revocations, epochsOf } = options.lifecycle;

  // Nothing is signed while nobody knows what time it is, nor by an instance that fails where others do not.
  const signingKey = () => (clock.inDoubt || guardrail.held ? undefined : signing.signingKey());
  const canSign = () => signingKey() !== undefined;
  const peers = createPeers(config.http.trustProxy, config.issuer);
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
  const limits = createLimits({ client, prefix, config: config.limits, peers, audit, metrics });
  const others = createOtherPrincipals({ sessions, verifyBearer, foreignBearer, audit, metrics });
  const readRefresh = createReadRefresh({
    families,
    requests,
    others,
    resume,
    cookies,
    ownFaults,
    mayBeOfOthers: () => options.membership.mayBeOfOthers,
    clock,
    metrics,
  });
  const granting = {
    lives: config.tokens,
    ledger,
    families,
    watch,
    others,
    requests,
    rollout,
    limits,
    ownFaults,
    canSign,
    progress,
    cookies,
    clock,
    audit,
    metrics,
  };
  const targets = { audience: config.audience, services: config.services };
  const known = new Set([...config.audience, ...config.services.map((service) => service.audience)]);
  const isTarget = (wanted: string) => known.has(wanted) || options.membership.isTargetElsewhere(wanted);
  const issueFor = createIssueFor({ ...granting, ...targets, sign: ownFaults.signFor('exchange'), clients, persons, random: systemRandom });
  const posts = {
    token: createTokenEndpoint(
      new Map([
        [TOKEN_EXCHANGE, createExchange({ ...granting, ...targets, sign: ownFaults.signFor('exchange'), epochsOf, sessions, persons, logout })],
        [
          'refresh_token',
          createRefresh({ ...granting, sign: ownFaults.signFor('refresh'), readRefresh, resume, restore, isTarget, fit, returnUri: uris.returnUri }),
        ],
      ]),
      metrics,
    ),
    session: createWayBack({
      readRefresh,
      resume,
      restore,
      ledger,
      logout,
      sessions,
      families,
      requests,
      rollout,
      progress,
      others,
      cookies,
      audit,
      metrics,
    }),
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
    if (clock.inDoubt) return 'clock';
    return guardrail.held && endpoint !== 'session' ? 'held' : undefined;
  };
  const { expectedHeader } = config.observe;
  const watching = {
    authenticate,
    expected: options.expected ?? (expectedHeader === undefined ? undefined : expectedByHeader(expectedHeader)),
    log,
    metrics,
  };
  const isOwn = createOwnRequests(config.http.basePath);
  const readSettings = createReadVerifySettings({
    path: `${config.http.basePath}/verify`,
    anonymous: config.verify.anonymous,
    services: config.services,
  });
  const enforce = () => createAuthenticate({ authenticate, answers, rollout, metrics, log, ...uris, isOwn });

  return {
    authenticate: () => (config.mode === 'observe' ? createObserve({ ...watching, skips: isOwn }) : enforce()),
    require(required) {
      // It would refuse everybody, or let everybody in.
      if (config.mode === 'observe') throw new TypeError('mode: observe decides nothing: bridge.require() is for mode: enforce');
      return createRequire(answers, required);
    },
    routes() {
      if (config.mode === 'observe') return createObserveRoutes(config.http.basePath, createObserve({ ...watching, skips: () => false }));
      return createRoutes({
        basePath: config.http.basePath,
        origins: clients.origins,
        answers,
        cannotNow,
        budgetMs,
        audit,
        limits,
        metrics,
        posts,
        verify: createVerifyEndpoint({ authenticate, answers, readSettings, upstream, peers, rollout, metrics, ...uris }),
        jwks: createJwksEndpoint(() => ring.jwks, config.keys.jwksMaxAgeSeconds),
        metadata: createMetadataEndpoint({ issuer: config.issuer, base, jwksUri: `${root}${JWKS_PATH}` }),
      });
    },
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
    issueFor,
  };
}

function followSecrets(files: LiveFiles, { at, file, current, read }: FileSecrets): Live<readonly Secret[]> {
  return files.follow({ at, files: [file], initial: current, read });
}
