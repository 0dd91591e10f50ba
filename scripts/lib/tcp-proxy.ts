import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { freePort } from './free-port.js';

export interface TcpProxy {
  /** The target's URL with the proxy's port. */
  readonly url: string;
  /** Bytes that clients have sent through, so that a test can tell that nothing was asked. */
  readonly sentBytes: number;
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
  /** Passes everything on again. */
  restore(): Promise<void>;
  close(): Promise<void>;
}

/** Stands between a client and a Redis, to take it away by really taking it away. */
export async function startTcpProxy(targetUrl: string): Promise<TcpProxy> {
  const target = new URL(targetUrl);
  const port = await freePort();
  const sockets = new Set<Socket>();
  let silent = false;
  let sentBytes = 0;
  let sends = 0;
  let swallowing: ((command: string) => boolean) | undefined;

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
    let swallowed = false;
    client.on('data', (chunk) => {
      if (swallowing?.(chunk.toString())) swallowed = true;
      sentBytes += chunk.length;
      sends += 1;
      if (!silent) upstream.write(chunk);
    });
    upstream.on('data', (chunk) => {
      if (swallowed) void cut();
      else if (!silent) client.write(chunk);
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
    async restore() {
      silent = false;
      swallowing = undefined;
      if (!server.listening) await listen();
    },
    close: cut,
  };
}
