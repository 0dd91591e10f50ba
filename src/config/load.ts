import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseDocument } from 'yaml';
import type { z } from 'zod';
import { CrossfadeError } from '../errors.js';
import { configSchema } from './schema.js';
import { Secret } from './secret.js';

/** The configuration as a person writes it: the object behind the YAML file. */
export type ConfigInput = z.input<typeof configSchema>;

type Parsed = z.output<typeof configSchema>;
type ParsedConnection = Omit<Parsed['redis'], 'keyPrefix' | 'commandTimeoutMs'>;

/** Where a Redis is and how to enter, with the secrets read. */
export interface RedisTarget {
  readonly url?: Secret;
  readonly cluster?: readonly { readonly host: string; readonly port: number }[];
  readonly sentinels?: readonly { readonly host: string; readonly port: number }[];
  readonly name?: string;
  readonly tls?: boolean | { readonly ca: string };
  readonly username?: string;
  readonly password?: Secret;
}

export type SessionConfig = Omit<Parsed['sessions'][number], 'redis' | 'secretsFile'> & {
  readonly secrets: readonly Secret[];
  readonly redis?: RedisTarget;
};

export type ClientConfig = Omit<Parsed['clients'][number], 'secretHashFile'> & { readonly secretHash?: Secret };

/** The configuration as the program uses it: defaults filled in, paths absolute, secrets read and wrapped, frozen. */
export type Config = Omit<Parsed, 'redis' | 'sessions' | 'clients' | 'fleetSecretFile'> & {
  readonly fleetSecret: Secret;
  readonly redis: RedisTarget & { readonly keyPrefix: string; readonly commandTimeoutMs: number };
  readonly sessions: readonly SessionConfig[];
  readonly clients: readonly ClientConfig[];
};

/** One thing that is wrong, and where: `sessions[0].principal.subject`. */
export interface ConfigProblem {
  readonly path: string;
  readonly message: string;
}

/** Thrown with all problems at once. `message` lists them, a line each. */
export class ConfigError extends CrossfadeError {
  readonly problems: readonly ConfigProblem[];

  constructor(source: string, problems: readonly ConfigProblem[], code: 'config_invalid' | 'config_unreadable' = 'config_invalid') {
    const lines = problems.map(({ path, message }) => `  ${path === '' ? '' : `${path}: `}${message}`);
    super(code, { message: `${source}: ${problems.length === 1 ? '1 problem' : `${problems.length} problems`}\n${lines.join('\n')}` });
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

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
    namedFiles(substituted, '').forEach(({ path, file }) => readSecretFile(resolve(baseDir, file), path, problems));
    throw new ConfigError(source, problems);
  }
  const config = parsed.data;
  problems.push(...crossChecks(config));

  const read = (path: string, at: string) => readSecretFile(resolve(baseDir, path), at, problems);
  const { fleetSecretFile, ...rest } = config;
  const result: Config = {
    ...rest,
    admin: { ...rest.admin, ...(rest.admin.tokenFile ? { tokenFile: resolve(baseDir, rest.admin.tokenFile) } : {}) },
    keys: { ...rest.keys, directory: resolve(baseDir, rest.keys.directory) },
    rollout: { ...rest.rollout, ...(rest.rollout.flags ? { flags: resolveFlags(rest.rollout.flags, baseDir) } : {}) },
    fleetSecret: readFleetSecret(read(fleetSecretFile, 'fleetSecretFile'), problems),
    redis: {
      ...resolveTarget(config.redis, 'redis', read, baseDir, problems),
      keyPrefix: config.redis.keyPrefix,
      commandTimeoutMs: config.redis.commandTimeoutMs,
    },
    sessions: config.sessions.map(({ redis, secretsFile, ...session }, index) => ({
      ...session,
      secrets: secretsFile ? readSessionSecrets(read(secretsFile, `sessions[${index}].secretsFile`), index, problems) : [],
      ...(redis ? { redis: resolveTarget(redis, `sessions[${index}].redis`, read, baseDir, problems) } : {}),
    })),
    clients: config.clients.map(({ secretHashFile, ...client }, index) => ({
      ...client,
      ...(secretHashFile ? { secretHash: readSecretHash(read(secretHashFile, `clients[${index}].secretHashFile`), index, problems) } : {}),
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
    throw new ConfigError(path, [{ path: '', message: `cannot be read (${codeOf(error)}); crossfade init writes one` }], 'config_unreadable');
  }
  const document = parseDocument(text);
  if (document.errors.length > 0) {
    const problems = document.errors.map((error) => ({ path: '', message: error.message.split('\n')[0] ?? error.code }));
    throw new ConfigError(path, problems, 'config_unreadable');
  }
  try {
    return document.toJS();
  } catch (error) {
    throw new ConfigError(path, [{ path: '', message: error instanceof Error ? error.message : 'does not parse' }], 'config_unreadable');
  }
}

/** The entries that say nothing of who is logged in: a problem, unless a function says it. */
export function unmappedSessions({ sessions }: Pick<Config, 'sessions'>): ConfigProblem[] {
  return sessions.flatMap(({ principal }, index) =>
    principal ? [] : [{ path: `sessions[${index}].principal`, message: 'say where in the record the subject is, for example { subject: user.id }' }],
  );
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

/** Every `…File` of an input that did not parse, so that a missing file is reported in the same round. */
function namedFiles(value: unknown, path: string): { path: string; file: string }[] {
  if (value === null || typeof value !== 'object') return [];
  return Object.entries(value).flatMap(([key, member]) => {
    const at = Array.isArray(value) ? `${path}[${key}]` : path === '' ? key : `${path}.${key}`;
    return key.endsWith('File') && typeof member === 'string' && member !== '' ? [{ path: at, file: member }] : namedFiles(member, at);
  });
}

/** What one field's own rule cannot see. */
function crossChecks(config: Parsed): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const add = (path: string, message: string) => problems.push({ path, message });

  if (config.mode === 'observe') add('mode', 'observe is not in this version of Crossfade; only enforce is');
  config.sessions.forEach((session, index) => {
    const at = `sessions[${index}]`;
    if (session.format !== 'koa-session') add(`${at}.format`, `${session.format} is not in this version of Crossfade; only koa-session is`);
    if (session.signed && !session.secretsFile) add(`${at}.secretsFile`, "a signed cookie needs the app's cookie secrets; or say signed: false");
  });
  config.services.forEach((service, index) => {
    if (service.upstream === 'jwt') add(`services[${index}].upstream`, 'jwt is not in this version of Crossfade; only headers is');
  });
  const clientIds = new Set(config.clients.map(({ id }) => id));
  config.rollout.cohorts.forEach((cohort, index) => {
    if (!clientIds.has(cohort.client)) add(`rollout.cohorts[${index}].client`, `no client has the id ${cohort.client}`);
  });
  duplicates(config.sessions.map(({ name }) => name)).forEach((name) => add('sessions', `two entries are named ${name}`));
  duplicates(config.sessions.map(({ cookie, keyPrefix, redis }) => JSON.stringify([cookie, keyPrefix, redis]))).forEach(() =>
    add('sessions', 'two entries read the same cookie from the same place'),
  );
  duplicates(config.clients.map(({ id }) => id)).forEach((id) => add('clients', `two clients have the id ${id}`));
  duplicates(config.services.map(({ id }) => id)).forEach((id) => add('services', `two services have the id ${id}`));
  const { publishSeconds, selfTestSeconds } = config.keys;
  if (publishSeconds > 0 && publishSeconds < 2 * selfTestSeconds) {
    add(
      'keys.publishSeconds',
      `must be 0, for a single instance, or at least twice keys.selfTestSeconds (${2 * selfTestSeconds}): the others must have read the key before it signs`,
    );
  }
  if (config.http.basePath.startsWith('/.well-known')) add('http.basePath', 'must not be under /.well-known');
  if (config.listen.port !== 0 && config.listen.port === config.admin.port && config.listen.host === config.admin.host) {
    add('admin.port', 'is the same as listen.port; operators need a port of their own');
  }
  return problems;
}

function duplicates(names: readonly string[]): string[] {
  return [...new Set(names.filter((name, index) => names.indexOf(name) !== index))];
}

function resolveFlags(flags: NonNullable<Parsed['rollout']['flags']>, baseDir: string): NonNullable<Parsed['rollout']['flags']> {
  if (flags.file !== undefined) return { file: resolve(baseDir, flags.file) };
  const { launchdarkly } = flags;
  return launchdarkly ? { launchdarkly: { ...launchdarkly, sdkKeyFile: resolve(baseDir, launchdarkly.sdkKeyFile) } } : {};
}

function resolveTarget(
  target: ParsedConnection,
  at: string,
  read: (path: string, at: string) => string,
  baseDir: string,
  problems: ConfigProblem[],
): RedisTarget {
  const url = target.urlFile === undefined ? target.url : read(target.urlFile, `${at}.urlFile`);
  if (target.urlFile !== undefined && url && !/^rediss?:\/\//.test(url)) {
    problems.push({ path: `${at}.urlFile`, message: 'the file must hold a redis:// or rediss:// URL' });
  }
  const tls = typeof target.tls === 'object' ? { ca: read(resolve(baseDir, target.tls.caFile), `${at}.tls.caFile`) } : target.tls;
  return {
    ...(url === undefined ? {} : { url: new Secret(url) }),
    ...(target.cluster ? { cluster: target.cluster } : {}),
    ...(target.sentinels ? { sentinels: target.sentinels } : {}),
    ...(target.name ? { name: target.name } : {}),
    ...(tls === undefined ? {} : { tls }),
    ...(target.username ? { username: target.username } : {}),
    ...(target.passwordFile ? { password: new Secret(read(target.passwordFile, `${at}.passwordFile`)) } : {}),
  };
}

/** The text of a file without the line end that editors add; a file that cannot be read is a problem, and ''. */
function readSecretFile(path: string, at: string, problems: ConfigProblem[]): string {
  try {
    const text = readFileSync(path, 'utf8').replace(/\r?\n$/, '');
    if (text.trim() === '')
      problems.push({
        path: at,
        message: `the file that it names is empty${at.endsWith('secretsFile') ? ": put the app's cookie secrets (app.keys) there, one a line, newest first" : ''}`,
      });
    return text;
  } catch (error) {
    // Not the path: somebody may have put the secret itself there.
    problems.push({ path: at, message: `the file that it names cannot be read (${codeOf(error)})` });
    return '';
  }
}

function readFleetSecret(text: string, problems: ConfigProblem[]): Secret {
  if (text.trim() !== '' && (!/^[A-Za-z0-9_-]+$/.test(text) || Buffer.from(text, 'base64url').length !== 32)) {
    problems.push({ path: 'fleetSecretFile', message: 'the file must hold base64url of 32 random bytes; crossfade init makes one' });
  }
  return new Secret(text);
}

function readSessionSecrets(text: string, index: number, problems: ConfigProblem[]): Secret[] {
  const lines = text.split(/\r?\n/).filter((line) => line !== '');
  if (lines.some((line) => line !== line.trim())) {
    problems.push({ path: `sessions[${index}].secretsFile`, message: 'a secret in the file starts or ends with white space' });
  }
  return lines.map((line) => new Secret(line));
}

function readSecretHash(text: string, index: number, problems: ConfigProblem[]): Secret {
  if (text.trim() !== '' && !/^[0-9a-f]{64}$/i.test(text.trim())) {
    problems.push({
      path: `clients[${index}].secretHashFile`,
      message: 'the file must hold the hex SHA-256 of the secret; crossfade init --client ID makes one',
    });
  }
  return new Secret(text.trim().toLowerCase());
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

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown error';
}

function deepFreeze<T>(value: T): T {
  if (value !== null && typeof value === 'object' && !(value instanceof Secret) && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const member of Object.values(value)) deepFreeze(member);
  }
  return value;
}
