import { Cluster, type Redis } from 'ioredis';
import type { Clock } from '../clock.js';
import type { RedisConnection } from './connection.js';

/** Notices that another Redis node answers, or the same one with other data: what was written before may be lost. */
export interface NodeWatch {
  /** Asks every primary who it is. Never rejects. */
  look(): Promise<void>;
  /** Whether a node, or the connection to it, has changed within this time. Of an instance that has just started: yes. */
  hasChangedWithin(ms: number): boolean;
}

export interface NodeWatchOptions {
  readonly connection: Pick<RedisConnection, 'client' | 'onUsable'>;
  /** Called with each change. */
  readonly onChange: () => void;
  readonly clock: Clock;
}

export function createNodeWatch({ connection, onChange, clock }: NodeWatchOptions): NodeWatch {
  const { client } = connection;
  let changedAt = clock.now();
  let known: string | undefined;

  function changed(): void {
    changedAt = clock.now();
    onChange();
  }

  connection.onUsable(changed);

  return {
    async look() {
      const nodes = client instanceof Cluster ? client.nodes('master') : [client];
      try {
        const found = (await Promise.all(nodes.map(describeNode))).sort().join(' ');
        const isOther = known !== undefined && known !== found;
        known = found;
        if (isOther) changed();
      } catch {
        // Redis is away, or does not let this user ask INFO: a new connection is noticed all the same.
      }
    },
    hasChangedWithin: (ms) => clock.now() - changedAt < ms,
  };
}

/** Changes with a restart of the server, and where it has become the primary or follows another one. */
async function describeNode(node: Redis): Promise<string> {
  const info = (await Promise.all([node.info('server'), node.info('replication')])).join('\n');
  return ['run_id', 'master_replid', 'role'].map((name) => new RegExp(`^${name}:(\\S+)`, 'm').exec(info)?.[1] ?? '').join('/');
}
