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
  const read = () => {
    const found: ConfigProblem[] = [];
    const access = readAccess(target, at, resolve, found);
    return { access, found };
  };
  const { access, found } = read();
  problems.push(...found);
  return {
    ...(cluster ? { cluster } : {}),
    ...(sentinels ? { sentinels } : {}),
    ...(name === undefined ? {} : { name }),
    ...(database === undefined ? {} : { database }),
    access,
    files,
    hasPlainPassword: typeof written === 'string' && /^rediss?:\/\/[^/@]*:(?!\$\{[^}]*\}@)[^/@]+@/.test(written),
    readAccess() {
      const again = read();
      // What an instance knows of sessions is bound to its Redis, and every connection has to lead to the same one.
      if (again.found.length === 0 && !isSameServer(again.access, access))
        again.found.push({
          path: `${at}.urlFile`,
          message: 'names another server or database than at the start, or TLS has come or gone: restart to apply',
        });
      return again.found.length > 0 ? { problems: again.found } : { value: again.access };
    },
  };
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
function readAccess(target: ParsedConnection, at: string, resolve: (path: string) => string, problems: ConfigProblem[]): RedisAccess {
  const read = (path: string, setting: string) => readSecret(resolve(path), `${at}.${setting}`, problems);
  const url = target.urlFile === undefined ? target.url : read(target.urlFile, 'urlFile');
  const parsed = url === undefined ? undefined : parseUrl(url, `${at}.${target.urlFile === undefined ? 'url' : 'urlFile'}`, problems);
  if (target.urlFile !== undefined && parsed?.tls && target.tls === false)
    problems.push({ path: `${at}.tls`, message: 'and rediss:// contradict each other' });
  const username = target.usernameFile === undefined ? (target.username ?? parsed?.username) : read(target.usernameFile, 'usernameFile');
  const password = target.passwordFile === undefined ? parsed?.password : read(target.passwordFile, 'passwordFile');
  const tls = readTls(parsed?.tls === true ? (target.tls ?? true) : target.tls, 'tls');
  const sentinelTls = target.sentinelTls === undefined ? tls : readTls(target.sentinelTls, 'sentinelTls');
  const sentinelPassword = target.sentinelPasswordFile === undefined ? undefined : read(target.sentinelPasswordFile, 'sentinelPasswordFile');

  function readTls(value: ParsedConnection['tls'], setting: string): TlsTarget | undefined {
    if (value === undefined || value === false) return undefined;
    if (value === true) return {};
    const { caFile, servername } = value;
    const ca = caFile === undefined ? undefined : read(caFile, `${setting}.caFile`);
    if (ca !== undefined && ca !== '' && !holdsCertificates(ca))
      problems.push({ path: `${at}.${setting}.caFile`, message: 'the file must hold certificates as PEM, each whole' });
    return { ...(ca === undefined ? {} : { ca }), ...(servername === undefined ? {} : { servername }) };
  }

  return {
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
