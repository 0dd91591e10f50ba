import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { freePort } from './free-port.js';

export interface TcpProxy {
  /** The target's URL with the proxy's port. */
  readonly url: string;
  /** Bytes that clients have sent through, so that a test can tell that nothing was asked. */
  readonly sentBytes: number;
  /** Whether this text has crossed in either direction, in clear. */
  saw(text: string): boolean;
  /** How often clients have sent something: round trips, as long as one waits for the other. */
  readonly sends: number;
  /** Refuses connections and cuts those that are there: the server is gone. */
  cut(): Promise<void>;
  /** Accepts and passes nothing on: the server is silent. */
  silence(): void;
  /**
   * Cuts the connection over which the server answers a command that fits: it was done, and nobody hears of it. The server
   * is gone from then on.
   */
  swallowAnswerTo(fits: (command: string) => boolean): void;
  /** Keeps a command that fits and all after it from the server, until `go` is called; `held` resolves once one is kept. */
  holdAt(fits: (command: string) => boolean): { readonly held: Promise<void>; go(): void };
  /** New connections are made to another server, as when a name leads elsewhere; those that are there stay as they are. */
  leadTo(url: string): void;
  /** Passes nothing on to replicas that follow through here: what is written from now on is lost with the primary. */
  silenceReplicas(): void;
  /** Passes everything on again. */
  restore(): Promise<void>;
  close(): Promise<void>;
}

export interface TcpProxyOptions {
  /** So that `saw` can tell. */
  readonly records?: boolean;
  /** Fields of INFO that it keeps back, as some managed services do. */
  readonly hides?: readonly string[];
  /** How long each answer takes longer, in ms. */
  readonly delayMs?: number;
}

/** Stands between a client and a Redis, to take it away by really taking it away. */
export async function startTcpProxy(targetUrl: string, { records = false, hides = [], delayMs = 0 }: TcpProxyOptions = {}): Promise<TcpProxy> {
  let target = new URL(targetUrl);
  const crossed: Buffer[] = [];
  const port = await freePort();
  const sockets = new Set<Socket>();
  let silent = false;
  let replicasAreSilent = false;
  let sentBytes = 0;
  let sends = 0;
  let swallowing: ((command: string) => boolean) | undefined;
  let holding: ((command: string) => boolean) | undefined;

  const server = createServer((client) => {
    const upstream = connect(Number(target.port || 6379), target.hostname);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    const pass = (chunk: Buffer) => void (delayMs === 0 ? client.write(chunk) : setTimeout(() => client.write(chunk), delayMs));
    let swallowed = false;
    let isReplica = false;
    client.on('data', (chunk) => {
      if (swallowing?.(chunk.toString())) swallowed = true;
      if (records) crossed.push(chunk);
      isReplica ||= chunk.includes('PSYNC');
      const asked = withoutProbes(chunk);
      sentBytes += asked;
      if (asked > 0) sends += 1;
      if (holding?.(chunk.toString())) upstream.cork();
      if (!silent) upstream.write(chunk);
    });
    upstream.on('data', (chunk) => {
      if (records) crossed.push(chunk);
      if (swallowed) void cut();
      else if (!silent && !(isReplica && replicasAreSilent)) pass(hides.length > 0 ? withoutFields(chunk, hides) : chunk);
    });
  });

  async function listen(): Promise<void> {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  }

  async function cut(): Promise<void> {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    for (const socket of sockets) socket.destroy();
    await closed;
  }

  await listen();
  const url = new URL(targetUrl);
  url.port = String(port);
  return {
    url: url.toString(),
    get sentBytes() {
      return sentBytes;
    },
    saw: (text) => Buffer.concat(crossed).includes(text),
    get sends() {
      return sends;
    },
    cut,
    silence() {
      silent = true;
    },
    swallowAnswerTo(fits) {
      swallowing = fits;
    },
    holdAt(fits) {
      const held = new Promise<void>((resolve) => {
        holding = (command) => {
          if (!fits(command)) return false;
          resolve();
          return true;
        };
      });
      return {
        held,
        go() {
          holding = undefined;
          for (const socket of sockets) while (socket.writableCorked > 0) socket.uncork();
        },
      };
    },
    leadTo(url) {
      target = new URL(url);
    },
    silenceReplicas() {
      replicasAreSilent = true;
    },
    async restore() {
      silent = false;
      replicasAreSilent = false;
      swallowing = undefined;
      if (!server.listening) await listen();
    },
    close: cut,
  };
}

/** The bridge probes a store of records for its role and one key, independent of requests. */
const PROBES = /\*1\r\n\$4\r\nrole\r\n|\*2\r\n\$[34]\r\n(?:pttl|mget|get)\r\n\$\d+\r\n\S*crossfade-readiness\r\n/g;

function withoutProbes(chunk: Buffer): number {
  return chunk.toString('latin1').replaceAll(PROBES, '').length;
}

/** The length of the answer stays: the fields have another name. */
function withoutFields(chunk: Buffer, names: readonly string[]): Buffer {
  const text = names.reduce((rest, name) => rest.replaceAll(`\n${name}:`, `\n${'x'.repeat(name.length)}:`), chunk.toString('latin1'));
  return Buffer.from(text, 'latin1');
}
