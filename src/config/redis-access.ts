import { X509Certificate } from 'node:crypto';
import type { ConfigProblem, NodeAddress, ParsedConnection, RedisAccess, RedisTarget, TlsTarget } from './config.js';
import { Secret } from './secret.js';
import { readSecret } from './secret-files.js';

const DEFAULT_PORT = 6379;

/** `resolve`: a path of the configuration as an absolute one. `written`: the URL as it stands there, before `${VAR}` was replaced. */
export function resolveTarget(
  target: ParsedConnection,
  at: string,
  resolve: (path: string) => string,
  problems: ConfigProblem[],
  written: unknown = undefined,
): RedisTarget {
  const files = filesOf(target).map(resolve);
  const { cluster, sentinels, name, database } = target;
  const first = readAccess(target, at, resolve);
  const { access } = first;
  problems.push(...allOf(first.problems));
  return {
    ...(cluster ? { cluster } : {}),
    ...(sentinels ? { sentinels } : {}),
    ...(name === undefined ? {} : { name }),
    ...(database === undefined ? {} : { database }),
    access,
    files,
    hasPlainPassword: typeof written === 'string' && /^rediss?:\/\/[^/@]*:(?!\$\{[^}]*\}@)[^/@]+@/.test(written),
    readAccess(current) {
      const again = readAccess(target, at, resolve);
      // What an instance knows of sessions is bound to its Redis, and every connection has to lead to the same one.
      if (again.problems.credentials.length === 0 && !isSameServer(again.access, access))
        again.problems.credentials.push({
          path: `${at}.urlFile`,
          message: 'names another server or database than at the start, or TLS has come or gone: restart to apply',
        });
      const found = allOf(again.problems);
      const value = mergeGood(current, again);
      const isNews = digestOf(value) !== digestOf(current);
      if (found.length === 0) return { value };
      return isNews ? { value, problems: found } : { problems: found };
    },
  };
}

/** What of an access may be bad, or refused, by itself. */
export const ACCESS_PARTS = ['credentials', 'ca', 'sentinelCredentials', 'sentinelCa'] as const;
export type AccessPart = (typeof ACCESS_PARTS)[number];

/** What is wrong, by what stays as it was for it. */
type ProblemsByPart = Readonly<Record<AccessPart, ConfigProblem[]>>;

interface ReadAccess {
  readonly access: RedisAccess;
  readonly problems: ProblemsByPart;
  /** Whether sentinels have the CA of the primary. */
  readonly sharesCa: boolean;
}

function allOf(problems: ProblemsByPart): ConfigProblem[] {
  return ACCESS_PARTS.flatMap((part) => problems[part]);
}

/** A broken CA file must not keep a rotated password out, nor the other way round. */
function mergeGood(last: RedisAccess, { access, problems, sharesCa }: ReadAccess): RedisAccess {
  const isBad = (part: AccessPart) => problems[part].length > 0 || (part === 'sentinelCa' && sharesCa && problems.ca.length > 0);
  return composeAccess((part) => (isBad(part) ? last : access));
}

/** An access of which each part comes from where `of` says. */
export function composeAccess(of: (part: AccessPart) => RedisAccess): RedisAccess {
  const { server, username, password } = of('credentials');
  const { tls } = of('ca');
  const asking = of('sentinelCredentials').sentinel;
  const sentinelTls = of('sentinelCa').sentinel?.tls;
  return {
    ...(server ? { server } : {}),
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(tls ? { tls } : {}),
    ...(asking
      ? {
          sentinel: {
            ...(asking.username === undefined ? {} : { username: asking.username }),
            ...(asking.password === undefined ? {} : { password: asking.password }),
            ...(sentinelTls ? { tls: sentinelTls } : {}),
          },
        }
      : {}),
  };
}

function digestOf({ password, sentinel, ...rest }: RedisAccess): string {
  return JSON.stringify([rest, password?.reveal(), sentinel?.username, sentinel?.password?.reveal(), sentinel?.tls]);
}

function isSameServer({ server: one, tls }: RedisAccess, { server: other, tls: otherTls }: RedisAccess): boolean {
  const isSameAddress = one?.host === other?.host && one?.port === other?.port && one?.database === other?.database;
  return isSameAddress && (tls === undefined) === (otherTls === undefined);
}

function filesOf({ urlFile, usernameFile, passwordFile, sentinelPasswordFile, tls, sentinelTls }: ParsedConnection): string[] {
  const cas = [tls, sentinelTls].map((one) => (typeof one === 'object' ? one.caFile : undefined));
  return [urlFile, usernameFile, passwordFile, sentinelPasswordFile, ...cas].filter((path) => path !== undefined);
}

/** User and password are read together: they change together. */
function readAccess(target: ParsedConnection, at: string, resolve: (path: string) => string): ReadAccess {
  const problems: ProblemsByPart = { credentials: [], ca: [], sentinelCredentials: [], sentinelCa: [] };
  const read = (path: string, setting: string, of: ConfigProblem[]) => readSecret(resolve(path), `${at}.${setting}`, of);
  const own = problems.credentials;
  const url = target.urlFile === undefined ? target.url : read(target.urlFile, 'urlFile', own);
  const parsed = url === undefined ? undefined : parseUrl(url, `${at}.${target.urlFile === undefined ? 'url' : 'urlFile'}`, own);
  if (target.urlFile !== undefined && parsed?.tls && target.tls === false)
    own.push({ path: `${at}.tls`, message: 'and rediss:// contradict each other' });
  const username = target.usernameFile === undefined ? (target.username ?? parsed?.username) : read(target.usernameFile, 'usernameFile', own);
  const password = target.passwordFile === undefined ? parsed?.password : read(target.passwordFile, 'passwordFile', own);
  const tls = readTls(parsed?.tls === true ? (target.tls ?? true) : target.tls, 'tls', problems.ca);
  const sentinelTls = target.sentinelTls === undefined ? tls : readTls(target.sentinelTls, 'sentinelTls', problems.sentinelCa);
  const { sentinelPasswordFile: file } = target;
  const sentinelPassword = file === undefined ? undefined : read(file, 'sentinelPasswordFile', problems.sentinelCredentials);

  function readTls(value: ParsedConnection['tls'], setting: string, problems: ConfigProblem[]): TlsTarget | undefined {
    if (value === undefined || value === false) return undefined;
    if (value === true) return {};
    const { caFile, servername } = value;
    const ca = caFile === undefined ? undefined : read(caFile, `${setting}.caFile`, problems);
    if (ca !== undefined && ca !== '' && !holdsCertificates(ca))
      problems.push({ path: `${at}.${setting}.caFile`, message: 'the file must hold certificates as PEM, each whole' });
    return { ...(ca === undefined ? {} : { ca }), ...(servername === undefined ? {} : { servername }) };
  }

  const access = {
    ...(parsed ? { server: parsed.server } : {}),
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password: new Secret(password) }),
    ...(tls ? { tls } : {}),
    ...(target.sentinels
      ? {
          sentinel: {
            ...(target.sentinelUsername === undefined ? {} : { username: target.sentinelUsername }),
            ...(sentinelPassword === undefined ? {} : { password: new Secret(sentinelPassword) }),
            ...(sentinelTls ? { tls: sentinelTls } : {}),
          },
        }
      : {}),
  };
  return { access, problems, sharesCa: target.sentinelTls === undefined };
}

const BEGIN_CERTIFICATE = /(?=-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----)/;

function holdsCertificates(pem: string): boolean {
  const blocks = pem.split(BEGIN_CERTIFICATE).filter((block) => BEGIN_CERTIFICATE.test(block));
  try {
    for (const block of blocks) new X509Certificate(block);
    return blocks.length > 0;
  } catch {
    return false;
  }
}

interface ParsedUrl {
  readonly server: NodeAddress & { readonly database: number };
  readonly username?: string;
  readonly password?: string;
  readonly tls: boolean;
}

/** `redis://[user[:password]@]host[:port][/database]`. What else a URL may have is refused: it would be taken for something, or dropped. */
function parseUrl(text: string, at: string, problems: ConfigProblem[]): ParsedUrl | undefined {
  const refuse = (message: string) => void problems.push({ path: at, message });
  if (!/^rediss?:\/\//.test(text)) return refuse('must be a redis:// or rediss:// URL');
  if (!URL.canParse(text)) return refuse('is not a URL: a special character in the password is written as %XX');
  const { protocol, hostname, port, pathname, username, password, search, hash } = new URL(text);
  if (hostname === '') return refuse('names no host');
  if (search !== '' || hash !== '') return refuse('must have nothing behind the database: use the settings beside the URL instead');
  const database = /^\/?(\d*)$/.exec(pathname)?.[1];
  if (database === undefined) return refuse('must have the number of a database, or nothing, as its path');
  try {
    const [user, secret] = [decodeURIComponent(username), decodeURIComponent(password)];
    return {
      server: { host: hostname.replace(/^\[(.*)\]$/, '$1'), port: Number(port || DEFAULT_PORT), database: Number(database || 0) },
      ...(user === '' ? {} : { username: user }),
      ...(secret === '' ? {} : { password: secret }),
      tls: protocol === 'rediss:',
    };
  } catch {
    return refuse('has a % in user or password that stands for nothing: write it as %25');
  }
}

/** What a connection says of itself that does not fit together. Each is something that would be ignored without a word. */
export function checkConnection(target: ParsedConnection, at: string): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const add = (name: string, message: string) => problems.push({ path: `${at}.${name}`, message });
  const { url, cluster, sentinels } = target;
  const parsed = url === undefined ? undefined : parseUrl(url, `${at}.url`, problems);
  if (sentinels && target.name === undefined) add('name', 'sentinels need the name of the master');
  for (const setting of ['name', 'database', 'sentinelTls', 'sentinelUsername', 'sentinelPasswordFile'] as const) {
    if (sentinels || target[setting] === undefined) continue;
    add(setting, setting === 'database' && !cluster ? 'is for sentinels: a URL has it in its path' : 'is for sentinels only');
  }
  if (target.sentinelUsername !== undefined && target.sentinelPasswordFile === undefined)
    add('sentinelPasswordFile', 'is needed with sentinelUsername');
  if (parsed?.tls && target.tls === false) add('tls', 'and rediss:// contradict each other');
  if (target.username !== undefined && target.usernameFile !== undefined) add('usernameFile', 'and username: give one of them');
  const hasUser = target.username !== undefined || target.usernameFile !== undefined;
  if (parsed?.username !== undefined && hasUser) add('username', 'stands in the URL as well: give it once');
  if (parsed?.password !== undefined && target.passwordFile !== undefined) add('passwordFile', 'and a password in the URL: give one of them');
  if (hasUser && parsed?.password === undefined && target.passwordFile === undefined && target.urlFile === undefined)
    add('passwordFile', 'is needed with a user');
  return problems;
}
