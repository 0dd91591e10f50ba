import { Redis } from 'ioredis';
import { freePort } from '../../scripts/lib/free-port.js';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import { type Certificate, tlsArgs } from './certificates.js';

export interface PrivateCluster {
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
  readonly servers: readonly PrivateRedis[];
  stop(): Promise<void>;
}

const SLOTS = 16_384;
const MASTERS = 3;

export interface ClusterOptions {
  /** Certificates that hold the name localhost only, as those of managed Clusters hold names; all nodes speak TLS only. */
  readonly tls?: { readonly certificate: Certificate; readonly caFile: string; readonly ca: string };
  readonly password?: string;
  readonly args?: readonly string[];
}

/** A Redis Cluster of three masters, from the same binary as the single servers. */
export async function startCluster({ tls, password, args = [] }: ClusterOptions = {}): Promise<PrivateCluster> {
  const secured = tls
    ? [
        ...tlsArgs(tls.certificate, tls.caFile),
        '--tls-cluster',
        'yes',
        '--cluster-announce-hostname',
        'localhost',
        '--cluster-preferred-endpoint-type',
        'hostname',
      ]
    : [];
  const passwords = password === undefined ? [] : ['--requirepass', password];
  const servers: PrivateRedis[] = [];
  const buses: number[] = [];
  for (let at = 0; at < MASTERS; at++) {
    // Below the ports that outgoing connections get, where 10,000 more would not be.
    const bus = await freePort();
    buses.push(bus);
    servers.push(
      await startRedis({
        ...(tls ? { ca: tls.ca } : {}),
        args: [
          '--cluster-enabled',
          'yes',
          '--cluster-port',
          String(bus),
          '--cluster-node-timeout',
          '2000',
          '--cluster-announce-ip',
          '127.0.0.1',
          ...secured,
          ...passwords,
          ...args,
        ],
      }),
    );
  }
  const clients = servers.map(
    ({ port }) =>
      new Redis({ host: '127.0.0.1', port, ...(password === undefined ? {} : { password }), ...(tls ? { tls: { rejectUnauthorized: false } } : {}) }),
  );
  const [first] = servers;
  for (const [at, client] of clients.entries()) {
    const [from, to] = [at, at + 1].map((part) => Math.floor((SLOTS * part) / MASTERS));
    const slots = Array.from({ length: (to ?? 0) - (from ?? 0) }, (_, slot) => (from ?? 0) + slot);
    await client.cluster('ADDSLOTS', ...slots);
    if (first && at > 0) await client.call('CLUSTER', 'MEET', '127.0.0.1', first.port, buses[0] ?? 0);
  }
  await Promise.all(clients.map(untilWhole));
  for (const client of clients) client.disconnect();
  return {
    nodes: servers.map(({ port }) => ({ host: tls ? 'localhost' : '127.0.0.1', port })),
    servers,
    async stop() {
      for (const server of servers) await server.stop();
    },
  };
}

async function untilWhole(client: Redis): Promise<void> {
  for (;;) {
    const info = String(await client.cluster('INFO'));
    if (info.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${MASTERS}`)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
