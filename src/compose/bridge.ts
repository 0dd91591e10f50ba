import { hostname } from 'node:os';
import { createExternalKey } from '../adapters/external-key.js';
import { createTokenSessionNames } from '../adapters/session-store.js';
import { createFleetClock, createRedisClock, systemClock } from '../clock.js';
import { type Config, ConfigError, type ConfigInput } from '../config/config.js';
import { unmappedSessions } from '../config/cross-checks.js';
import { isResolved, resolveConfig } from '../config/load.js';
import { createFleetAudit } from '../console/fleet-audit.js';
import type { News } from '../endings/event.js';
import { writePersonsAnew, writeSessionsAnew } from '../endings/rewrite-under-secret.js';
import { nameOfInstance } from '../fleet/announcement.js';
import type { Describe } from '../fleet/fleet.js';
import { chooseAtStart, followFleetSecrets } from '../fleet/secret-file.js';
import { createSecretRotation } from '../fleet/secret-rotation.js';
import { systemRandom } from '../random.js';
import { Connections } from '../redis/connections.js';
import { FleetSecrets } from '../redis/fleet-keyring.js';
import { describeUnknownClamp, scopeOfCohort } from '../rollout/clamp.js';
import { createClientRegistry } from '../rollout/clients.js';
import { openFlagSource } from '../rollout/flag-source.js';
import { createFlags } from '../rollout/flags.js';
import { createGuardrail, describeInstanceHold } from '../rollout/guardrail.js';
import { createLastKnownFlags } from '../rollout/last-known.js';
import { createProgress } from '../rollout/progress.js';
import { createRollout } from '../rollout/rollout.js';
import { createTraffic } from '../rollout/traffic.js';
import { createAudit } from '../telemetry/audit.js';
import { createAuditFeed } from '../telemetry/audit-feed.js';
import { watchLately } from '../telemetry/lately.js';
import { adoptLog, createLog } from '../telemetry/log.js';
import { createMetrics } from '../telemetry/metrics.js';
import { createProblems } from '../telemetry/problems.js';
import { watchRefusals } from '../telemetry/refusals.js';
import { createEndpoints } from './endpoints.js';
import { followFiles } from './files.js';
import { createMembership } from './fleet.js';
import { createLifecycle } from './lifecycle.js';
import type { Bridge, BridgeOptions } from './public.js';
import { createReadiness } from './readiness.js';
import { createSessionStores } from './session-stores.js';
import { createControl } from './stored.js';

/** How long the start waits for Redis before it goes on without. */
const REDIS_START_MS = 2000;
/** How often what was counted is written. */
const COUNT_MS = 5000;

/**
 * Config → a bridge: the one place where the parts meet. First they are made, each of those before it; then they hear of each other; then
 * they start. It comes up with broken keys, without Redis and without flags; only a config that is wrong in itself stops it.
 * @throws {ConfigError} with every problem and its path.
 */
export async function createBridge(input: Config | ConfigInput, options: BridgeOptions = {}): Promise<Bridge> {
  const config = isResolved(input) ? input : resolveConfig(input);
  const unmapped = options.principal ? [] : unmappedSessions(config);
  if (unmapped.length > 0) throw new ConfigError('config', unmapped);
  const { clock: machine = systemClock, metrics = createMetrics() } = options;
  const log = options.log ? adoptLog(options.log) : createLog();
  const startedAt = performance.now();
  const clock = createFleetClock(machine, config.tokens.clockSkewSeconds * 1000);
  const redisClock = createRedisClock(machine);
  const random = systemRandom;
  const instance = random.token(9);
  const feed = createAuditFeed(createAudit(log), nameOfInstance({ host: hostname(), instance }), clock);
  const refusals = watchRefusals(feed.audit, clock);
  const { audit } = refusals;
  const tools = { clock, random, log, audit, metrics };
  const problems = createProblems();
  const files = followFiles(tools);
  const connections = new Connections(config, files, log, metrics);
  await connections.ready(REDIS_START_MS);
  const { own } = connections;
  const isForced = options.force !== undefined;
  if (options.force) audit('start.forced', { why: options.force.why });
  const secrets = new FleetSecrets(config.fleetSecret.current);
  const secretFile = followFleetSecrets(files, config, secrets);
  const control = createControl({ ...tools, config, client: own.client, secrets, instance, isForced, fleetNowMs: redisClock.now });
  await chooseAtStart(control, own);
  const { prefix, clamps } = control;
  const lifecycle = createLifecycle({ ...tools, config, connections, files, secrets, belonging: control.belonging, principal: options.principal });
  const { persons, events, publisher, revocations, cookieSecrets } = lifecycle;
  const tell = (about: News) => void publisher.tell(about).catch(() => undefined); // The others hear of it at their next heartbeat.

  const membership = createMembership({
    ...tools,
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
    clampsDigest: () => clamps.digest,
    endedSecrets: () => cookieSecrets.ended,
    unknownClamps: () => clamps.unknown,
    problems,
    fleetNowMs: async () => await own.nowMs(),
    tellKeys: () => tell('keys'),
    clock: machine,
    fleetClock: clock,
    redisClock,
  });
  const { signing, fleet, ring } = membership;
  const subjectKey = secrets.names.traffic;
  const progress = createProgress({ client: own.client, prefix, clock });
  const traffic = createTraffic({ client: own.client, prefix, progress, subjectKey, clock });
  const guardrail = createGuardrail({
    ...tools,
    config: config.rollout.guardrail,
    clamps,
    others: () => fleet.others.map(({ windows, held }) => ({ windows, isHeld: held !== undefined })),
    hearOthers: async () => await fleet.hearOthers(async () => await publisher.tell('clamps')),
    knowsTime: () => !clock.inDoubt && !clock.isUnchecked,
    isSound: (fault) => (fault === 'own-token-refused' || fault === 'signing' ? signing.report().state === 'healthy' : own.canWrite),
    scopeOf: (cohort) => scopeOfCohort(config, cohort),
    announce: fleet.announce,
    tell: () => tell('clamps'),
    subjectKey,
  });
  const rotation = createSecretRotation({
    ...tools,
    secrets,
    denied: control.deniedSecrets,
    values: control.values,
    others: () => fleet.others,
    lookForOthers: fleet.read,
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
      ring.forgetStored();
      cookieSecrets.forgetRevoked();
      void signing.reload();
    },
    onChange: fleet.announceChanges,
  });
  const flagSource = await openFlagSource(config, options.launchdarkly, { ...tools, lastKnown: createLastKnownFlags(control.flags, log) });
  const flags = createFlags({ config: config.rollout, source: flagSource, subjectKey: secrets.names.subject, log, metrics });
  const clients = createClientRegistry(config.clients, config.rollout.cohorts);
  const rollout = createRollout({
    config: config.rollout,
    flags,
    clients,
    clamps,
    traffic,
    canSign: () => signing.canSign && membership.blocked.length === 0 && !clock.inDoubt && !guardrail.held,
  });
  const lately = watchLately(metrics, () => clock.now());

  async function hearRelease(): Promise<void> {
    const release = guardrail.held && (await control.fleet.readRelease(instance));
    if (release && release.heldAt === guardrail.held?.at) guardrail.release(release.why);
  }
  const hearClamps = (wasLost = false) =>
    void clamps
      .sync({ wasLost })
      .then(hearRelease)
      .then(fleet.announceChanges)
      .catch(() => undefined); // Tried again at the next heartbeat.
  const hearSecrets = () => void cookieSecrets.sync().catch(() => undefined); // Tried again at the next heartbeat.
  events.onNews((about, wasLost) => {
    if (about === 'keys') {
      void signing.reload();
      hearSecrets();
      void rotation.sync();
    } else {
      hearClamps(wasLost);
      // Whoever has told waits to see that it was heard.
      fleet.announce();
    }
  });
  fleet.onBeat(() => {
    void lately.look();
    void lifecycle.nodes.look();
    hearClamps();
    hearSecrets();
    void rotation.sync();
    guardrail.judge();
  });
  secretFile.onChange(() => void rotation.sync());
  files.onChange(() => {
    membership.readSettings();
    fleet.announceChanges();
  });
  cookieSecrets.onChange(fleet.announceChanges);
  cookieSecrets.onNews(() => tell('keys'));
  let unapplied: readonly string[] = [];
  problems.add(
    () => refusals.problems,
    () => (unapplied.length > 0 ? [`the configuration on disk differs in ${unapplied.join(', ')}: restart to apply`] : []),
    () => files.problems,
    () => connections.problems,
    () => cookieSecrets.problems,
    () => lifecycle.nobodyKnown.problems,
    () => clamps.unknown.map(describeUnknownClamp),
    () => (guardrail.held ? [describeInstanceHold(guardrail.held)] : []),
    () => (flagSource.problem === undefined ? [] : [flagSource.problem]),
    () => rotation.problems,
    () => membership.blocked,
    () => flags.problems,
  );

  const fleetAudit = createFleetAudit({ client: own.client, prefix, secrets, feed });
  const endpoints = createEndpoints({
    ...tools,
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
    source: {
      config,
      control,
      client: own.client,
      nowMs: async () => await own.nowMs(),
      redisProblems: () => connections.problems,
      tell: async () => {
        hearClamps();
        await publisher.tell('clamps');
      },
    },
    fleetAudit,
    expected: options.observe?.expected,
  });
  const describe: Describe = () => ({
    flags: flagSource.state,
    cohorts: traffic.lastMinute,
    windows: guardrail.windows,
    ...(lately.now ? { lately: lately.now } : {}),
    ...(events.readAt === undefined ? {} : { eventsReadAt: events.readAt }),
    ...(guardrail.held ? { held: guardrail.held } : {}),
  });
  const names = createTokenSessionNames(random.token(16));

  events.follow();
  await lately.look();
  await membership.meet();
  await clamps.sync().catch(() => undefined);
  await membership.start();
  // Also while Redis is away, so that everything is counted as of when it was.
  const counting = setInterval(() => void traffic.flush(), COUNT_MS);
  counting.unref();
  cookieSecrets.join();
  await cookieSecrets.sync().catch(() => undefined);
  await fleet.start(describe);
  await events.read((await own.ready(0)) ? REDIS_START_MS : 0);

  return {
    authenticate: endpoints.authenticate,
    require: endpoints.require,
    routes: endpoints.routes,
    connect: endpoints.connect,
    answer: endpoints.answer,
    issueFor: endpoints.issueFor,
    operatorApi: endpoints.operatorApi,
    sessionStore: createSessionStores({ ...tools, config, connections, lifecycle, names }),
    externalKey: () => createExternalKey(names),
    endSubject: async (subject, request) => await persons.end(subject, request),
    onEnded: revocations.onEnded,
    metrics,
    readiness: createReadiness({ connections, events, membership, guardrail, flagSource, clock, startedAt }),
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
