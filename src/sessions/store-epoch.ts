import { Cluster } from 'ioredis';
import type { Clock } from '../clock.js';
import type { RedisClient } from '../redis/connection.js';

/**
 * What must be unchanged for a missing record to mean that somebody took it away: the run of the server, its count of
 * evictions, and how often it was flushed. Undefined where Redis does not tell: then a missing record means nothing.
 */
export type StoreEpoch = () => Promise<string | undefined>;

export interface StoreEpochs {
  /** As it is now. */
  readonly now: StoreEpoch;
  /** As it was up to a second ago: to be kept beside a record that was just read. */
  readonly recent: StoreEpoch;
}

const RECENT_MS = 1000;
const FACTS = ['run_id', 'evicted_keys', 'cmdstat_flushdb', 'cmdstat_flushall', 'cmdstat_swapdb'];

export function createStoreEpochs(client: RedisClient, clock: Clock): StoreEpochs {
  let latest: { readonly at: number; readonly epoch: Promise<string | undefined> } | undefined;

  async function ask(): Promise<string | undefined> {
    const nodes = client instanceof Cluster ? client.nodes('master') : [client];
    try {
      const facts = await Promise.all(
        nodes.map(async (node) => (await Promise.all([node.info('server'), node.info('stats'), node.info('commandstats')])).map(factsOf).join(' ')),
      );
      return facts.length === 0 ? undefined : facts.sort().join('\n');
    } catch {
      return undefined;
    }
  }

  function now(): Promise<string | undefined> {
    latest = { at: clock.now(), epoch: ask() };
    return latest.epoch;
  }

  return {
    now,
    recent: () => (latest && clock.now() - latest.at < RECENT_MS ? latest.epoch : now()),
  };
}

/** `name:value` of the facts that count; of a command's statistics, how often it was called. */
function factsOf(info: string): string {
  return info
    .split(/\r?\n/)
    .filter((line) => FACTS.includes(line.slice(0, line.indexOf(':'))))
    .map((line) => line.replace(/,.*$/, ''))
    .join(' ');
}
