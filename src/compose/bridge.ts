import { hostname } from 'node:os';
import type { Middleware } from 'koa';
import type { LDClient } from 'launchdarkly-node-server-sdk';
import { createExternalKey, type ExternalKey } from '../adapters/external-key.js';
import type { Expected } from '../adapters/observe.js';
import { createSessionStore, createTokenSessionNames, type SessionStore } from '../adapters/session-store.js';
import { type Clock, createFleetClock, systemClock } from '../clock.js';
import { type Config, ConfigError, type ConfigInput } from '../config/config.js';
import { unmappedSessions } from '../config/cross-checks.js';
import { isResolved, resolveConfig } from '../config/load.js';
import type { Readiness } from '../console/admin.js';
import { createFleetAudit } from '../console/fleet-audit.js';
import { nameOfInstance } from '../console/status.js';
import type { News } from '../endings/event-stream.js';
import type { EndSubjectOptions } from '../endings/person.js';
import type { EndableSession } from '../endings/revocation.js';
import { writePersonsAnew, writeSessionsAnew } from '../endings/write-anew.js';
import { chooseAtStart, followFleetSecrets } from '../fleet/secret-file.js';
import { createSecretRotation } from '../fleet/secret-rotation.js';
import type { IssueFor } from '../http/issue-for.js';
import type { RequireOptions } from '../http/require.js';
import type { SigningReport } from '../keys/signing.js';
import { systemRandom } from '../random.js';
import { FleetSecrets } from '../redis/fleet-secrets.js';
import { describeUnknownClamp, scopeOfCohort } from '../rollout/clamps.js';
import { createClientRegistry } from '../rollout/clients.js';
import { openFlagSource } from '../rollout/flag-source.js';
import { createFlags } from '../rollout/flags.js';
import { createGuardrail, describeHold } from '../rollout/guardrail.js';
import { createLastKnownFlags } from '../rollout/last-known.js';
import { createProgress } from '../rollout/progress.js';
import { createRollout } from '../rollout/rollout.js';
import { createTraffic } from '../rollout/traffic.js';
import type { MappingFunction } from '../sessions/mapping.js';
import { createAudit } from '../telemetry/audit.js';
import { createAuditFeed } from '../telemetry/audit-feed.js';
import { watchLately } from '../telemetry/lately.js';
import { type AppLog, adoptLog, createLog } from '../telemetry/log.js';
import { createMetrics, type Metrics } from '../telemetry/metrics.js';
import { createProblems } from '../telemetry/problems.js';
import { watchRefusals } from '../telemetry/refusals.js';
import { createEndpoints } from './endpoints.js';
import { followFiles } from './files.js';
import { createMembership } from './fleet.js';
import { Connections, createLifecycle } from './lifecycle.js';
import { createControl } from './stored.js';

export interface BridgeOptions {
  /** Stands in for `sessions[].principal`. */
  readonly principal?: MappingFunction;
  /** A LaunchDarkly client that the app already has, instead of `rollout.flags`. It stays the app's to close. */
  readonly launchdarkly?: LDClient;
  /** For `mode: observe`: whom the app itself found. Default: what the header says that `observe.expectedHeader` names. */
  readonly observe?: { readonly expected: Expected };
  /**
   * An operator lets this instance act though it skips a release, or though Redis holds what no secret of `fleetSecretFile` opens, which it
   * then takes for junk. `why`: for the audit.
   */
  readonly force?: { readonly why: string };
  /** The app's own logger: `(fields, message)`, as in pino. Default: JSON lines on standard output, from `info` on. */
  readonly log?: AppLog;
  /** Default: metrics of their own, at `bridge.metrics.registry`. */
  readonly metrics?: Metrics;
  readonly clock?: Clock;
}

/** Both credentials on one app: what `createBridge` gives. */
export interface Bridge {
  /** Middleware that puts the principal into `ctx.state.principal`, or answers 400, 401 or 503. */
  authenticate(): Middleware;
  /** Middleware for routes that need a principal, and a scope where one is named: 401, 403. */
  require(options?: RequireOptions): Middleware;
  /** Middleware that serves the bridge's own paths; all others go on to the app. */
  routes(): Middleware;
  /** A store for the app's own koa-session, by cookie or by token; of the entry of koa-session with this name, by default of the first. */
  sessionStore(entry?: string): SessionStore;
  /** koa-session's option `externalKey`: with it and the store, `ctx.session` is there for requests with a token too. `authenticate()` must come before koa-session. */
  externalKey(): ExternalKey;
  /** Tokens at a login that the app has done without a session. */
  readonly issueFor: IssueFor;
  /**
   * Ends everything that was issued to a person before, on both sides: a changed password, a ban. Gives the number of sessions that tokens had been made from.
   * Sessions that the bridge never saw and whose record holds no time of the login stay the app's to end.
   * @throws {CrossfadeError} `temporarily_unavailable`: it may be half done, and must be tried again.
   */
  endSubject(subject: string, options: EndSubjectOptions): Promise<number>;
  /**
   * Calls `ended` once this session, or tokens made from it, were ended, by whichever instance: for WebSockets and event
   * streams. Given the principal, also where a session without tokens ends with its person. Gives what stops it.
   */
  onEnded(session: string | EndableSession, ended: () => void | Promise<void>): () => void;
  /** Middleware that serves the console at `/` and `/api/…` to operators: for a port of their own, as `crossfade serve` has. */
  operatorApi(): Middleware;
  readonly metrics: Metrics;
  /** What operators ask: keys, Redis, flags. Never throws. */
  readiness(): Promise<Readiness>;
  /** State of the signing keys. */
  signing(): SigningReport;
  /** Reads the key directory and tests every key now, instead of at the next change or interval. Never rejects. */
  reloadKeys(): Promise<void>;
  /**
   * Reads key files, flags and files with secrets now, and nothing else. `differs`: settings of the configuration on disk that are not those
   * in force; `status` names them until the next call. Never rejects.
   */
  reload(differs?: readonly string[]): Promise<void>;
  /** Ends watches and connections. Requests under way should have been answered before. */
  close(): Promise<void>;
}

/** How long the start waits for Redis before it goes on without. */
const REDIS_START_MS = 2000;
/** How long `/readyz` waits for the event stream while Redis answers. */
const EVENTS_START_MS = 60_000;
/** How often what was counted is written. */
const COUNT_MS = 5000;

/**
 * Config → a bridge: the one place where the parts meet. It comes up with broken keys, without Redis and without flags;
 * only a config that is wrong in itself stops it.
 * @throws {ConfigError} with every problem and its path.
 */
export async function createBridge(input: Config | ConfigInput, options: BridgeOptions = {}): Promise<Bridge> {
  const config = isResolved(input) ? input : resolveConfig(input);
  const unmapped = options.principal ? [] : unmappedSessions(config);
  if (unmapped.length > 0) throw new ConfigError('config', unmapped);
  const { clock: machine = systemClock, metrics = createMetrics() } = options;
  const log = options.log ? adoptLog(options.log) : createLog();
  const startedAt = performance.now();
  let settleClock: () => void = () => undefined;
  const clock = createFleetClock(machine, config.tokens.clockSkewSeconds * 1000, () => settleClock());
  const instance = systemRandom.token(9);
  const feed = createAuditFeed(createAudit(log), nameOfInstance({ host: hostname(), instance }), clock);
  const refusals = watchRefusals(feed.audit, clock);
  const { audit } = refusals;
  const problems = createProblems();
  problems.add(() => refusals.problems);

  let unapplied: readonly string[] = [];
  problems.add(() => (unapplied.length > 0 ? [`the configuration on disk differs in ${unapplied.join(', ')}: restart to apply`] : []));
  const files = followFiles({ log, audit });
  problems.add(() => files.problems);
  const connections = new Connections(config, files, log, metrics);
  problems.add(() => connections.problems);
  await connections.ready(REDIS_START_MS);
  const { own } = connections;
  let clockOffMs = () => 0;
  const isForced = options.force !== undefined;
  if (options.force) audit('start.forced', { why: options.force.why });
  const secrets = new FleetSecrets(config.fleetSecret.current);
  const secretFile = followFleetSecrets(files, config, secrets);
  const control = createControl({
    config,
    client: own.client,
    secrets,
    instance,
    isForced,
    fleetNowMs: () => machine.now() - clockOffMs(),
    audit,
    metrics,
  });
  await chooseAtStart(control, own);
  const { prefix, clamps } = control;
  const heard: Record<News, (wasLost: boolean) => void> = { keys: () => undefined, clamps: () => undefined };
  const lifecycle = createLifecycle({
    config,
    connections,
    files,
    secrets,
    isStranger: () => control.blocked.length > 0,
    principal: options.principal,
    onNews: (about, wasLost = false) => heard[about](wasLost),
    random: systemRandom,
    clock,
    log,
    audit,
    metrics,
  });
  const { sessions, ledger, logout, persons, resume, events, revocations, cookieSecrets } = lifecycle;
  const hearSecrets = () => void cookieSecrets.sync().catch(() => undefined); // Tried again at the next heartbeat.
  problems.add(() => cookieSecrets.problems);
  problems.add(() => lifecycle.nobodyKnown.problems);
  events.follow();

  const tell = (about: News) => void events.tell(about).catch(() => undefined); // The others hear of it at their next heartbeat.
  const subjectKey = secrets.names.traffic;
  const progress = createProgress({ client: own.client, prefix, clock });
  const traffic = createTraffic({ client: own.client, prefix, progress, subjectKey, clock });
  const guardrail = createGuardrail({
    config: config.rollout.guardrail,
    clamps,
    others: () => membership.fleet.others.map(({ windows, held }) => ({ windows, isHeld: held !== undefined })),
    isSound: (fault) => (fault === 'own-token-refused' || fault === 'signing' ? membership.signing.report().state === 'healthy' : own.canWrite),
    scopeOf: (cohort) => scopeOfCohort(config, cohort),
    announce: () => membership.fleet.announce(),
    tell: () => tell('clamps'),
    subjectKey,
    clock,
    log,
    audit,
    metrics,
  });
  async function hearRelease(): Promise<void> {
    const release = guardrail.held && (await control.fleet.readRelease(instance));
    if (release && release.heldAt === guardrail.held?.at) guardrail.release(release.why);
  }
  const hearClamps = (wasLost = false) =>
    void clamps
      .sync({ wasLost })
      .then(hearRelease)
      .then(() => membership.fleet.announceChanges())
      .catch(() => undefined); // Tried again at the next heartbeat.
  problems.add(() => clamps.unknown.map(describeUnknownClamp));
  problems.add(() => (guardrail.held ? [describeHold(guardrail.held)] : []));
  const flagSource = await openFlagSource(config, options.launchdarkly, { lastKnown: createLastKnownFlags(control.flags, log), log, audit, metrics });
  problems.add(() => (flagSource.problem === undefined ? [] : [flagSource.problem]));
  const lately = watchLately(metrics, () => clock.now());
  await lately.look();
  const membership = await createMembership({
    config,
    instance,
    control,
    isForced,
    revocations: {
      get wereRead() {
        return events.wasRead;
      },
      whatEnded: revocations.whatEnded,
    },
    describe: () => ({
      flags: flagSource.state,
      cohorts: traffic.lastMinute,
      windows: guardrail.windows,
      ...(lately.now ? { lately: lately.now } : {}),
      ...(events.readAt === undefined ? {} : { eventsReadAt: events.readAt }),
      ...(guardrail.held ? { held: guardrail.held } : {}),
    }),
    clampsDigest: () => clamps.digest,
    endedSecrets: () => cookieSecrets.ended,
    unknownClamps: () => clamps.unknown,
    problems,
    fleetNowMs: () => own.nowMs(),
    tellKeys: () => tell('keys'),
    onBeat() {
      void lately.look();
      void lifecycle.nodes.look();
      hearClamps();
      hearSecrets();
      void rotation.sync();
      guardrail.judge();
    },
    random: systemRandom,
    clock: machine,
    fleetClock: clock,
    log,
    audit,
    metrics,
  });
  // Also while Redis is away, so that everything is counted as of when it was.
  const counting = setInterval(() => void traffic.flush(), COUNT_MS);
  counting.unref();
  const { signing, fleet } = membership;
  settleClock = membership.settleClock;
  clockOffMs = () => fleet.clockOffMs ?? 0;
  heard.keys = () => {
    void signing.reload();
    hearSecrets();
    void rotation.sync();
  };
  const rotation = createSecretRotation({
    secrets,
    denied: control.deniedSecrets,
    values: control.values,
    others: () => fleet.others,
    strangers: () => fleet.strangers,
    connection: own,
    prefix,
    ends: {
      writePersons: async (goesOn) => await writePersonsAnew({ connection: own, prefix, secrets, goesOn }),
      writeSessions: async (goesOn) => await writeSessionsAnew({ connection: own, prefix, secrets, goesOn }),
    },
    writeCookieSecrets: cookieSecrets.sync,
    writeEvents: events.writeAgain,
    forgetLearned() {
      membership.ring.forgetStored();
      void signing.reload();
    },
    onChange: () => fleet.announceChanges(),
    random: systemRandom,
    log,
    audit,
  });
  problems.add(() => rotation.problems);
  problems.add(() => membership.blocked);
  secretFile.onChange(() => void rotation.sync());
  files.onChange(() => {
    membership.readSettings();
    fleet.announceChanges();
  });
  cookieSecrets.onChange(() => fleet.announceChanges());
  cookieSecrets.onNews(() => tell('keys'));
  heard.clamps = () => {
    hearClamps();
    // Whoever has told waits to see that it was heard.
    fleet.announce();
  };

  const flags = createFlags({ config: config.rollout, source: flagSource, subjectKey: secrets.names.subject, log, metrics });
  problems.add(() => flags.problems);
  const clients = createClientRegistry(config.clients, config.rollout.cohorts);
  const rollout = createRollout({
    config: config.rollout,
    flags,
    clients,
    clamps,
    traffic,
    canSign: () => signing.canSign && membership.blocked.length === 0 && !clock.inDoubt && !guardrail.held,
    fleetSize: () => fleet.size,
    nowMs: () => clock.now(),
  });

  const fleetAudit = createFleetAudit({ client: own.client, prefix, secrets, feed });
  const source = {
    config,
    control,
    client: own.client,
    nowMs: async () => await own.nowMs(),
    redisProblems: () => connections.problems,
    tell: async () => {
      hearClamps();
      await events.tell('clamps');
    },
  };

  const endpoints = createEndpoints({
    config,
    client: own.client,
    hasMappingFunction: options.principal !== undefined,
    canWrite: () => own.canWrite,
    files,
    prefix,
    lifecycle,
    membership,
    problems,
    rollout,
    progress,
    clients,
    guardrail,
    source,
    fleetAudit,
    expected: options.observe?.expected,
    clock,
    log,
    audit,
    metrics,
  });
  const names = createTokenSessionNames(systemRandom.token(16));
  await clamps.sync().catch(() => undefined);
  cookieSecrets.join();
  await cookieSecrets.sync().catch(() => undefined);
  await fleet.start();
  await events.read((await own.ready(0)) ? REDIS_START_MS : 0);

  return {
    authenticate: endpoints.authenticate,
    require: endpoints.require,
    routes: endpoints.routes,
    issueFor: endpoints.issueFor,
    operatorApi: endpoints.operatorApi,
    sessionStore(name) {
      const session = config.sessions.find((known) => known.format === 'koa-session' && (name === undefined || known.name === name));
      const entry = lifecycle.entries.find((known) => known.name === session?.name);
      if (!session || !entry)
        throw new TypeError(
          name === undefined ? 'no sessions of koa-session are configured' : `sessions: there is no entry of koa-session named ${name}`,
        );
      const { client } = connections.of(session);
      return createSessionStore({ entry, client, keyPrefix: session.keyPrefix, sessions, ledger, logout, resume, names, clock, log, metrics });
    },
    externalKey: () => createExternalKey(names),
    endSubject: async (subject, request) => await persons.end(subject, request),
    onEnded: revocations.onEnded,
    metrics,
    async readiness() {
      const ofRecords = [...connections.ofRecords];
      await Promise.all([own, ...ofRecords].map(async (connection) => await connection.probe()));
      const unread = ofRecords.find(({ canRead }) => !canRead);
      // Until it was read no bearer can be judged. It is given up where Redis is away, and after a minute.
      const waitsForEvents = !events.wasRead && own.canRead && performance.now() - startedAt < EVENTS_START_MS;
      const ready = !unread && !waitsForEvents && !membership.hasSkipped;
      const { state, canSign, problems: ofKeys } = signing.report();
      return {
        ready,
        canIssue: ready && own.canWrite && canSign && membership.blocked.length === 0 && !clock.inDoubt && !guardrail.held,
        parts: {
          redis: own.state,
          records: unread?.state ?? 'up',
          signing: state,
          flags: flagSource.state,
          events: events.wasRead ? 'read' : 'unread',
        },
        problems: [...new Set([...ofKeys, ...membership.blocked, ...connections.problems])],
      };
    },
    signing: () => signing.report(),
    reloadKeys: () => signing.reload(),
    async reload(differs = []) {
      unapplied = differs;
      files.rereadAll();
      await Promise.all([signing.reload(), flagSource.reload()]);
      fleet.announceChanges();
    },
    async close() {
      clearInterval(counting);
      rotation.close();
      await fleet.close();
      await signing.close();
      await flagSource.close();
      fleetAudit.close();
      lifecycle.close();
      connections.close();
      files.close();
    },
  };
}
