import { Redis } from 'ioredis';
import { freePort } from '../../scripts/lib/free-port.js';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';

export interface PrivateCluster {
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
  stop(): Promise<void>;
}

const SLOTS = 16_384;
const MASTERS = 3;

/** A Redis Cluster of three masters, from the same binary as the single servers. */
export async function startCluster(): Promise<PrivateCluster> {
  const servers: PrivateRedis[] = [];
  for (let at = 0; at < MASTERS; at++) {
    servers.push(await startRedis({ port: await clusterPort(), args: ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000'] }));
  }
  const clients = servers.map(({ url }) => new Redis(url));
  const [first] = servers;
  for (const [at, client] of clients.entries()) {
    const [from, to] = [at, at + 1].map((part) => Math.floor((SLOTS * part) / MASTERS));
    const slots = Array.from({ length: (to ?? 0) - (from ?? 0) }, (_, slot) => (from ?? 0) + slot);
    await client.cluster('ADDSLOTS', ...slots);
    if (first && at > 0) await client.cluster('MEET', '127.0.0.1', first.port);
  }
  await Promise.all(clients.map(untilWhole));
  for (const client of clients) client.disconnect();
  return {
    nodes: servers.map(({ port }) => ({ host: '127.0.0.1', port })),
    async stop() {
      for (const server of servers) await server.stop();
    },
  };
}

/** The bus of a node listens 10,000 ports above it. */
async function clusterPort(): Promise<number> {
  for (;;) {
    const port = await freePort();
    if (port < 55_000) return port;
  }
}

async function untilWhole(client: Redis): Promise<void> {
  for (;;) {
    const info = String(await client.cluster('INFO'));
    if (info.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${MASTERS}`)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
