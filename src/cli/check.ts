import { readFile } from 'node:fs/promises';
import { systemClock } from '../clock.js';
import { type Config, ConfigError, type ConfigProblem as Finding } from '../config/config.js';
import { unmappedSessions } from '../config/cross-checks.js';
import { loadConfig } from '../config/load.js';
import { serveJwks } from '../keys/jwks.js';
import { loadKeyDirectory } from '../keys/load.js';
import { selfTest } from '../keys/self-test.js';
import { readFlagFile } from '../rollout/flag-file.js';
import { isStage } from '../stages.js';
import { createIssuer } from '../tokens/access-token.js';
import { createProbe } from '../tokens/token-probe.js';
import { checkPaths } from './check-paths.js';
import { checkRedis } from './check-redis.js';
import { checkSessions, noteSessions } from './check-sessions.js';
import { print } from './print.js';

export interface CheckOptions {
  readonly config: string;
  readonly json?: boolean;
}

/** `crossfade check`: 0 clean, 1 findings, 2 unreadable config. */
export async function check({ config: path, json = false }: CheckOptions): Promise<number> {
  let findings: readonly Finding[];
  let notes: readonly Finding[] = [];
  let unreadable = false;
  try {
    const config = await loadConfig(path);
    const redis = await checkRedis(config);
    findings = [
      ...unmappedSessions(config),
      ...(await checkSessions(config)),
      ...(await checkPaths(config)),
      ...(await checkKeys(config)),
      ...(await checkFlags(config)),
      ...redis.findings,
    ];
    notes = [...noteSessions(config), ...redis.notes];
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

async function checkKeys(config: Config): Promise<Finding[]> {
  const at = 'keys.directory';
  const { keys, rejected } = await loadKeyDirectory(config.keys);
  if (config.keys.use === 'verify' && keys.length === 0) return [];
  const found: Finding[] = rejected.map(({ file, reason }) => ({ path: at, message: `${file} ${reason}` }));
  const policy = { issuer: config.issuer, audience: config.audience, clockSkewSeconds: config.tokens.clockSkewSeconds };
  const random = { token: () => 'check', fraction: () => 0 };
  const issueAccessToken = createIssuer({ ...config.tokens, issuer: config.issuer, clock: systemClock, random });
  const probe = createProbe(policy, issueAccessToken, systemClock);
  const failed = await selfTest(keys, serveJwks(keys.map(({ publicJwk }) => publicJwk)).body, probe);
  for (const [{ file }, reason] of failed) found.push({ path: at, message: `${file}: ${reason}` });
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
    const { stageFlag, killSwitchFlag, defaultStage } = rollout;
    const { flags } = await readFlagFile(rollout.flags.file, [stageFlag, killSwitchFlag]);
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
