import { Cluster, type Redis } from 'ioredis';
import type { Clock } from '../clock.js';
import type { RedisConnection } from './connection.js';

/** Notices that another Redis node answers, or the same one with other data: what was written before may be lost. */
export interface NodeWatch {
  /**
   * Calls back with each change. `nodes`: names the nodes that answer now, where they are others than before. Undefined: the same nodes, over a
   * new connection.
   */
  onChange(listener: (nodes: string | undefined) => void): void;
  /** Asks every primary who it is. Never rejects. */
  look(): Promise<void>;
  /** Notes that data was lost, however that became known. */
  noteLoss(): void;
  /** Whether a node, or the connection to it, has changed within this time. Of an instance that has just started: yes. */
  hasChangedWithin(ms: number): boolean;
  /** Whether data may have been lost within this time: by such a change, or without one. */
  mayHaveLostWithin(ms: number): boolean;
}

export interface NodeWatchOptions {
  readonly connection: Pick<RedisConnection, 'client' | 'onUsable'>;
  readonly clock: Clock;
}

export function createNodeWatch({ connection, clock }: NodeWatchOptions): NodeWatch {
  const { client } = connection;
  let changedAt = clock.now();
  let lostAt = changedAt;
  let known: string | undefined;
  const listeners: ((nodes: string | undefined) => void)[] = [];

  /** The nodes that answer now. Undefined where they are those of before, or cannot be asked. */
  async function findOthers(): Promise<string | undefined> {
    try {
      const nodes = client instanceof Cluster ? client.nodes('master') : [client];
      const found = (await Promise.all(nodes.map(describeNode))).sort().join(' ');
      const isOther = known !== undefined && known !== found;
      known = found;
      return isOther ? found : undefined;
    } catch {
      // Redis is away, or does not let this user ask INFO: a new connection is noticed all the same.
      return undefined;
    }
  }

  function note(): void {
    changedAt = clock.now();
    lostAt = changedAt;
  }

  function tellChange(nodes: string | undefined): void {
    for (const listener of listeners) listener(nodes);
  }

  connection.onUsable(() => {
    note();
    void findOthers().then(tellChange);
  });

  return {
    onChange: (listener) => void listeners.push(listener),
    async look() {
      const others = await findOthers();
      if (others === undefined) return;
      note();
      tellChange(others);
    },
    noteLoss() {
      lostAt = clock.now();
    },
    hasChangedWithin: (ms) => clock.now() - changedAt < ms,
    mayHaveLostWithin: (ms) => clock.now() - lostAt < ms,
  };
}

/** Changes with a restart of the server, and where it has become the primary or follows another one. */
async function describeNode(node: Redis): Promise<string> {
  const info = (await Promise.all([node.info('server'), node.info('replication')])).join('\n');
  return ['run_id', 'master_replid', 'role'].map((name) => new RegExp(`^${name}:(\\S+)`, 'm').exec(info)?.[1] ?? '').join('/');
}
