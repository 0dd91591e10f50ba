import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseDocument } from 'yaml';
import type { z } from 'zod';
import { errnoOf } from '../errors.js';
import { type Config, ConfigError, type ConfigInput, type ConfigProblem, type Parsed } from './config.js';
import { crossChecks } from './cross-checks.js';
import { resolveTarget } from './redis-access.js';
import { configSchema } from './schema.js';
import { Secret } from './secret.js';
import { readAdminToken, readFleetSecret, readSecret, readSecretHashes, readSessionSecrets } from './secret-files.js';
import { withFormatDefaults } from './session-formats.js';
import { readWrittenSettings } from './written-settings.js';

export interface ResolveOptions {
  /** What relative paths are relative to. Default: the working directory. */
  readonly baseDir?: string;
  /** Where `${VAR}` is looked up. Default: the process's environment. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** What the configuration is called in error messages. Default: `config`. */
  readonly source?: string;
}

const resolved = new WeakSet<object>();

/**
 * Reads a YAML or JSON file and resolves it.
 * @throws {ConfigError} `config_unreadable` where it cannot be read or parsed, `config_invalid` with every problem.
 */
export async function loadConfig(path: string, options: Omit<ResolveOptions, 'baseDir' | 'source'> = {}): Promise<Config> {
  return resolveConfig(readConfigFile(path), { ...options, baseDir: dirname(resolve(path)), source: path });
}

/**
 * What a configuration file says, with `${VAR}` replaced, before defaults and secret files: for comparing it with what it said before.
 * @throws {ConfigError} `config_unreadable`
 */
export function readSettings(path: string, env: NonNullable<ResolveOptions['env']> = process.env): unknown {
  return substitute(readConfigFile(path), env, '', []);
}

/** Whether `config` came out of `resolveConfig`. */
export function isResolved(config: Config | ConfigInput): config is Config {
  return resolved.has(config);
}

/**
 * Checks a configuration, fills in the defaults, reads the secrets. Relative paths are taken from `baseDir`.
 * @throws {ConfigError} with every problem and its path.
 */
export function resolveConfig(input: unknown, options: ResolveOptions = {}): Config {
  const { baseDir = process.cwd(), env = process.env, source = 'config' } = options;
  const problems: ConfigProblem[] = [];
  const substituted = substitute(input, env, '', problems);
  const parsed = configSchema.safeParse(substituted);
  if (!parsed.success) {
    problems.push(...parsed.error.issues.flatMap(describeIssue));
    const rest = configSchema.safeParse(without(substituted, parsed.error.issues));
    if (rest.success) problems.push(...crossChecks(rest.data));
    namedFiles(substituted, '').forEach(({ path, file }) => readSecret(resolve(baseDir, file), path, problems));
    throw new ConfigError(source, problems);
  }
  const config = parsed.data;
  problems.push(...crossChecks(config));

  const absolute = (path: string) => resolve(baseDir, path);
  const { fleetSecretFile, ...rest } = config;
  const { tokenFile, ...admin } = config.admin;
  const result: Config = {
    ...rest,
    readWritten: () => readWrittenSettings(substituted, config, absolute),
    admin: { ...admin, ...(tokenFile ? { token: readAdminToken(absolute(tokenFile), problems) } : {}) },
    keys: { ...rest.keys, directory: absolute(rest.keys.directory) },
    rollout: { ...rest.rollout, ...(rest.rollout.flags ? { flags: resolveFlags(rest.rollout.flags, baseDir) } : {}) },
    fleetSecret: readFleetSecret(absolute(fleetSecretFile), problems),
    redis: {
      ...resolveTarget(config.redis, 'redis', absolute, problems, memberOf(input, 'redis', 'url')),
      keyPrefix: config.redis.keyPrefix,
      commandTimeoutMs: config.redis.commandTimeoutMs,
    },
    sessions: config.sessions.map(({ redis, secretsFile, ...session }, index) => ({
      ...withFormatDefaults(session),
      cookieOptions: { ...session.cookieOptions, secure: session.cookieOptions.secure ?? config.issuer.startsWith('https:') },
      ...(secretsFile ? { secrets: readSessionSecrets(absolute(secretsFile), `sessions[${index}].secretsFile`, problems) } : {}),
      ...(redis
        ? { redis: resolveTarget(redis, `sessions[${index}].redis`, absolute, problems, memberOf(input, 'sessions', index, 'redis', 'url')) }
        : {}),
    })),
    clients: config.clients.map(({ secretHashFile, ...client }, index) => ({
      ...client,
      ...(secretHashFile ? { secretHashes: readSecretHashes(absolute(secretHashFile), `clients[${index}].secretHashFile`, problems) } : {}),
    })),
  };
  if (problems.length > 0) throw new ConfigError(source, problems);
  resolved.add(result);
  return deepFreeze(result);
}

function readConfigFile(path: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError(path, [{ path: '', message: `cannot be read (${errnoOf(error)}); crossfade init writes one` }], 'config_unreadable');
  }
  const document = parseDocument(text);
  if (document.errors.length > 0) {
    // The parser's own words quote the text, which may hold a password. The first error leads to the others.
    const [error] = document.errors;
    const [at] = error?.linePos ?? [];
    const where = at ? `line ${at.line}, column ${at.col}: ` : '';
    throw new ConfigError(path, [{ path: '', message: `${where}this is not YAML (${error?.code})` }], 'config_unreadable');
  }
  try {
    return document.toJS();
  } catch {
    throw new ConfigError(
      path,
      [{ path: '', message: 'it is not YAML that can be read: an alias without its anchor, or too many' }],
      'config_unreadable',
    );
  }
}

/** `${VAR}` in every string. A whole value that reads as a number or boolean becomes one, as it would in the file. */
function substitute(value: unknown, env: Readonly<Record<string, string | undefined>>, path: string, problems: ConfigProblem[]): unknown {
  if (Array.isArray(value)) return value.map((item, index) => substitute(item, env, `${path}[${index}]`, problems));
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, substitute(item, env, path === '' ? key : `${path}.${key}`, problems)]),
    );
  }
  if (typeof value !== 'string') return value;
  const text = value.replaceAll(/\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g, (_, name: string) => {
    const found = env[name];
    if (found === undefined) problems.push({ path, message: `the environment variable ${name} is not set` });
    return found ?? '';
  });
  const whole = /^\$\{[A-Za-z_][A-Za-z0-9_]*\}$/.test(value);
  if (whole && /^-?(0|[1-9]\d*)(\.\d+)?$/.test(text)) return Number(text);
  if (whole && (text === 'true' || text === 'false')) return text === 'true';
  return text;
}

/** The input without what the schema refused: what only the whole can show is then reported in the same round. */
function without(input: unknown, issues: readonly z.core.$ZodIssue[]): unknown {
  const copy: unknown = structuredClone(input);
  for (const issue of issues) {
    const paths = issue.code === 'unrecognized_keys' ? issue.keys.map((key) => [...issue.path, key]) : [issue.path];
    for (const path of paths) {
      const holder = path.slice(0, -1).reduce<unknown>((value, name) => (value instanceof Object ? Reflect.get(value, name) : undefined), copy);
      const last = path.at(-1);
      if (holder instanceof Object && last !== undefined) Reflect.deleteProperty(holder, last);
    }
  }
  return copy;
}

/** What stands under a path of the input; undefined: nothing. */
function memberOf(input: unknown, ...path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((value, name) => (value instanceof Object ? Reflect.get(value, name) : undefined), input);
}

/** Every `…File` of an input that did not parse, so that a missing file is reported in the same round. */
function namedFiles(value: unknown, path: string): { path: string; file: string }[] {
  if (value === null || typeof value !== 'object') return [];
  return Object.entries(value).flatMap(([key, member]) => {
    const at = Array.isArray(value) ? `${path}[${key}]` : path === '' ? key : `${path}.${key}`;
    return key.endsWith('File') && typeof member === 'string' && member !== '' ? [{ path: at, file: member }] : namedFiles(member, at);
  });
}

function resolveFlags(flags: NonNullable<Parsed['rollout']['flags']>, baseDir: string): NonNullable<Parsed['rollout']['flags']> {
  if (flags.file !== undefined) return { file: resolve(baseDir, flags.file) };
  const { launchdarkly } = flags;
  return launchdarkly ? { launchdarkly: { ...launchdarkly, sdkKeyFile: resolve(baseDir, launchdarkly.sdkKeyFile) } } : {};
}

function describeIssue(issue: z.core.$ZodIssue): ConfigProblem[] {
  if (issue.code !== 'unrecognized_keys') return [{ path: pathOf(issue.path), message: issue.message }];
  return issue.keys.map((key) => ({ path: pathOf([...issue.path, key]), message: 'there is no such setting' }));
}

function pathOf(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, part) => (typeof part === 'number' ? `${text}[${part}]` : text === '' ? String(part) : `${text}.${String(part)}`),
    '',
  );
}

function deepFreeze<T>(value: T): T {
  if (value !== null && typeof value === 'object' && !(value instanceof Secret) && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const member of Object.values(value)) deepFreeze(member);
  }
  return value;
}
