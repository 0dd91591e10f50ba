import { Redis } from 'ioredis';
import { freePort } from '../../scripts/lib/free-port.js';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { type Certificate, tlsArgs } from './certificates.js';

export interface PrivateCluster {
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
  readonly servers: readonly PrivateRedis[];
  /** With `withReplica`. Loses what is written to the first master from now on: its replica does not get it. */
  loseWrites(): void;
  stop(): Promise<void>;
}

const SLOTS = 16_384;
const MASTERS = 3;

export interface ClusterOptions {
  /** Certificates that hold the name localhost only, as those of managed Clusters hold names; all nodes speak TLS only. */
  readonly tls?: { readonly certificate: Certificate; readonly caFile: string; readonly ca: string };
  readonly password?: string;
  readonly args?: readonly string[];
  /** Whether the first master has a replica, which takes its place when it dies. Not with TLS or a password. */
  readonly withReplica?: boolean;
}

/** A Redis Cluster of three masters, from the same binary as the single servers. */
export async function startCluster({ tls, password, args = [], withReplica = false }: ClusterOptions = {}): Promise<PrivateCluster> {
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
  // Everyone reaches the first master through it, so that its replica can be kept from following.
  const firstPort = await freePort();
  const proxy = withReplica ? await startTcpProxy(`redis://127.0.0.1:${firstPort}`) : undefined;
  async function startNode(at: number): Promise<void> {
    // Below the ports that outgoing connections get, where 10,000 more would not be.
    const bus = await freePort();
    buses.push(bus);
    const announced = at === 0 && proxy ? ['--cluster-announce-port', new URL(proxy.url).port] : [];
    servers.push(
      await startRedis({
        ...(tls ? { ca: tls.ca } : {}),
        ...(at === 0 ? { port: firstPort } : {}),
        args: [
          ...announced,
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
  for (let at = 0; at < MASTERS; at++) await startNode(at);
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
  await Promise.all(clients.map(async (client) => await untilWhole(client, MASTERS)));
  if (withReplica) {
    await startNode(MASTERS);
    const [master, , , replica] = [...clients, new Redis(servers.at(-1)?.url ?? '')];
    if (!master || !replica) throw new Error('a Cluster has masters');
    clients.push(replica);
    await replica.call('CLUSTER', 'MEET', '127.0.0.1', firstPort, buses[0] ?? 0);
    await Promise.all(clients.map(async (client) => await untilWhole(client, MASTERS + 1)));
    await replica.call('CLUSTER', 'REPLICATE', String(await master.call('CLUSTER', 'MYID')));
    await untilIn(async () => String(await replica.info('replication')), 'master_link_status:up');
  }
  for (const client of clients) client.disconnect();
  return {
    nodes: servers.slice(0, MASTERS).map(({ port }) => ({ host: tls ? 'localhost' : '127.0.0.1', port })),
    servers,
    loseWrites: () => proxy?.silenceReplicas(),
    async stop() {
      for (const server of servers) await server.stop();
      await proxy?.close();
    },
  };
}

async function untilWhole(client: Redis, nodes: number): Promise<void> {
  await untilIn(async () => String(await client.cluster('INFO')), 'cluster_state:ok', `cluster_known_nodes:${nodes}`);
}

async function untilIn(ask: () => Promise<string>, ...wanted: readonly string[]): Promise<void> {
  for (;;) {
    const text = await ask();
    if (wanted.every((part) => text.includes(part))) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
