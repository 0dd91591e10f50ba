import { type AbstractConnector, type RedisOptions, SentinelConnector } from 'ioredis';
import { StandaloneConnector } from 'ioredis/built/connectors/index.js';

/** A server as the connection was opened to it. */
export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  readonly isSentinel: boolean;
}

/** As ioredis calls the nodes of a Cluster. */
export function keyOfServer({ host, port, isSentinel }: ServerAddress): string {
  return `${isSentinel ? 'sentinel ' : ''}${host}:${port}`;
}

/** Hears of each connection that ioredis opens. ioredis itself says where and why of some only. */
export interface ConnectionReports {
  /** It is being opened. */
  opening(server: ServerAddress): void;
  /** It failed, before or after it was up. */
  failed(server: ServerAddress, error: Error): void;
}

/** Options of ioredis that may change while a client lives: they are looked up at each connect. */
export type LiveOptions = Pick<
  RedisOptions,
  'host' | 'port' | 'db' | 'username' | 'password' | 'tls' | 'sentinelUsername' | 'sentinelPassword' | 'sentinelTLS'
>;

type Connect = AbstractConnector['connect'];
type Stream = Awaited<ReturnType<Connect>>;
type ConnectorClass = NonNullable<RedisOptions['Connector']>;

/** A class for each client, since ioredis takes a class. `bySentinel`: for a master that sentinels name. */
export function connectorFor(bySentinel: boolean, live: (node: NodeOptions) => LiveOptions, reports: ConnectionReports): ConnectorClass {
  return (bySentinel ? sentinelConnector(live, reports) : serverConnector(live, reports)) as ConnectorClass;
}

/** The node that ioredis connects to, where it says so before it connects: of a Cluster. */
export type NodeOptions = Pick<RedisOptions, 'host' | 'port'>;

/**
 * ioredis copies its options for each node of a Cluster and for each duplicate, and hands every copy to a new connector before it connects.
 * So that is where a changed password reaches all of them.
 */
function followLive(options: object, live: (node: NodeOptions) => LiveOptions): void {
  const names = Object.keys(live({}));
  // A URL in a file may get a user or a password that it did not have.
  for (const name of names.length === 0 ? [] : new Set([...names, 'username', 'password'])) {
    Object.defineProperty(options, name, { get: () => Reflect.get(live(options), name), enumerable: true, configurable: true });
  }
}

function serverConnector(live: (node: NodeOptions) => LiveOptions, reports: ConnectionReports, isSentinel = false) {
  return class HearingConnector extends StandaloneConnector {
    constructor(options: ConstructorParameters<typeof StandaloneConnector>[0]) {
      super(options);
      followLive(options, live);
    }

    override async connect(...args: Parameters<Connect>): ReturnType<Connect> {
      const { host = 'localhost', port = 6379 } = this.options;
      const server = { host, port, isSentinel };
      reports.opening(server);
      return hearErrors(await super.connect(...args), (error) => reports.failed(server, error));
    }
  };
}

function sentinelConnector(live: (node: NodeOptions) => LiveOptions, reports: ConnectionReports) {
  const toSentinel = serverConnector(() => ({}), reports, true);
  return class HearingSentinelConnector extends SentinelConnector {
    constructor(options: ConstructorParameters<typeof SentinelConnector>[0]) {
      super(options);
      followLive(options, live);
      // ioredis makes a client for each sentinel, out of a fixed list of options.
      const make = this['connectToSentinel'].bind(this);
      this['connectToSentinel'] = (endpoint: unknown, more?: RedisOptions) => make(endpoint, { ...more, Connector: toSentinel });
    }

    override async connect(...args: Parameters<Connect>): ReturnType<Connect> {
      const stream = await super.connect(...args);
      let server = { host: '', port: 0, isSentinel: false };
      stream.on('connectionAttempt', (host: string, port: number) => {
        server = { host, port, isSentinel: false };
        reports.opening(server);
      });
      return hearErrors(stream, (error) => reports.failed(server, error));
    }
  };
}

/**
 * ioredis listens to the errors of a stream with `once`. A TLS stream may err twice: its certificate is refused, and in the same read the
 * server says why it gave up the handshake. The second error would end the process (law 7).
 */
function hearErrors(stream: Stream, report: (error: Error) => void): Stream {
  let isReported = false;
  stream.on('error', (error: Error) => {
    if (!isReported) report(error);
    isReported = true;
  });
  let isUp = false;
  stream.once('encrypted' in stream ? 'secureConnect' : 'connect', () => {
    isUp = true;
  });
  // Where ioredis gives up by time, it destroys the stream without a word.
  stream.once('close', () => {
    if (!isUp && !isReported) report(new Error('no answer in time'));
  });
  return stream;
}
