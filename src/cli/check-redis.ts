import { Cluster } from 'ioredis';
import { createControl } from '../compose/stored.js';
import type { Config, ConfigProblem as Finding, RedisTarget } from '../config/config.js';
import { whyNoEpoch } from '../endings/store-epoch.js';
import { type Announcement, namesOf } from '../fleet/announcement.js';
import { describeGroup, digestSettings, findDrift } from '../fleet/drift.js';
import { toMember } from '../fleet/fleet.js';
import { describeStrangers } from '../fleet/store.js';
import { acceptsAudience, majorityAgainst } from '../keys/rotation.js';
import { describeDifference } from '../keys/signing.js';
import type { RedisClient } from '../redis/client.js';
import { FleetSecrets } from '../redis/fleet-keyring.js';
import { ownProbeKey, recordsProbeKey } from '../redis/probe.js';
import { createMetrics } from '../telemetry/metrics.js';
import { connectQuietly } from './room.js';

/** Findings need a fix. Notes only inform. */
export interface Checked {
  readonly findings: readonly Finding[];
  readonly notes: readonly Finding[];
}

/** Whether each Redis that the configuration names answers, takes what it is given, keeps it, and fits the fleet that is alive. */
export async function checkRedis(config: Config): Promise<Checked> {
  const { keyPrefix } = config.redis;
  const targets: CheckedRedis[] = [
    { at: 'redis', target: config.redis, probeKey: ownProbeKey(keyPrefix), records: config.sessions.some(({ redis, http }) => !redis && !http) },
  ];
  config.sessions.forEach(({ redis, keyPrefix: before }, index) => {
    if (redis) targets.push({ at: `sessions[${index}].redis`, target: redis, probeKey: recordsProbeKey(before), records: true });
  });
  const plain = targets.filter(({ target }) => target.hasPlainPassword).map(({ at }) => ({ path: `${at}.url`, message: PLAIN_PASSWORD }));
  const found = await Promise.all(targets.map((one) => checkOneRedis(one, config)));
  return { findings: [...plain, ...found.flatMap(({ findings }) => findings)], notes: found.flatMap(({ notes }) => notes) };
}

const PLAIN_PASSWORD = 'holds a password, which everyone reads who may read the configuration: put it into passwordFile, or the URL into urlFile';

interface CheckedRedis {
  readonly at: string;
  readonly target: RedisTarget;
  readonly probeKey: string;
  /** Whether it holds records. */
  readonly records: boolean;
}

async function checkOneRedis({ at, target, probeKey, records }: CheckedRedis, config: Config): Promise<Checked> {
  // As the bridge does every 2 s: its own Redis must take writes, a store of records need not.
  const probe = at === 'redis' ? 'write' : 'role';
  const connection = connectQuietly(target, { name: at, commandTimeoutMs: 2000, probe, probeKey });
  const only = (message: string): Checked => ({ findings: [{ path: at, message }], notes: [] });
  try {
    const isReady = await connection.ready(3000);
    if (isReady) await connection.probe();
    // Of a bridge that runs it would say that there was a failover.
    if (connection.state === 'READONLY') return only(IS_REPLICA);
    if (!isReady) {
      const problem = connection.problem();
      return only(problem === undefined ? 'Redis does not answer' : `Redis does not answer (${problem})`);
    }
    const { client } = connection;
    const wrong = connection.problems.map((problem) => ({ path: at, message: problem.replace(`${at}: `, '') }));
    const nodes = client instanceof Cluster ? client.nodes('master') : [client];
    const [node] = nodes;
    if (!node) return only('the Redis Cluster has no master');
    const infos = await Promise.all(nodes.map(async (one) => await one.info()));
    const found = [...wrong, ...unique(infos.flatMap((info) => checkNode(at, info, client instanceof Cluster)))];
    const [seconds = '0'] = await node.time();
    const skew = Math.abs(Number(seconds) - Date.now() / 1000);
    if (skew > config.tokens.clockSkewSeconds) found.push({ path: at, message: `the clock here and that of Redis are ${Math.round(skew)} s apart` });
    if (at === 'redis') found.push(...(await checkFleet(config, client, await connection.nowMs())));
    const notes = at === 'redis' && infos.some(mayLoseWrites) ? [{ path: at, message: MAY_LOSE }] : [];
    return { findings: [...found, ...(records ? await checkTracking(at, client) : [])], notes };
  } catch (error) {
    // One node of a Cluster may be why, and the connection knows which.
    await connection.probe();
    const known = connection.problems.map((problem) => ({ path: at, message: problem.replace(`${at}: `, '') }));
    return known.length > 0 ? { findings: known, notes: [] } : only(`Redis refuses: ${error instanceof Error ? error.message : 'unknown error'}`);
  } finally {
    connection.close();
  }
}

/** It replicates, and answers before a replica has what was written. INFO has the number of good replicas only where the setting is above 0. */
function mayLoseWrites(info: string): boolean {
  return /^connected_slaves:[1-9]/m.test(info) && !/^min_slaves_good_slaves:/m.test(info);
}

const MAY_LOSE =
  'it replicates, and min-replicas-to-write is 0: a failover loses the last writes. Refreshes go on after it; a logout of these moments is written again while an instance that knows it lives (docs/operations.md)';

/** Whether an instance with this configuration would fit those that are alive. */
async function checkFleet(config: Config, client: RedisClient, nowMs: number): Promise<Finding[]> {
  const secrets = new FleetSecrets(config.fleetSecret.current);
  const { fleet } = createControl({ config, client, secrets, fleetNowMs: () => nowMs, audit: () => undefined, metrics: createMetrics() });
  const { live, strangers } = await fleet.read(nowMs);
  const { issuer, audience } = config;
  const self = { instance: 'check', host: 'here', startedAt: nowMs, issuer, audience, verifies: [], accepts: [], clockOffMs: 0, hasKeys: true };
  const most = majorityAgainst(self, live.map(toMember));
  const nameOf = namesOf(live);
  const notYet = audience.flatMap((one) => {
    const missing = live.filter((other) => !acceptsAudience(other, issuer, one)).map(nameOf);
    return missing.length > 0
      ? [{ path: 'audience', message: `no token would be issued for ${one} until ${missing.join(', ')} accept it as well` }]
      : [];
  });
  return [
    // Who signs for another issuer accepts none of these.
    ...(most ? [{ path: 'issuer', message: describeDifference(self, most) }] : notYet),
    ...describeStrangers(strangers).map((message) => ({ path: 'fleetSecretFile', message })),
    ...driftOf(config, secrets, live),
  ];
}

/** Settings that are not those of the live instances. */
function driftOf(config: Config, secrets: FleetSecrets, live: readonly Announcement[]): Finding[] {
  const here = { name: 'here', settings: digestSettings(secrets.names.settings, config.readWritten()) };
  const nameOf = namesOf(live);
  const drift = findDrift([here, ...live.map((one) => ({ name: nameOf(one), settings: one.settings }))]);
  return drift.map((one) => ({ path: one.setting, message: `differs: ${one.groups.map(describeGroup).join(' / ')}` }));
}

/** Whether a logout that the legacy app does alone can be noticed at once, and told from an eviction. */
async function checkTracking(at: string, client: RedisClient): Promise<Finding[]> {
  const found: Finding[] = [];
  const message = await whyNoEpoch(client);
  if (message !== undefined) found.push({ path: at, message });
  if (client instanceof Cluster) return found;
  await client.client('TRACKING', 'ON').catch(() => {
    found.push({
      path: at,
      message:
        'Redis does not let this user ask CLIENT TRACKING: a logout that the legacy app does alone is noticed at the next refresh, not at once',
    });
  });
  return found;
}

function checkNode(at: string, info: string, isCluster: boolean): Finding[] {
  const facts = new Map(
    info
      .split(/\r?\n/)
      .flatMap((line) => (line.includes(':') ? [[line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)] as const] : [])),
  );
  const found: Finding[] = [];
  const version = facts.get('redis_version');
  const [major = 0, minor = 0] = (version ?? '').split('.').map(Number);
  if (version !== undefined && (major < 6 || (major === 6 && minor < 2)))
    found.push({ path: at, message: `Redis ${version} is too old; 6.2 or newer is needed` });
  const policy = facts.get('maxmemory_policy');
  if (at === 'redis' && policy !== undefined && policy !== 'noeviction') {
    found.push({
      path: at,
      message: `maxmemory-policy is ${policy}: the bridge's own keys must not be evicted; use noeviction, and sessions[].redis for records elsewhere`,
    });
  }
  if (facts.get('role') === 'slave') found.push({ path: at, message: IS_REPLICA });
  if (!isCluster && facts.get('redis_mode') === 'cluster') {
    found.push({ path: at, message: 'it is a node of a Cluster: name it in cluster instead of url' });
  }
  if (facts.get('loading') === '1') found.push({ path: at, message: 'Redis is still loading its data' });
  return found;
}

const IS_REPLICA = "it is a replica, which takes no writes: use the primary's endpoint";

function unique(findings: readonly Finding[]): Finding[] {
  return findings.filter(({ message }, at) => findings.findIndex((other) => other.message === message) === at);
}
