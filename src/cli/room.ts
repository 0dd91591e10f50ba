import { hostname } from 'node:os';
import { type Clock, createRedisClock, systemClock } from '../clock.js';
import { followFiles } from '../compose/files.js';
import { createLifecycle, type Lifecycle } from '../compose/lifecycle.js';
import { type Control, createControl } from '../compose/stored.js';
import type { Config, RedisTarget } from '../config/config.js';
import { loadConfig } from '../config/load.js';
import type { ClampSource } from '../console/clamping.js';
import { createFleetAudit } from '../console/fleet-audit.js';
import { CrossfadeError } from '../errors.js';
import { chooseAtStart } from '../fleet/secret-file.js';
import { systemRandom } from '../random.js';
import type { RedisConnection } from '../redis/connection.js';
import { Connections } from '../redis/connections.js';
import { FleetSecrets } from '../redis/fleet-keyring.js';
import type { ProbeKind } from '../redis/probe.js';
import { connectRedis } from '../redis/probed-connection.js';
import { type Audit, createAudit } from '../telemetry/audit.js';
import { createAuditFeed } from '../telemetry/audit-feed.js';
import { createLog } from '../telemetry/log.js';
import { createMetrics, type Metrics } from '../telemetry/metrics.js';

/** What commands have that go to Redis themselves, so that they work whether or not an instance answers. */
export interface Room extends ClampSource {
  /** Notes what the command has done that stays done, a sentence each: said where it fails after that. */
  readonly did: (what: string) => void;
  readonly control: Control;
  readonly lifecycle: Lifecycle;
  readonly connections: Connections;
  readonly clock: Clock;
  /** What a person did from here: for the audit of the fleet, and with --json a line on standard error as well. */
  readonly audit: Audit;
  readonly metrics: Metrics;
}

/** A connection of a command's own, which says nothing by itself: the command does. */
export function connectQuietly(
  target: RedisTarget,
  options: { readonly name: string; readonly commandTimeoutMs: number; readonly probe: ProbeKind; readonly probeKey: string },
): RedisConnection {
  const quiet = { log: createLog({ level: 'silent' }), metrics: createMetrics() };
  return connectRedis(target, { ...options, ...quiet });
}

/** How long Redis may take to answer at first. */
const REDIS_START_MS = 3000;

/** How long a command may take before an operator is told that Redis does not answer. */
const COMMAND_TIMEOUT_MS = 10_000;

/** What a command was told. */
export interface RoomOptions {
  /** Path of the configuration. */
  readonly config: string;
  /** Whether a program reads what it says: no line of the audit stands among words. */
  readonly json?: boolean | undefined;
}

/**
 * `changes`: whether the command changes anything; what it begins may be done again, and is not done twice.
 * @throws {Error} in words for an operator where Redis does not answer, which say what was done and what to do.
 */
export async function withRoom<T>(
  { config: path, json = false }: RoomOptions,
  work: (room: Room) => Promise<T>,
  { changes = false } = {},
): Promise<T> {
  const loaded = await loadConfig(path);
  // An operator would rather wait than read that a busy machine was too slow for a request.
  const config: Config = { ...loaded, redis: { ...loaded.redis, commandTimeoutMs: Math.max(COMMAND_TIMEOUT_MS, loaded.redis.commandTimeoutMs) } };
  const quiet = createLog({ level: 'silent' });
  // The machine of an operator may have any time: what counts is that of Redis.
  const clock = createRedisClock(systemClock);
  const feed = createAuditFeed(createAudit(json ? createLog({ destination: process.stderr }) : quiet), `${hostname()} (command)`, clock);
  const { audit } = feed;
  const metrics = createMetrics();
  const tools = { clock, random: systemRandom, log: quiet, audit, metrics };
  const files = followFiles(tools);
  const connections = new Connections(config, files, quiet, metrics);
  await connections.ready(REDIS_START_MS);
  const { own } = connections;
  let begun = false;
  const done: string[] = [];
  const secrets = new FleetSecrets(config.fleetSecret.current);
  const control = createControl({ ...tools, config, client: own.client, secrets, fleetNowMs: clock.now });
  const lifecycle = createLifecycle({ ...tools, config, connections, files, secrets, belonging: control.belonging });
  const fleetAudit = createFleetAudit({ client: own.client, prefix: control.prefix, secrets, feed });
  try {
    clock.measured(systemClock.now() - (await own.nowMs()));
    // Commands write with the secret that the fleet writes with.
    await chooseAtStart(control, own);
    await control.settle();
    begun = true;
    return await work({
      config,
      did: (what) => void done.push(what),
      control,
      client: own.client,
      lifecycle,
      connections,
      clock,
      audit,
      metrics,
      nowMs: async () => await own.nowMs(),
      redisProblems: () => connections.problems,
      tell: async () => await lifecycle.publisher.tell('clamps'),
    });
  } catch (error) {
    const unreadable = describeUnreadable(error);
    const why = unreadable ?? (await whyNot(own, error));
    if (why === undefined) throw error;
    const outcome = !begun
      ? 'nothing was done.'
      : done.length > 0
        ? done.join(' ')
        : changes
          ? 'it may be half done. Run the same again.'
          : 'nothing was done.';
    throw new Error(unreadable === undefined ? `Redis does not answer (${why}): ${outcome}` : `${unreadable}: ${outcome}`);
  } finally {
    await fleetAudit.flush();
    fleetAudit.close();
    lifecycle.close();
    connections.close();
    files.close();
  }
}

/** The same for a command that changes something. @throws {Error} also where the running instances would not open what it writes. */
export async function changeInRoom<T>(options: RoomOptions, work: (room: Room) => Promise<T>): Promise<T> {
  const changing = async (room: Room) => {
    if (room.control.belonging.isUnheard())
      throw new Error(`${room.control.blocked.join('; ')}: nothing was done. Run this with the fleetSecretFile of the running instances`);
    return await work(room);
  };
  return await withRoom(options, changing, { changes: true });
}

/** What Redis holds of what the command is about, and this configuration or release does not open. */
function describeUnreadable(error: unknown): string | undefined {
  if (!(error instanceof CrossfadeError)) return undefined;
  if (error.reason === 'secret')
    return 'Redis holds what stands under a fleet secret that is not in fleetSecretFile (take the file of the running instances)';
  return error.reason === 'release' ? 'Redis holds what a later release wrote (take the command of that release)' : undefined;
}

/** With host and cause, where the connection knows them: one node of a Cluster may be away. */
async function whyNot(own: RedisConnection, error: unknown): Promise<string | undefined> {
  const ofError = whyOf(error);
  if (ofError !== undefined) await own.probe();
  const known = ofError === undefined ? [] : own.problems;
  // That a part of the slots is not served is what follows from it.
  const problem = known.find((one) => !one.includes('CLUSTERDOWN')) ?? known[0];
  return own.problem() ?? problem?.replace(/^\w+: (?:Redis )?/, '') ?? ofError;
}

/** What of a failure is Redis' own; undefined: it is another one, which says for itself what it is. */
function whyOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if (error instanceof CrossfadeError) return error.code === 'temporarily_unavailable' ? (whyOf(error.cause) ?? 'it cannot be known now') : undefined;
  if (error.message === 'Command timed out') return `no answer within ${COMMAND_TIMEOUT_MS / 1000} s`;
  if (/^(Connection is closed|Stream isn't writeable|Redis is connected and cannot be used)/.test(error.message)) return 'the connection was lost';
  return error.name === 'ReplyError' ? error.message.split(' ')[0] : undefined;
}
