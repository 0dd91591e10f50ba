import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { freePort } from '../../scripts/lib/free-port.js';

export interface HoldingProxy {
  readonly port: number;
  /** How many connections were passed their answer late. */
  readonly held: number;
  close(): Promise<void>;
}

const LATE_MS = 30;

/**
 * Holds back what a server says until the client has given the connection up, and then passes all of it in one write: what comes in two reads
 * as a rule, such as a certificate and an alert, comes in one.
 */
export async function startHoldingProxy(target: number): Promise<HoldingProxy> {
  const port = await freePort();
  const sockets = new Set<{ destroy(): void }>();
  let held = 0;
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const upstream = connect({ port: target, host: '127.0.0.1', allowHalfOpen: true });
    const said: Buffer[] = [];
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => sockets.delete(socket));
    }
    client.on('data', (chunk) => upstream.write(chunk));
    upstream.on('data', (chunk) => said.push(chunk));
    client.on('end', () => {
      upstream.end();
      setTimeout(() => {
        held += 1;
        if (!client.destroyed) client.end(Buffer.concat(said));
      }, LATE_MS);
    });
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    port,
    get held() {
      return held;
    },
    async close() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
