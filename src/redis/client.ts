import { isIP } from 'node:net';
import { Cluster, Redis, type RedisOptions } from 'ioredis';
import type { RedisAccess, RedisTarget, TlsTarget } from '../config/config.js';
import { type ConnectionReports, connectorFor, type NodeOptions, type ServerAddress } from './connector.js';
import { stateOf } from './faults.js';

/** The commands that Crossfade uses, on a single server, behind Sentinel, or on a Cluster. */
export type RedisClient = Redis | Cluster;

type Command = Parameters<Redis['sendCommand']>[0];
type Stream = Parameters<Redis['sendCommand']>[1];

/** A client whose commands can be held back while its server must not be believed. */
class GatedRedis extends Redis {
  /** Undefined: the command may go out. Not asked for what ioredis sends before the connection is ready. */
  refusal: (() => Error | undefined) | undefined;

  override sendCommand(command: Command, stream?: Stream): unknown {
    const refusal = this.status === 'ready' ? this.refusal?.() : undefined;
    if (refusal === undefined) return super.sendCommand(command, stream);
    command.reject(refusal);
    return command.promise;
  }
}

/** ioredis counts `commandTimeout` anew for each attempt and redirection. Here a command fails after one such time in all. */
class PunctualCluster extends Cluster {
  /** In ms. */
  commandTimeoutMs = 0;

  override sendCommand(...args: Parameters<Cluster['sendCommand']>): unknown {
    const [command, , node] = args;
    // What ioredis puts in its place tries the command again.
    const reject = command.reject;
    const sent = super.sendCommand(...args);
    if (node === undefined) void this.#within(command.promise, () => reject.call(command, timedOut()));
    return sent;
  }

  override pipeline(...args: Parameters<Cluster['pipeline']>): ReturnType<Cluster['pipeline']> {
    const pipeline = super.pipeline(...args);
    const exec = pipeline.exec.bind(pipeline);
    pipeline.exec = async () => {
      // Where it follows a redirection ioredis calls `exec` again, and waits for that by itself.
      pipeline.exec = exec;
      return await new Promise<Awaited<ReturnType<typeof exec>>>((resolve, reject) => {
        const work = exec();
        work.then(resolve, reject);
        void this.#within(work, () => reject(timedOut()));
      });
    };
    return pipeline;
  }

  async #within(work: Promise<unknown>, late: () => void): Promise<void> {
    const timer = setTimeout(late, this.commandTimeoutMs);
    await work.catch(() => undefined);
    clearTimeout(timer);
  }
}

function timedOut(): Error {
  return new Error('Command timed out');
}

/** Replies come as RESP2 has them, whatever the protocol. */
type Options = Omit<RedisOptions, 'replyMapping'>;

export interface RedisClientOptions {
  readonly commandTimeoutMs: number;
  /** Called with each error that Redis answers a command with, and the connection that it came over. True: that one is opened anew. */
  readonly onReplyError: (error: Error) => boolean;
  readonly reports: ConnectionReports;
  /** Credentials as they are now; looked up at each connect. `node`: of a Cluster. */
  readonly access: (node?: ServerAddress) => RedisAccess;
  /** Holds commands back; not for a Cluster, whose nodes redirect by themselves. */
  readonly refusal: () => Error | undefined;
}

/** A client that connects when it is told to. */
export function createRedisClient(
  target: RedisTarget,
  { commandTimeoutMs, onReplyError, reports, access, refusal }: RedisClientOptions,
): RedisClient {
  function live(node: NodeOptions) {
    if (!target.cluster) return { ...credentials(access()), ...address(access()), ...sentinelCredentials(access()) };
    const { host, port } = node;
    return credentials(access(host === undefined || port === undefined ? undefined : { host, port, isSentinel: false }));
  }
  const common = {
    maxRetriesPerRequest: 0,
    commandTimeout: commandTimeoutMs,
    disconnectTimeout: 100,
    connectTimeout: Math.max(commandTimeoutMs, 1000),
    socketTimeout: commandTimeoutMs * 4,
    reconnectOnError: onReplyError,
    Connector: connectorFor(target.sentinels !== undefined, live, reports),
    ...credentials(target.access),
  };
  if (target.cluster) {
    const cluster = new PunctualCluster([...target.cluster], {
      lazyConnect: true,
      enableOfflineQueue: false,
      clusterRetryStrategy: reconnectDelay,
      // What it would wait for between attempts is longer than a request may take.
      maxRedirections: 3,
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
      // Certificates hold names: ioredis would look them up, and compare the address.
      dnsLookup: (address, callback) => callback(null, address),
      redisOptions: common,
    });
    cluster.commandTimeoutMs = commandTimeoutMs;
    return cluster;
  }
  const options: Options = {
    ...common,
    ...address(target.access),
    lazyConnect: true,
    enableOfflineQueue: false,
    enableReadyCheck: false,
    retryStrategy: reconnectDelay,
  };
  const client = new GatedRedis(target.sentinels ? { ...options, ...bySentinel(target, commandTimeoutMs) } : options);
  client.refusal = refusal;
  return client;
}

/** That a user may not ask says that the server has let them in. */
function unlessForbidden(error: unknown): void {
  if (!(error instanceof Error) || stateOf(error) !== 'NOPERM') throw error;
}

export interface Trial {
  readonly timeoutMs: number;
  readonly database: number;
  /** What else the server must do. Rejects where it does not. */
  readonly check: ((connection: Redis) => Promise<void>) | undefined;
}

/** Connects to one server by itself, and gives what that failed with: what is to be tried is no business of the client's. */
export async function tryServer(server: ServerAddress, access: RedisAccess, { timeoutMs, database, check }: Trial): Promise<Error | undefined> {
  const { host, port, isSentinel } = server;
  let failure: Error | undefined;
  const failed = (error: unknown) => {
    failure ??= error instanceof Error ? error : new Error(String(error));
  };
  const trial = new Redis({
    ...credentials(isSentinel ? (access.sentinel ?? {}) : access),
    host,
    port,
    db: database,
    lazyConnect: true,
    enableOfflineQueue: false,
    enableReadyCheck: false,
    retryStrategy: null,
    connectTimeout: timeoutMs,
    commandTimeout: timeoutMs,
    Connector: connectorFor(false, () => ({}), { opening: () => undefined, failed: (_, error) => failed(error) }),
  });
  trial.on('error', failed);
  try {
    await trial.connect();
    await (check ? check(trial) : trial.ping().catch(unlessForbidden));
  } catch (error) {
    failed(error);
  } finally {
    trial.disconnect();
  }
  return failure;
}

function bySentinel({ sentinels = [], name, database, access }: RedisTarget, commandTimeoutMs: number): Options {
  return {
    sentinels: [...sentinels],
    sentinelRetryStrategy: reconnectDelay,
    sentinelCommandTimeout: commandTimeoutMs,
    // Without it ioredis speaks to the master in plain text, whatever `tls` says.
    enableTLSForSentinelMode: access.tls !== undefined,
    ...(name === undefined ? {} : { name }),
    ...(database === undefined ? {} : { db: database }),
    ...sentinelCredentials(access),
  };
}

function address({ server }: RedisAccess) {
  return server ? { host: server.host, port: server.port, db: server.database } : {};
}

export function credentials({ server, username, password, tls }: RedisAccess) {
  return {
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password: password.reveal() }),
    ...(tls ? { tls: tlsOptions(tls, server?.host) } : {}),
  };
}

function sentinelCredentials({ sentinel }: RedisAccess) {
  return {
    ...(sentinel?.username === undefined ? {} : { sentinelUsername: sentinel.username }),
    ...(sentinel?.password === undefined ? {} : { sentinelPassword: sentinel.password.reveal() }),
    ...(sentinel?.tls ? { sentinelTLS: tlsOptions(sentinel.tls, undefined) } : {}),
  };
}

/** A TLS proxy in front of many servers tells them apart by the name that the client sends (RFC 6066, section 3). It is never an address. */
function tlsOptions({ ca, servername }: TlsTarget, host: string | undefined): NonNullable<RedisOptions['tls']> {
  const name = servername ?? (host !== undefined && isIP(host) === 0 ? host : undefined);
  return { ...(ca === undefined ? {} : { ca }), ...(name === undefined ? {} : { servername: name }) };
}

/** Soon at first, then twice a second: a restarted Redis is found again before clients have spent their retries. */
function reconnectDelay(attempt: number): number {
  return Math.min(25 * 2 ** Math.min(attempt, 6), 500);
}
