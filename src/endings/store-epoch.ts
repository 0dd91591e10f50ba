import { Cluster, type Redis } from 'ioredis';
import { z } from 'zod';
import type { Clock } from '../clock.js';
import type { RedisClient } from '../redis/client.js';
import { parseJson } from '../redis/replies.js';
import type { Log } from '../telemetry/log.js';

/**
 * What must be unchanged for a missing record to mean that somebody took it away: the run of the server, its counts of
 * evictions and flushes, and that nobody has set those back. As text, to be kept beside a record.
 */
export type StoreEpoch = string;

export interface StoreEpochs {
  /** As it is now. Undefined where Redis does not tell. */
  now(): Promise<StoreEpoch | undefined>;
  /** As it was up to a second ago: to be taken before a record is read, and kept beside it. */
  recent(): Promise<StoreEpoch | undefined>;
}

const RECENT_MS = 1000;
/** Equal in one epoch. A server that keeps one of these back cannot say whether it has lost records. */
const FIXED = ['run_id', 'evicted_keys'];
/** Equal in one epoch as well. A command that was never called is not listed. */
const CALLS = ['cmdstat_flushdb', 'cmdstat_flushall', 'cmdstat_swapdb', 'cmdstat_config|resetstat'];
/** Only grows in one epoch: less means that the counts were set back. */
const GROWING = 'total_commands_processed';

const NO_LOGOUT = 'a record that is deleted is not taken for a logout';
const INFO_REFUSED = `Redis does not let this user ask INFO: ${NO_LOGOUT}`;
const HIDES_EPOCH = `the INFO of this Redis lacks ${FIXED.join(', ')} or ${GROWING}: ${NO_LOGOUT}`;

const nodeSchema = z.object({ fixed: z.string(), commands: z.number() });
const epochSchema = z.array(nodeSchema);

export function createStoreEpochs(client: RedisClient, clock: Clock, log: Log): StoreEpochs {
  let latest: { readonly at: number; readonly epoch: Promise<StoreEpoch | undefined> } | undefined;
  let underWay: Promise<unknown> = Promise.resolve();
  let following: Promise<StoreEpoch | undefined> | undefined;
  let told = false;

  async function ask(): Promise<StoreEpoch | undefined> {
    const nodes = client instanceof Cluster ? client.nodes('master') : [client];
    try {
      const facts = await Promise.all(nodes.map(readFacts));
      const whole = facts.filter((fact) => fact !== undefined);
      if (whole.length < facts.length) warn(HIDES_EPOCH);
      if (whole.length === 0 || whole.length < facts.length) return undefined;
      return JSON.stringify(whole.sort((one, other) => (one.fixed < other.fixed ? -1 : 1)));
    } catch (error) {
      if (error instanceof Error && error.message.startsWith('NOPERM')) warn(INFO_REFUSED);
      return undefined;
    }
  }

  /** Once: it does not change by itself. */
  function warn(why: string): void {
    if (!told) log.warn(why);
    told = true;
  }

  /** Whoever asks while one is under way shares the next: that one may be older than what made them ask. */
  function now(): Promise<StoreEpoch | undefined> {
    following ??= (async () => {
      await underWay;
      const epoch = ask();
      underWay = epoch;
      following = undefined;
      latest = { at: clock.now(), epoch };
      return await epoch;
    })();
    return following;
  }

  return { now, recent: () => (latest && clock.now() - latest.at < RECENT_MS ? latest.epoch : now()) };
}

/** Whether nothing has happened between the two that takes records away. */
export function isSameEpoch(before: StoreEpoch, after: StoreEpoch): boolean {
  const [then, now] = [epochSchema.safeParse(parseJson(before)), epochSchema.safeParse(parseJson(after))];
  if (!then.success || !now.success || then.data.length !== now.data.length) return false;
  return then.data.every(({ fixed, commands }, at) => {
    const node = now.data[at];
    return node !== undefined && node.fixed === fixed && node.commands >= commands;
  });
}

/** For an operator: why this Redis cannot tell a logout from a loss. Undefined: it can. Rejects where it does not answer. */
export async function whyNoEpoch(client: RedisClient): Promise<string | undefined> {
  const [node] = client instanceof Cluster ? client.nodes('master') : [client];
  if (!node) return undefined;
  try {
    return (await readFacts(node)) ? undefined : HIDES_EPOCH;
  } catch (error) {
    if (error instanceof Error && error.message.startsWith('NOPERM')) return INFO_REFUSED;
    throw error;
  }
}

/** Undefined where the server keeps back what must be known. */
async function readFacts(node: Redis): Promise<z.output<typeof nodeSchema> | undefined> {
  const info = (await Promise.all([node.info('server'), node.info('stats'), node.info('commandstats')])).join('\n');
  const facts = new Map(
    info.split(/\r?\n/).flatMap((line) => {
      const [, name, value] = /^([^:]+):(?:calls=)?([^,]*)/.exec(line) ?? [];
      return name !== undefined && value !== undefined ? [[name, value] as const] : [];
    }),
  );
  if ([...FIXED, GROWING].some((name) => !facts.has(name))) return undefined;
  return { fixed: [...FIXED, ...CALLS].map((name) => `${name}=${facts.get(name) ?? 0}`).join(' '), commands: Number(facts.get(GROWING)) };
}
