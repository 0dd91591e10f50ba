import { readFile } from 'node:fs/promises';
import { Cluster } from 'ioredis';
import { systemClock } from '../clock.js';
import { type Config, ConfigError, type ConfigProblem, type RedisTarget } from '../config/config.js';
import { unmappedSessions } from '../config/cross-checks.js';
import { loadConfig } from '../config/load.js';
import { deriveKey } from '../config/secret.js';
import { createFleetStore } from '../fleet/fleet.js';
import { serveJwks } from '../keys/jwks.js';
import { loadKeyDirectory } from '../keys/load.js';
import { majorityAgainst } from '../keys/rotation.js';
import { selfTest } from '../keys/self-test.js';
import { describeDifference } from '../keys/signing.js';
import { describeStrangers } from '../membership.js';
import { connectRedis, type RedisClient } from '../redis/connection.js';
import { readFlagFile } from '../rollout/flag-file.js';
import { isStage } from '../rollout/stage.js';
import { createLog } from '../telemetry/log.js';
import { createMetrics } from '../telemetry/metrics.js';
import { createIssuer } from '../tokens/issue.js';
import { createProbe } from '../tokens/probe.js';
import { print } from './print.js';

export interface CheckOptions {
  readonly config: string;
  readonly json?: boolean;
}

/** One thing that would go wrong: where, and what to do. */
export type Finding = ConfigProblem;

/** `crossfade check`: 0 clean, 1 findings, 2 unreadable config. */
export async function check({ config: path, json = false }: CheckOptions): Promise<number> {
  let findings: readonly Finding[];
  let notes: readonly Finding[] = [];
  let unreadable = false;
  try {
    const config = await loadConfig(path);
    findings = [
      ...unmappedSessions(config),
      ...checkCookies(config),
      ...checkPaths(config),
      ...(await checkKeys(config)),
      ...(await checkFlags(config)),
      ...(await checkRedis(config)),
    ];
    notes = noteClusters(config);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    findings = error.problems;
    unreadable = error.code === 'config_unreadable';
  }
  if (json) print.json({ config: path, clean: findings.length === 0, findings, notes });
  else if (findings.length === 0) print.line(`${path}: nothing to find fault with.`);
  else {
    print.line(`${path}: ${findings.length === 1 ? '1 finding' : `${findings.length} findings`}`);
    for (const { path: at, message } of findings) print.line(`  ${at === '' ? '' : `${at}: `}${message}`);
  }
  if (!json) for (const { path: at, message } of notes) print.line(`  note: ${at}: ${message}`);
  return unreadable ? 2 : findings.length > 0 ? 1 : 0;
}

/** Whether the browser sends the app's cookie to the bridge. */
function checkCookies(config: Config): Finding[] {
  const host = new URL(config.issuer).hostname;
  return config.sessions.flatMap((session, index) => {
    const { domain, secure, sameSite } = session.cookieOptions;
    const at = `sessions[${index}].cookieOptions`;
    const covers = (name: string) => (domain === undefined ? name === host : name === bare(domain) || name.endsWith(`.${bare(domain)}`));
    const found: Finding[] = [];
    if (!covers(host)) found.push({ path: `${at}.domain`, message: `a cookie for ${domain} does not reach the issuer's host ${host}` });
    if (sameSite === 'none' && !secure) found.push({ path: at, message: 'browsers refuse sameSite: none without secure: true' });
    for (const client of config.clients.filter(({ exchanges, refreshTransport }) => exchanges && refreshTransport === 'cookie')) {
      for (const origin of client.origins.filter((known) => /^https?:/.test(known) && !covers(new URL(known).hostname))) {
        found.push({
          path: `clients.${client.id}.origins`,
          message: `${origin} is another host than ${host}: the cookie ${session.cookie} may not be sent from there`,
        });
      }
    }
    return found;
  });
}

function bare(domain: string): string {
  return domain.replace(/^\./, '').toLowerCase();
}

function checkPaths({ http, sessions, redis }: Config): Finding[] {
  const found: Finding[] = [];
  sessions.forEach(({ keyPrefix, cookieOptions }, index) => {
    if (keyPrefix !== '' && keyPrefix.startsWith(redis.keyPrefix)) {
      found.push({
        path: `sessions[${index}].keyPrefix`,
        message: `starts with redis.keyPrefix (${redis.keyPrefix}): no session would be read, since those keys are the bridge's own`,
      });
    }
    if (cookieOptions.path !== '/' && !http.basePath.startsWith(cookieOptions.path)) {
      found.push({ path: `sessions[${index}].cookieOptions.path`, message: `a cookie for ${cookieOptions.path} is not sent to ${http.basePath}` });
    }
  });
  return found;
}

async function checkKeys(config: Config): Promise<Finding[]> {
  const at = 'keys.directory';
  const { keys, rejected } = await loadKeyDirectory(config.keys);
  if (config.keys.use === 'verify' && keys.length === 0) return [];
  const found: Finding[] = rejected.map(({ file, reason }) => ({ path: at, message: `${file} ${reason}` }));
  const policy = { issuer: config.issuer, audience: config.audience, clockSkewSeconds: config.tokens.clockSkewSeconds };
  const random = { token: () => 'check', fraction: () => 0 };
  const issueAccessToken = createIssuer({ ...config.tokens, issuer: config.issuer, clock: systemClock, random });
  const probe = createProbe(policy, issueAccessToken, systemClock);
  for (const key of keys) {
    const reason = await selfTest(key, serveJwks(keys.map(({ publicJwk }) => publicJwk)).body, probe);
    if (reason !== undefined) found.push({ path: at, message: `${key.file}: ${reason}` });
  }
  if (keys.length === 0) found.push({ path: at, message: `${config.keys.directory} has no usable signing key: crossfade keys rotate makes one` });
  else if (keys.every(({ signsFrom }) => signsFrom !== undefined && signsFrom > systemClock.now())) {
    found.push({ path: at, message: 'no key signs yet: the time in front of every name is still to come' });
  }
  return found;
}

async function checkFlags({ rollout }: Config): Promise<Finding[]> {
  if (rollout.flags?.launchdarkly) return await checkSdkKey(rollout.flags.launchdarkly.sdkKeyFile);
  if (rollout.flags?.file === undefined) return [];
  try {
    const { flags } = await readFlagFile(rollout.flags.file);
    const { stageFlag, killSwitchFlag, defaultStage } = rollout;
    return [
      ...(flags.has(stageFlag)
        ? []
        : [{ path: 'rollout.stageFlag', message: `${rollout.flags.file} has no flag ${stageFlag}: everybody would be at ${defaultStage}` }]),
      ...variationsOf(flags.get(stageFlag))
        .filter((value) => !isStage(value))
        .map((value) => ({ path: 'rollout.stageFlag', message: `${stageFlag} can become ${JSON.stringify(value)}, which is no stage` })),
      ...variationsOf(flags.get(killSwitchFlag))
        .filter((value) => typeof value !== 'boolean')
        .map((value) => ({
          path: 'rollout.killSwitchFlag',
          message: `${killSwitchFlag} can become ${JSON.stringify(value)}, which is neither true nor false`,
        })),
    ];
  } catch (error) {
    return [{ path: 'rollout.flags.file', message: error instanceof Error ? error.message : 'cannot be read' }];
  }
}

function variationsOf(flag: { readonly [member: string]: unknown } | undefined): readonly unknown[] {
  return Array.isArray(flag?.['variations']) ? flag['variations'] : [];
}

async function checkSdkKey(path: string): Promise<Finding[]> {
  const key = await readFile(path, 'utf8').catch(() => undefined);
  const at = 'rollout.flags.launchdarkly.sdkKeyFile';
  if (key === undefined) return [{ path: at, message: 'the file that it names cannot be read' }];
  return key.trim() === '' ? [{ path: at, message: 'the file that it names is empty' }] : [];
}

/** What is as it is: nothing to mend, but to know. */
function noteClusters({ redis, sessions }: Config): Finding[] {
  return sessions.flatMap((session, index) =>
    (session.redis ?? redis).cluster
      ? [
          {
            path: session.redis ? `sessions[${index}].redis` : 'redis',
            message: 'the records are on a Redis Cluster: a logout that the legacy app does alone is noticed at the next refresh, not at once',
          },
        ]
      : [],
  );
}

async function checkRedis(config: Config): Promise<Finding[]> {
  const targets: { at: string; target: RedisTarget; records: boolean }[] = [
    { at: 'redis', target: config.redis, records: config.sessions.some(({ redis }) => !redis) },
  ];
  config.sessions.forEach(({ redis }, index) => {
    if (redis) targets.push({ at: `sessions[${index}].redis`, target: redis, records: true });
  });
  const found = await Promise.all(targets.map((one) => checkOneRedis(one, config)));
  return found.flat();
}

async function checkOneRedis({ at, target, records }: { at: string; target: RedisTarget; records: boolean }, config: Config): Promise<Finding[]> {
  const connection = connectRedis(target, {
    name: at,
    commandTimeoutMs: 2000,
    probeKey: 'crossfade-readiness',
    log: createLog({ level: 'silent' }),
    metrics: createMetrics(),
  });
  try {
    if (!(await connection.ready(3000))) {
      const problem = connection.problem();
      return [{ path: at, message: problem === undefined ? 'Redis does not answer' : `Redis does not answer (${problem})` }];
    }
    const { client } = connection;
    const nodes = client instanceof Cluster ? client.nodes('master') : [client];
    const [node] = nodes;
    if (!node) return [{ path: at, message: 'the Redis Cluster has no master' }];
    const found = unique((await Promise.all(nodes.map(async (one) => checkNode(at, await one.info())))).flat());
    const [seconds = '0'] = await node.time();
    const skew = Math.abs(Number(seconds) - Date.now() / 1000);
    if (skew > config.tokens.clockSkewSeconds) found.push({ path: at, message: `the clock here and that of Redis are ${Math.round(skew)} s apart` });
    if (at === 'redis') found.push(...(await checkFleet(config, client, await connection.nowMs())));
    return [...found, ...(records ? await checkTracking(at, client) : [])];
  } catch (error) {
    return [{ path: at, message: `Redis refuses: ${error instanceof Error ? error.message : 'unknown error'}` }];
  } finally {
    connection.close();
  }
}

/** Whether an instance with this configuration would fit those that are alive. */
async function checkFleet({ redis, fleetSecret, issuer, audience }: Config, client: RedisClient, nowMs: number): Promise<Finding[]> {
  const quiet = { audit: () => undefined, metrics: createMetrics() };
  const store = createFleetStore({ client, prefix: `${redis.keyPrefix}v1:`, macKey: deriveKey(fleetSecret, 'mac'), ...quiet });
  const { live, strangers } = await store.read(nowMs);
  const self = { instance: 'check', host: 'here', startedAt: nowMs, issuer, audience, verifies: [], accepts: [], clockOffMs: 0, hasKeys: true };
  const most = majorityAgainst(
    self,
    live.map((one) => ({ ...one, hasKeys: one.keys.length > 0 })),
  );
  return [
    ...(most ? [{ path: most.issuer === issuer ? 'audience' : 'issuer', message: describeDifference(self, most) }] : []),
    ...describeStrangers(strangers).map((message) => ({ path: 'fleetSecretFile', message })),
  ];
}

/** Whether a logout that the legacy app does alone can be noticed at once, and told from an eviction. */
async function checkTracking(at: string, client: RedisClient): Promise<Finding[]> {
  const found: Finding[] = [];
  await client.info('commandstats').catch(() => {
    found.push({ path: at, message: 'Redis does not let this user ask INFO: a record that is deleted is not taken for a logout' });
  });
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

function checkNode(at: string, info: string): Finding[] {
  const facts = new Map(
    info
      .split(/\r?\n/)
      .flatMap((line) => (line.includes(':') ? [[line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)] as const] : [])),
  );
  const found: Finding[] = [];
  const version = facts.get('redis_version') ?? '';
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major < 6 || (major === 6 && minor < 2)) found.push({ path: at, message: `Redis ${version} is too old; 6.2 or newer is needed` });
  const policy = facts.get('maxmemory_policy');
  if (at === 'redis' && policy !== undefined && policy !== 'noeviction') {
    found.push({
      path: at,
      message: `maxmemory-policy is ${policy}: the bridge's own keys must not be evicted; use noeviction, and sessions[].redis for records elsewhere`,
    });
  }
  if (facts.get('loading') === '1') found.push({ path: at, message: 'Redis is still loading its data' });
  return found;
}

function unique(findings: readonly Finding[]): Finding[] {
  return findings.filter(({ message }, at) => findings.findIndex((other) => other.message === message) === at);
}
