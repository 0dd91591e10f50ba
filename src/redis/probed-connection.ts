import { Cluster, type Redis } from 'ioredis';
import { LRUCache } from 'lru-cache';
import type { RedisTarget } from '../config/config.js';
import { createBatchedReads } from './batched-reads.js';
import { createRedisClient, tryServer } from './client.js';
import type { RedisConnection, RedisConnectionOptions } from './connection.js';
import { keyOfServer, type ServerAddress } from './connector.js';
import { describeFailure, type Fault, faultOf, isOfCertificate, MOVED_ON, stateOf, UNBELIEVABLE } from './faults.js';
import { createLiveAccess } from './live-access.js';
import { createMetRefusals } from './met-refusals.js';
import { createPatience, untilUsable } from './patience.js';
import { probeCluster, probeServer } from './probe.js';
import { watchSentinels } from './sentinels.js';
import { choiceOf, hasPrimaryElsewhere, NO_CLUSTER, nameOf, PRIMARY, selectDatabase, timeOf, trialOf } from './servers.js';
import { createStateTeller } from './state-teller.js';

/** How often a server is asked. It is also what keeps a balancer from dropping an idle connection without a word. */
const PROBE_MS = 2000;
/** How often a connection is given up for what Redis answers, at most: the name may still lead to the old primary. */
const RECONNECT_MS = 1000;
/** Servers whose last failure is kept. */
const MAX_SERVERS = 100;

/**
 * Connects for an auth path. ioredis' defaults would hold a request for 73 s while Redis is away; here a command fails at
 * once where there is no connection, and within `commandTimeoutMs` where Redis is silent. A connection over which
 * nothing comes back is given up and made anew. That it is connected does not mean that it can be used: after a failover the old
 * primary lives on as a replica. So it is probed, and until the probe is good nothing that it says is believed.
 */
export function connectRedis(target: RedisTarget, options: RedisConnectionOptions): RedisConnection {
  const { name, commandTimeoutMs, probe, probeKey, probeAgain = true, onRefusedAccess, log, metrics } = options;
  const usable = new Set<() => void>();
  const lost = new Set<() => void>();
  const duplicates = new Set<Redis>();
  /** Of the last probe, by server; empty before the first since it connected. */
  let servers: ReadonlyMap<string, Fault | undefined> = new Map();
  let isVerified = false;
  let reconnectedAt = Number.NEGATIVE_INFINITY;
  let failure: string | undefined;
  /** The last one to each server. */
  const failures = new LRUCache<string, string>({ max: MAX_SERVERS });
  /** The server that was last connected to. */
  let opened: ServerAddress | undefined;
  /** Why the connection was given up here; until it is open again, or that fails, this is still its state. */
  let reopening: { readonly server: string; readonly fault: Fault } | undefined;
  let closing = false;
  const access = createLiveAccess({
    name,
    initial: target.access,
    living: () => (client instanceof Cluster ? client.nodes('all') : [client, ...duplicates]),
    unheld,
    isInUse: (server) => !(client instanceof Cluster) || client.slots.some((owners) => owners?.[0] === server),
    tryServer: async (server, next) => await tryServer(server, next, trialOf(client, server, { commandTimeoutMs, probe, probeKey })),
    onRefused: onRefusedAccess,
    log,
  });
  /** ioredis asks for the database itself, and goes on without it. */
  let isSelected = false;
  let probing: Promise<void> | undefined;
  const sentinels = target.sentinels && watchSentinels({ target, access: () => access.currentFor(PRIMARY), timeoutMs: commandTimeoutMs });
  const teller = createStateTeller({ name, log, metrics });
  const met = createMetRefusals(probe, probeKey);
  const patience = createPatience(commandTimeoutMs, () => void probeNow());

  const client = createRedisClient(target, {
    commandTimeoutMs,
    onReplyError,
    reports: {
      opening(server) {
        opened = server;
        access.opening(nameOfChoice(server), server);
      },
      failed(server, error) {
        if (closing) return;
        const words = describeFailure(server, error);
        failures.set(keyOfServer(server), words);
        if (isOfCertificate(error)) access.failed(nameOfChoice(server), error);
        // Else it is a connection beside this one.
        if (client.status === 'ready') return;
        reopening = undefined;
        failure = words;
      },
    },
    access: (node) => access.currentFor(node ? keyOfServer(node) : PRIMARY),
    refusal,
  });

  const nameOfChoice = (server: ServerAddress) => choiceOf(target, server);

  /** While it is connected and must not be believed. */
  function refusal(): Error | undefined {
    if (isVerified || isProbing) return undefined;
    return new Error(`Redis is connected and cannot be used yet (${currentState()})`);
  }

  /** Held true while a probe hands its commands to ioredis. */
  let isProbing = false;
  function unheld<T>(send: () => T): T {
    isProbing = true;
    try {
      return send();
    } finally {
      isProbing = false;
    }
  }

  function onReplyError(error: Error): boolean {
    const state = stateOf(error);
    if (state === 'NOAUTH' || state === 'WRONGPASS') onRefusedAccess?.();
    if (met.note(error)) void probeNow();
    if (state === undefined || !MOVED_ON.has(state) || client instanceof Cluster) return false;
    note(new Map([[nameOf(client), faultOf(state)]]));
    return mayReconnect();
  }

  function mayReconnect(): boolean {
    const now = performance.now();
    if (closing || now - reconnectedAt < RECONNECT_MS) return false;
    reconnectedAt = now;
    [reopening] = [...servers].flatMap(([server, fault]) => (fault ? [{ server, fault }] : []));
    return true;
  }

  function isGood(): boolean {
    return servers.size > 0 && faults().length === 0 && access.isNewest;
  }

  function faults(): readonly Fault[] {
    return [...servers.values()].filter((fault) => fault !== undefined);
  }

  /** Whether some primary is there of which `stops` is not true. */
  function hasPrimary(stops: (fault: Fault) => boolean): boolean {
    return client.status === 'ready' && [...servers.values()].some((fault) => fault === undefined || !stops(fault));
  }

  /** While it is being closed nothing is to be told. */
  function report(): void {
    if (closing) return;
    const wrong = [...servers].flatMap(([server, fault]) => (fault ? [server] : []));
    teller.report({ state: currentState(), canWrite: canWrite(), wrong, failure, problems });
  }

  const canRead = () => hasPrimary(({ stopsReads }) => stopsReads);
  const canWrite = () => hasPrimary(() => true);

  function currentState(): string {
    if (client.status !== 'ready') return reopening?.fault.state ?? 'away';
    return canWrite() ? 'up' : (faults()[0]?.state ?? 'away');
  }

  function problems(): readonly string[] {
    const wrong = client.status === 'ready' ? servers : reopening && new Map([[reopening.server, reopening.fault]]);
    if (!wrong) return [`${name}: Redis is away${failure === undefined ? '' : ` (${failure})`}`];
    const found = [...wrong].flatMap(([server, fault]) => (fault ? [`${name}: Redis ${describeFault(server, fault)}`] : []));
    return [...found, ...access.problems];
  }

  /** Of a server that is not there, the cause is in what the connection to it failed with. */
  function describeFault(server: string, { state, words }: Fault): string {
    const cause = state === 'AWAY' || state === 'TIMEOUT' ? failures.get(server) : undefined;
    return cause ?? `${server}: ${words} (${state})`;
  }

  function note(found: ReadonlyMap<string, Fault | undefined>): void {
    const before = isVerified;
    reopening = undefined;
    servers = met.among(found, client instanceof Cluster);
    if (isGood()) access.confirm();
    else if (faults().some(({ state }) => state === 'NOPERM')) void access.fallBack().then(() => setImmediate(() => void probeNow())); // Once this probe is over.
    isVerified = client instanceof Cluster || faults().every(({ state }) => !UNBELIEVABLE.has(state));
    report();
    if (isVerified && !before) for (const listener of usable) listener();
  }

  function probeNow(): Promise<void> {
    probing ??= probeOnce().finally(() => {
      probing = undefined;
    });
    return probing;
  }

  async function probeOnce(): Promise<void> {
    if (client.status !== 'ready') return;
    if (!access.isNewest) await access.tryNewest();
    if (client instanceof Cluster) {
      const found = await probeCluster(client, probe, probeKey);
      // ioredis has dropped a node that it could not reach, and looks for it only when a command needs it.
      if (found.some(({ fault }) => fault?.state === 'AWAY')) client.refreshSlotsCache(() => undefined);
      note(new Map(found.map(({ node, fault }) => [node, patience.judge(node, fault, servers)])));
      return;
    }
    const server = nameOf(client);
    const selected = isSelected ? undefined : await selectDatabase(client, unheld);
    isSelected = selected === undefined;
    const [probed, isReplaced] = await Promise.all([probeServer(client, probe, probeKey, unheld), sentinels?.nameAnother(client)]);
    // Sentinels were asked for the primary: a replica is no answer.
    const found = sentinels && probed.isReplica ? faultOf('REPLICA') : probed.fault;
    const fault = isReplaced ? faultOf('REPLACED') : (selected ?? patience.judge(server, found, servers));
    if (client.status !== 'ready') return;
    note(new Map([[server, fault]]));
    if (fault ? MOVED_ON.has(fault.state) : probed.isReplica && (await hasPrimaryElsewhere(client))) reconnect();
  }

  /** Only while it is up: behind sentinels, giving up a connection that is being opened ends the client for good. */
  function reconnect(): void {
    if (!(client instanceof Cluster) && client.status === 'ready' && mayReconnect()) client.disconnect(true);
  }

  function connected(): void {
    failure = undefined;
    void probeNow();
  }

  function disconnected(): void {
    const wasUp = servers.size > 0;
    servers = new Map();
    isVerified = false;
    isSelected = false;
    if (!reopening) report();
    if (wasUp) for (const listener of lost) listener();
  }

  client.on('ready', connected);
  client.on('close', disconnected);
  // ioredis gives up for good where a connection breaks at certain moments.
  client.on('end', () => {
    setTimeout(() => {
      if (!closing) connect();
    }, RECONNECT_MS).unref();
  });
  client.on('error', (error: Error) => {
    if (closing) return;
    const state = stateOf(error);
    access.failed(opened && nameOfChoice(opened), error);
    reopening = undefined;
    // Only that the list of sentinels has come to its end: the cause was said before.
    const isEndOfList = error.message.startsWith('All sentinels are unreachable') && !error.message.includes('Last error:');
    const ofCluster = client instanceof Cluster;
    if (!isEndOfList && !ofCluster && (state !== undefined || failure === undefined) && opened) failure = describeFailure(opened, error);
    if (ofCluster) failure ??= NO_CLUSTER;
    // The stream says more than ioredis, a moment later.
    if (client.status !== 'ready') setImmediate(report);
  });
  client.on('node error', (error: Error, node: string) => {
    const state = stateOf(error);
    access.failed(node, error);
    if (state === undefined) return;
    failure = `${node}: ${faultOf(state).words} (${state})`;
    failures.set(node, failure);
  });
  const connect = () => void client.connect().catch(() => undefined); // Told by the error event, and tried again.
  connect();
  const again = setInterval(() => {
    if (probeAgain || !isGood()) void probeNow();
  }, PROBE_MS).unref();

  return {
    client,
    reads: createBatchedReads(client),
    ready: async (timeoutMs) => canRead() || (await untilUsable(usable, canRead, timeoutMs)),
    probe: probeNow,
    get canRead() {
      return canRead();
    },
    get canWrite() {
      return canWrite();
    },
    get state() {
      return currentState();
    },
    get problems() {
      return problems();
    },
    onUsable: (listener) => void usable.add(listener),
    onLost: (listener) => void lost.add(listener),
    nowMs: async () => await timeOf(client),
    problem: () => (canRead() ? undefined : (failure ?? [...servers].flatMap(([server, fault]) => (fault ? [describeFault(server, fault)] : []))[0])),
    duplicate(more) {
      if (client instanceof Cluster) throw new TypeError('the connections of a Cluster are its own');
      const duplicate = client.duplicate(more);
      duplicates.add(duplicate);
      return duplicate;
    },
    async setAccess(changed) {
      await access.change(changed);
      if (client.status === 'ready') await probeNow();
    },
    reconnect,
    close() {
      closing = true;
      clearInterval(again);
      sentinels?.close();
      client.disconnect();
    },
  };
}
