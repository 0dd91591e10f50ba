import { Redis } from 'ioredis';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { type Certificate, tlsArgs } from './certificates.js';

export interface SentinelSetup {
  readonly primary: PrivateRedis;
  readonly replica: PrivateRedis;
  readonly sentinel: PrivateRedis;
  /** Loses what is written from now on: the replica does not get it. */
  loseWrites(): void;
  /** Whether this crossed the port of the primary in clear. */
  saw(text: string): boolean;
  stop(): Promise<void>;
}

export interface SentinelOptions {
  /** Of all servers: both Redis and the sentinel speak TLS only. */
  readonly tls?: { readonly certificate: Certificate; readonly caFile: string; readonly ca: string };
  /** Password of the data nodes. */
  readonly password?: string;
  /** Arguments of the data nodes, for ACL users. */
  readonly args?: readonly string[];
  /** Lines of the sentinel's configuration, for its own password or users. */
  readonly sentinelLines?: readonly string[];
}

export const MASTER_NAME = 'main';

/** A primary, a replica of it, and one sentinel that watches them and fails over after half a second. */
export async function startSentinel({ tls, password, args = [], sentinelLines = [] }: SentinelOptions = {}): Promise<SentinelSetup> {
  const secured = tls ? tlsArgs(tls.certificate, tls.caFile) : [];
  const passwords = password === undefined ? [] : ['--requirepass', password, '--masterauth', password];
  const common = { ...(tls ? { ca: tls.ca } : {}), args: [...secured, ...passwords, ...args, '--repl-diskless-sync-delay', '0'] };
  const primary = await startRedis(common);
  const proxy = await startTcpProxy(primary.url, { records: true });
  const { port: followed } = new URL(proxy.url);
  const replica = await startRedis({ ...common, args: [...common.args, '--replicaof', '127.0.0.1', followed] });
  // A sentinel asks its primary for replicas every ten seconds: before it knows one it does not fail over.
  const asked = new Redis({
    host: '127.0.0.1',
    port: replica.port,
    ...(password === undefined ? {} : { password }),
    ...(tls ? { tls: { rejectUnauthorized: false } } : {}),
  });
  for (let link = ''; !link.includes('master_link_status:up'); ) link = await asked.info('replication');
  asked.disconnect();
  const sentinel = await startRedis({
    ...(tls ? { ca: tls.ca } : {}),
    args: ['--sentinel', ...secured],
    file: (directory) =>
      [
        `dir ${directory}`,
        `sentinel monitor ${MASTER_NAME} 127.0.0.1 ${followed} 1`,
        `sentinel down-after-milliseconds ${MASTER_NAME} 500`,
        `sentinel failover-timeout ${MASTER_NAME} 5000`,
        ...(password === undefined ? [] : [`sentinel auth-pass ${MASTER_NAME} ${password}`]),
        ...sentinelLines,
        '',
      ].join('\n'),
  });
  return {
    primary,
    replica,
    sentinel,
    loseWrites: () => proxy.silenceReplicas(),
    saw: (text) => proxy.saw(text),
    async stop() {
      for (const server of [sentinel, replica, primary]) await server.stop();
      await proxy.close();
    },
  };
}
