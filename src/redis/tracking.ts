import { type ChainableCommander, Cluster } from 'ioredis';
import type { Tools } from '../telemetry/tools.js';
import type { RedisConnection } from './connection.js';

/** The replies to two commands, as a pipeline gives them. */
export type TrackedReplies = readonly [[Error | null, unknown] | undefined, [Error | null, unknown] | undefined];

/** Redis' client-side-caching news (CLIENT TRACKING), used to hear of a change, never to skip a read. */
export interface Tracking {
  /** Reads a key, by two commands, so that its next change is news. Rejects with what ioredis rejects with. */
  read(queue: (pipeline: ChainableCommander) => ChainableCommander): Promise<TrackedReplies>;
  /** Whether news arrives at the moment. */
  readonly active: boolean;
  close(): void;
}

export interface TrackingOptions extends Pick<Tools, 'log' | 'metrics'> {
  /** What it is called in logs and metrics. */
  readonly name: string;
  readonly connection: RedisConnection;
  /** A key that was read has changed, or is gone. */
  readonly onNews: (key: string) => void;
  /** What was read is tracked no longer, and news may have been missed: everything has to be read again. */
  readonly onLost: () => void;
}

const CHANNEL = '__redis__:invalidate';
const PING_MS = 5000;

/** Undefined on a Redis Cluster: news would have to be asked of each node, by connections that ioredis keeps to itself. */
export function startTracking({ name, connection, onNews, onLost, log, metrics }: TrackingOptions): Tracking | undefined {
  const { client } = connection;
  const up = metrics.trackingUp.labels(name);
  up.set(0);
  if (client instanceof Cluster) return undefined;

  // ioredis hears of invalidations only in RESP2, and a subscriber can do nothing else: hence a connection of its own.
  const listener = connection.duplicate({ protocol: 2, lazyConnect: true, enableOfflineQueue: false, autoResubscribe: false });
  let active = false;
  let listenerId: number | undefined;
  let refused = false;
  let closed = false;
  let arming = Promise.resolve();

  /** One after the other: both connections may come up at once. */
  function arm(): void {
    arming = arming.then(armOnce);
  }

  async function armOnce(): Promise<void> {
    if (closed || !connection.canRead || listener.status !== 'ready') return;
    try {
      if (listenerId === undefined) {
        listenerId = await listener.client('ID');
        await listener.subscribe(CHANNEL);
      }
      await client.client('TRACKING', 'OFF');
      // OPTIN: only what is read through `read` below is tracked.
      await client.client('TRACKING', 'ON', 'REDIRECT', listenerId, 'OPTIN');
      active = true;
      refused = false;
      up.set(1);
      onLost();
    } catch (error) {
      lost();
      if (!refused && !closed) log.warn({ connection: name, err: error }, 'redis does not track: a legacy logout is noticed at the next refresh');
      refused = true;
    }
  }

  function lost(): void {
    active = false;
    up.set(0);
  }

  listener.on('messageBuffer', (_channel: Buffer, keys: unknown) => {
    if (Array.isArray(keys)) for (const key of keys) onNews(String(key));
    else if (keys === null || keys === undefined)
      onLost(); // All keys are gone.
    else onNews(String(keys));
  });
  listener.on('ready', () => {
    listenerId = undefined;
    arm();
  });
  connection.onUsable(arm);
  // The listener must be on the server that the client is on: after a failover that may be another one.
  connection.onLost(() => {
    if (listener.status === 'ready') listener.disconnect(true);
  });
  for (const connected of [listener, client]) {
    connected.on('close', lost);
    connected.on('error', () => undefined); // The connection's owner tells of it; the listener shares its fate.
  }
  listener.connect().catch(() => undefined);

  // A listener over which nothing comes back would be silent for good: a subscriber sends nothing by itself.
  const ping = setInterval(() => {
    if (listener.status === 'ready') listener.ping().catch(() => listener.disconnect(true));
    if (!active) arm();
  }, PING_MS);
  ping.unref();

  return {
    get active() {
      return active;
    },
    async read(queue) {
      const pipeline = client.pipeline();
      if (active) pipeline.client('CACHING', 'YES');
      const replies = (await queue(pipeline).exec()) ?? [];
      return [replies.at(-2), replies.at(-1)];
    },
    close() {
      closed = true;
      clearInterval(ping);
      listener.disconnect();
    },
  };
}
