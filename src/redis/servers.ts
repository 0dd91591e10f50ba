import { Cluster, type Redis } from 'ioredis';
import type { RedisTarget } from '../config/config.js';
import type { RedisClient, Trial } from './client.js';
import { keyOfServer, type ServerAddress } from './connector.js';
import { type Fault, faultOf, stateOf } from './faults.js';
import { type ProbeKind, probeServer, refuseForbidden, type Send } from './probe.js';

/** Stands for the server of a URL, and for the primary behind sentinels. */
export const PRIMARY = 'primary';
export const NO_CLUSTER = 'no node says who has the slots: is it a Cluster, is it formed, may this user ask CLUSTER SLOTS and CLUSTER INFO?';

/** For whom credentials are chosen: each node of a Cluster, each sentinel, and the one primary wherever it is. */
export function choiceOf({ cluster }: Pick<RedisTarget, 'cluster'>, server: ServerAddress): string {
  return cluster || server.isSentinel ? keyOfServer(server) : PRIMARY;
}

/** Whether the name leads to a primary now. The replica that lives on at the other end of this connection may be the old one. */
export async function hasPrimaryElsewhere(single: Redis): Promise<boolean> {
  const another = single.duplicate({ lazyConnect: true, enableOfflineQueue: false, retryStrategy: null, reconnectOnError: null });
  another.on('error', () => undefined);
  try {
    await another.connect();
    const [role] = await another.role();
    return role === 'master';
  } catch {
    return false;
  } finally {
    another.disconnect();
  }
}

/** ioredis goes on with database 0 where the one that it was given cannot be selected. */
export async function selectDatabase(single: Redis, unheld: Send): Promise<Fault | undefined> {
  const { db = 0 } = single.options;
  if (db === 0) return undefined;
  try {
    await unheld(() => single.select(db));
    return undefined;
  } catch (error) {
    const state = error instanceof Error ? stateOf(error) : undefined;
    return faultOf(state ?? (error instanceof Error && error.name === 'ReplyError' ? 'WRONGDB' : 'TIMEOUT'));
  }
}

/** As ioredis calls the nodes of a Cluster. */
export function nameOf({ options, stream }: Redis): string {
  const { remoteAddress, remotePort } = stream ?? {};
  return options.host !== undefined && options.sentinels == null ? `${options.host}:${options.port}` : `${remoteAddress}:${remotePort}`;
}

/** The time by the clock of Redis, in ms. */
export async function timeOf(client: RedisClient): Promise<number> {
  const [node] = client instanceof Cluster ? client.nodes('master') : [client];
  if (!node) throw new Error('the Redis Cluster has no master');
  const [seconds, micros] = (await node.time()).map(Number);
  return (seconds ?? 0) * 1000 + Math.floor((micros ?? 0) / 1000);
}

/** What a server must do that is tried. The nodes of a Cluster have each other slots: there only the connection is tried. */
export function trialOf(
  client: RedisClient,
  { isSentinel }: ServerAddress,
  { commandTimeoutMs, probe, probeKey }: { readonly commandTimeoutMs: number; readonly probe: ProbeKind; readonly probeKey: string },
): Trial {
  const timeoutMs = Math.max(commandTimeoutMs, 1000);
  if (isSentinel || client instanceof Cluster) return { timeoutMs, database: 0, check: undefined };
  const check = async (connection: Redis) => refuseForbidden(await probeServer(connection, probe, probeKey));
  return { timeoutMs, database: client.options.db ?? 0, check };
}
