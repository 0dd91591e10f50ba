import calculateSlot from 'cluster-key-slot';
import type { Cluster, Redis } from 'ioredis';
import { type Fault, faultOf, forbidden, forbiddenCommand, type RedisState, stateOf } from './faults.js';
import { readScript } from './script.js';

/**
 * Asks whether a server does what it is there for: `write`, whether it takes writes (the bridge's own keys); `role`, whether what it holds is
 * new (a store of records, which may be read-only). A connection that lives says neither: after a failover the old primary may live on.
 */
export type ProbeKind = 'write' | 'role';

/** What a probe found. */
export interface ProbeOutcome {
  /** Undefined: all is well. */
  readonly fault: Fault | undefined;
  /** It follows a primary: what it holds may be read, for as long as it does. */
  readonly isReplica: boolean;
}

/** The key of probes among the bridge's own. `keyPrefix`: of the configuration. */
export function ownProbeKey(keyPrefix: string): string {
  return `${keyPrefix}v1:readiness`;
}

/** The key of probes in a store of records, among those that its user may read. `before`: what the keys of records begin with. */
export function recordsProbeKey(before: string): string {
  return `${before}crossfade-readiness`;
}

/** How long what a probe writes is kept. */
const KEEP_MS = 10_000;

/** Hands a command to ioredis; a client whose commands are held back lets those of a probe pass. */
export type Send = <T>(command: () => T) => T;

/** `key`: one that only probes use, and that this user may write, or read for `role`. Never rejects. */
export async function probeServer(server: Redis, kind: ProbeKind, key: string, send: Send = (command) => command()): Promise<ProbeOutcome> {
  try {
    return kind === 'write' ? await writeAndRead(server, key, send) : await readRole(server, key, send);
  } catch (error) {
    return { fault: faultIn(error), isReplica: false };
  }
}

function faultIn(error: unknown): Fault {
  const command = error instanceof Error ? forbiddenCommand(error) : undefined;
  return command === undefined ? faultOf(stateOfProbe(error)) : forbidden(command);
}

function stateOfProbe(error: unknown): RedisState {
  if (!(error instanceof Error)) return 'ERR';
  // The node of a Cluster that has handed its slots to another.
  if (error.message.startsWith('MOVED')) return 'READONLY';
  return stateOf(error) ?? (error.name === 'ReplyError' ? 'ERR' : 'TIMEOUT');
}

/** As scripts of the bridge write: a user may be allowed to write, and not by a script, or not what a hash, a sorted set or a stream needs. */
const WRITE = readScript('probe');

async function writeAll(server: Redis, key: string, send: Send): Promise<void> {
  try {
    await send(() => server.evalsha(WRITE.hash, 1, key, KEEP_MS));
  } catch (error) {
    if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error;
    await send(() => server.eval(WRITE.text, 1, key, KEEP_MS));
  }
}

async function writeAndRead(server: Redis, key: string, send: Send): Promise<ProbeOutcome> {
  const [write, read] = await Promise.allSettled([writeAll(server, key, send), send(() => server.mget(key))]);
  // Where it may not even be read, that weighs more.
  if (read?.status === 'rejected') return { fault: { ...faultOf(stateOfProbe(read.reason)), stopsReads: true }, isReplica: false };
  if (write?.status === 'rejected') throw write.reason;
  return { fault: undefined, isReplica: false };
}

/** A replica that follows its primary is as good as that for reading; one that has lost it is not. */
async function readRole(server: Redis, key: string, send: Send): Promise<ProbeOutcome> {
  // ROLE is answered while the data is being loaded; what asks for a key is not. Requests read by MGET, or by GET where that is not allowed.
  const [role, read, many, one] = await Promise.allSettled(send(() => [server.role(), server.pttl(key), server.mget(key), server.get(key)] as const));
  if (isForbidden(many) && isForbidden(one)) return { fault: { ...faultOf('NOPERM'), stopsReads: true }, isReplica: false };
  if (read.status === 'rejected' && !isForbidden(read)) throw read.reason;
  // A session is exchanged only once it was read with its time to live.
  const missing = isForbidden(one) ? 'GET' : isForbidden(read) ? 'PTTL' : undefined;
  // An ACL may keep either from this user: then the other has to do.
  if (role.status === 'rejected') {
    if (!isForbidden(role) || read.status === 'rejected') throw role.reason;
    return { fault: missing === undefined ? undefined : forbidden(missing), isReplica: false };
  }
  const [name, , , link] = Array.isArray(role.value) ? role.value.map(String) : [];
  const isReplica = name === 'slave';
  const stale = isReplica && link !== 'connected' ? faultOf('REPLICA') : undefined;
  return { fault: stale ?? (missing === undefined ? undefined : forbidden(missing)), isReplica };
}

function isForbidden(outcome: PromiseSettledResult<unknown>): boolean {
  const error: unknown = outcome.status === 'rejected' ? outcome.reason : undefined;
  return error instanceof Error && /^(NOPERM|ERR unknown command)/.test(error.message);
}

export interface NodeFault {
  readonly node: string;
  /** Undefined: all is well. */
  readonly fault: Fault | undefined;
}

/** Asks each primary of a Cluster. ioredis drops a node that it cannot reach: one that owns slots and is not there has a fault as well. */
export async function probeCluster(cluster: Cluster, kind: ProbeKind, key: string): Promise<readonly NodeFault[]> {
  const nodes = new Map(cluster.nodes('master').map((node) => [`${node.options.host}:${node.options.port}`, node]));
  const owners = new Set(cluster.slots.flatMap((slot) => slot?.[0] ?? []));
  return await Promise.all(
    [...new Set([...owners, ...nodes.keys()])].map(async (name): Promise<NodeFault> => {
      const node = nodes.get(name);
      if (!node) return { node: name, fault: faultOf('AWAY') };
      const own = keyOfNode(cluster, name, key);
      return { node: name, fault: own === undefined ? undefined : (await probeServer(node, kind, own)).fault };
    }),
  );
}

const MAX_TRIES = 2000;

/** A key in a slot of this node. Undefined: it has none, or so few that none was found. */
function keyOfNode(cluster: Cluster, node: string, key: string): string | undefined {
  for (let n = 0; n < MAX_TRIES; n++) {
    const name = `${key}:${n}`;
    if (cluster.slots[calculateSlot(name)]?.[0] === node) return name;
  }
  return undefined;
}

/** @throws {Error} where this user may not do what is needed. */
export function refuseForbidden({ fault }: ProbeOutcome): void {
  if (fault?.state === 'NOPERM') throw new Error(`NOPERM ${fault.words}`);
}
