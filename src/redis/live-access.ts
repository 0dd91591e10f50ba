import type { Redis } from 'ioredis';
import { LRUCache } from 'lru-cache';
import type { RedisAccess } from '../config/config.js';
import { ACCESS_PARTS, type AccessPart, composeAccess } from '../config/redis-access.js';
import type { Log } from '../telemetry/log.js';
import type { ServerAddress } from './connector.js';
import { isOfCertificate, stateOf } from './faults.js';

/** The credentials and CAs of one Redis while their files change. */
export interface LiveAccess {
  /** Those to connect to a server with now. `server`: as `opening` names it. */
  currentFor(server: string): RedisAccess;
  /** Whether these are the ones that the files hold. */
  readonly isNewest: boolean;
  /** For an operator, a sentence each. None: Redis takes what the files hold. */
  readonly problems: readonly string[];
  /** Notes with what a server is being connected to. `name`: whom a choice is made for; behind sentinels the primary is one, whoever that is. */
  opening(name: string, server: ServerAddress): void;
  /** Notes that every server takes the current ones, and lets them do what is needed: the ones before are not needed again. */
  confirm(): void;
  /** Notes that a server takes the current ones, and does not let them do what is needed: uses the ones before for a while. */
  fallBack(): Promise<void>;
  /** The files hold others. */
  change(next: RedisAccess): Promise<void>;
  /** Tries what the files hold, and uses it where Redis takes it. */
  tryNewest(): Promise<void>;
  /** An attempt to connect has failed. Where the server refuses what it was shown, or shows what is refused here, the others are used next. */
  failed(server: string | undefined, error: Error): void;
}

export interface LiveAccessOptions {
  /** What the connection is called in logs. */
  readonly name: string;
  readonly initial: RedisAccess;
  /** All connections that are open with these credentials. */
  readonly living: () => readonly Redis[];
  /** Sends a command also while the connection is not to be believed. */
  readonly unheld: <T>(send: () => T) => T;
  /** Whether a server is one of those that are asked now. */
  readonly isInUse: (server: string) => boolean;
  /** Connects beside the others, once. Gives what that failed with. */
  readonly tryServer: (server: ServerAddress, access: RedisAccess) => Promise<Error | undefined>;
  /** Called where Redis refuses the credentials: the files may have changed. */
  readonly onRefused: (() => void) | undefined;
  readonly log: Log;
}

/** How long the ones before are used where a server took the new ones, and did not let them do what is needed. */
const FALL_BACK_MS = 30_000;
/** Servers of which is kept what they were last connected to with. */
const MAX_SERVERS = 100;

const REFUSED: Readonly<Record<AccessPart, string>> = {
  credentials: 'Redis refuses the credentials that the files hold now; those before are still used, and the new ones are tried again',
  ca: 'the certificate of Redis is not from the CA that tls.caFile holds now; the CA before is still used, and the new one is tried again',
  sentinelCredentials: 'a sentinel refuses the credentials that the files hold now; those before are still used, and the new ones are tried again',
  sentinelCa:
    'the certificate of a sentinel is not from the CA that sentinelTls.caFile holds now; the CA before is still used, and the new one is tried again',
};

/** A part is one object for as long as its content is the same. */
interface Part {
  current: RedisAccess;
  newest: RedisAccess;
  /** What was good before, in case that the current one is not. */
  previous: RedisAccess | undefined;
  isRefused: boolean;
  /** Servers that have refused `current`, while the newest was not taken: they get the newest. Each node of a Cluster may have a certificate of its own. */
  readonly ahead: Set<string>;
}

/** What Redis refuses changes nothing: a secret store may be ahead of Redis. It is tried again. */
export function createLiveAccess(options: LiveAccessOptions): LiveAccess {
  const { name, initial, living, unheld, isInUse, tryServer, onRefused, log } = options;
  const parts: Readonly<Record<AccessPart, Part>> = {
    credentials: startPart(initial),
    ca: startPart(initial),
    sentinelCredentials: startPart(initial),
    sentinelCa: startPart(initial),
  };
  /** The newest credentials are not tried before this time. */
  let notBefore = Number.NEGATIVE_INFINITY;
  const opened = new LRUCache<string, { readonly server: ServerAddress; readonly by: Readonly<Record<AccessPart, RedisAccess>> }>({
    max: MAX_SERVERS,
  });

  const currentOf = (part: AccessPart) => parts[part].current;
  /** Of all sentinels one is asked after the other, with the same. */
  const choiceOf = (part: AccessPart, server: string) => (isOfSentinels(part) ? 'sentinels' : server);
  const chosenFor = (server: string) => (part: AccessPart) =>
    parts[part].ahead.has(choiceOf(part, server)) ? parts[part].newest : parts[part].current;
  const newestOf = (part: AccessPart) => parts[part].newest;

  function refuse(part: AccessPart): void {
    if (!parts[part].isRefused) log.error({ connection: name }, REFUSED[part]);
    parts[part].isRefused = true;
  }

  function putInUse(part: AccessPart, tried: RedisAccess): void {
    const { isRefused, current } = parts[part];
    if (isRefused) log.info({ connection: name }, part.endsWith('redentials') ? 'redis takes the new credentials' : 'redis fits the new CA');
    parts[part].isRefused = false;
    parts[part].ahead.clear();
    // A CA that the file has lost is not believed again once all servers were seen to fit the new one.
    parts[part].previous = part === 'credentials' && tried !== current ? current : undefined;
    parts[part].current = tried;
  }

  /** Whether a living connection takes them; undefined: it was not asked. A subscriber of RESP2 may not even ask. */
  async function takes(connection: Redis, { username, password }: RedisAccess): Promise<boolean | undefined> {
    if (connection.status !== 'ready' || password === undefined) return undefined;
    const secret = password.reveal();
    try {
      await unheld(() => (username === undefined ? connection.auth(secret) : connection.auth(username, secret)));
      return true;
    } catch (error) {
      return error instanceof Error && stateOf(error) === 'WRONGPASS' ? false : undefined;
    }
  }

  /** What each server that is in use says to a connection of its own. */
  async function askServers(part: AccessPart, tried: RedisAccess): Promise<readonly (AccessPart | 'good' | 'unknown')[]> {
    const servers = [...opened].filter(([name, { server }]) => server.isSentinel === isOfSentinels(part) && isInUse(name));
    return await Promise.all(
      servers.map(async ([name, { server }]) => {
        const error = await tryServer(
          server,
          composeAccess((one) => (one === part ? tried : chosenFor(name)(one))),
        );
        return error ? (blameOf(server.isSentinel, error) ?? 'unknown') : 'good';
      }),
    );
  }

  /** Beside the living connections first: a user who may not do what is needed must not cost a request. */
  async function tryCredentials(): Promise<void> {
    if (performance.now() < notBefore) return;
    const tried = newestOf('credentials');
    const beside = tried === currentOf('credentials') ? [] : await askServers('credentials', tried);
    if (tried !== newestOf('credentials')) return;
    if (beside.includes('credentials')) {
      refuse('credentials');
      return;
    }
    const answers = await Promise.all(living().map(async (connection) => await takes(connection, tried)));
    if (tried !== newestOf('credentials')) return;
    if (answers.includes(false)) refuse('credentials');
    else if (answers.includes(true)) putInUse('credentials', tried);
    // Nobody living could be asked: then a server that is there has to say it.
    else if (beside.length > 0 && !beside.includes('unknown')) putInUse('credentials', tried);
  }

  /** Living connections say nothing of what is asked at a connect: CAs, and who may ask a sentinel. */
  async function tryConnecting(part: Exclude<AccessPart, 'credentials'>): Promise<void> {
    const tried = newestOf(part);
    if (tried === currentOf(part)) {
      parts[part].isRefused = false;
      parts[part].ahead.clear();
      return;
    }
    const answers = await askServers(part, tried);
    if (tried !== newestOf(part)) return;
    const isUnknown = answers.every((answer) => answer === 'unknown') || (!isOfSentinels(part) && answers.includes('unknown'));
    if (answers.includes(part)) refuse(part);
    // A server that does not answer now may have what was good before; of the sentinels one is enough.
    else if (!isUnknown) putInUse(part, tried);
  }

  async function tryNewest(): Promise<void> {
    await Promise.all([tryCredentials(), tryConnecting('ca'), tryConnecting('sentinelCredentials'), tryConnecting('sentinelCa')]);
  }

  return {
    currentFor: (server) => composeAccess(chosenFor(server)),
    get isNewest() {
      return ACCESS_PARTS.every((part) => newestOf(part) === currentOf(part));
    },
    get problems() {
      return ACCESS_PARTS.filter((part) => parts[part].isRefused && newestOf(part) !== currentOf(part)).map((part) => `${name}: ${REFUSED[part]}`);
    },
    opening: (server, address) => void opened.set(server, { server: address, by: everyPart(chosenFor(server)) }),
    confirm() {
      parts.credentials.previous = undefined;
    },
    async fallBack() {
      const { previous, current, newest } = parts.credentials;
      if (!previous || current !== newest) return;
      refuse('credentials');
      notBefore = performance.now() + FALL_BACK_MS;
      parts.credentials.current = previous;
      parts.credentials.previous = undefined;
      await Promise.all(living().map(async (connection) => await takes(connection, previous)));
    },
    async change(next) {
      for (const part of ACCESS_PARTS) {
        const { current, newest } = parts[part];
        const same = [current, newest].find((one) => digestOf(part, one) === digestOf(part, next));
        if (same !== newest) parts[part].ahead.clear();
        parts[part].newest = same ?? next;
      }
      notBefore = Number.NEGATIVE_INFINITY;
      await tryNewest();
    },
    tryNewest,
    failed(server, error) {
      const of = server === undefined ? undefined : opened.get(server);
      const part = blameOf(of?.server.isSentinel === true, error);
      if (part === undefined) return;
      const { current, newest, previous, ahead } = parts[part];
      // Another node may have refused the same before.
      const isOfCurrent = of?.by[part] === current;
      if (part !== 'credentials' && server !== undefined) {
        // What is here is not that of this server. Where neither is, each is tried in turn.
        if (isOfCurrent && current !== newest) ahead.add(choiceOf(part, server));
        else ahead.delete(choiceOf(part, server));
      } else if (isOfCurrent) {
        const next = current === newest ? previous : newest;
        if (next !== undefined) [parts[part].current, parts[part].previous] = [next, current];
      }
      onRefused?.();
    },
  };
}

function isOfSentinels(part: AccessPart): boolean {
  return part === 'sentinelCredentials' || part === 'sentinelCa';
}

function startPart(initial: RedisAccess): Part {
  return { current: initial, newest: initial, previous: undefined, isRefused: false, ahead: new Set() };
}

function everyPart<T>(of: (part: AccessPart) => T): Readonly<Record<AccessPart, T>> {
  return {
    credentials: of('credentials'),
    ca: of('ca'),
    sentinelCredentials: of('sentinelCredentials'),
    sentinelCa: of('sentinelCa'),
  };
}

/** Two of which this is the same are the same in that part. */
function digestOf(part: AccessPart, { username, password, tls, sentinel }: RedisAccess): string {
  const found = {
    credentials: [username, password?.reveal()],
    ca: [tls?.ca],
    sentinelCredentials: [sentinel?.username, sentinel?.password?.reveal()],
    sentinelCa: [sentinel?.tls?.ca],
  };
  return JSON.stringify(found[part]);
}

/** The part for which a connection failed, if it is for one of them. */
function blameOf(isSentinel: boolean, error: Error): AccessPart | undefined {
  const state = stateOf(error);
  if (state === 'NOAUTH' || state === 'WRONGPASS' || state === 'NOPERM') return isSentinel ? 'sentinelCredentials' : 'credentials';
  if (!isOfCertificate(error)) return undefined;
  return isSentinel ? 'sentinelCa' : 'ca';
}
