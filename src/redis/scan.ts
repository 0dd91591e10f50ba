import { Cluster, type Redis } from 'ioredis';
import type { RedisConnection } from './connection.js';

/** What the wanted keys look like. */
export interface KeyPattern {
  readonly before: string;
  readonly behind: string;
}

/** One answer of SCAN. */
export interface KeyPage {
  readonly keys: readonly string[];
  /** The server that gave it: a cursor means something to that process alone. */
  readonly runId: string;
  /** Where the scan of that server goes on. */
  readonly cursor: string;
  /** Whether that server is through. */
  readonly isThrough: boolean;
}

export interface ScanOptions {
  readonly type: 'string' | 'hash';
  /** Keys that are looked at for a page, about. */
  readonly count: number;
  /** Where a scan was interrupted: servers that it is through with, and the cursor of the one that it was at. */
  readonly from?: ScanPosition | undefined;
}

export interface ScanPosition {
  readonly done: readonly string[];
  readonly runId: string;
  readonly cursor: string;
}

/** All keys of a pattern, page by page, on every master. A key may come twice. Rejects with what ioredis rejects with. */
export async function* scanPages(connection: Pick<RedisConnection, 'client'>, keys: KeyPattern, options: ScanOptions): AsyncGenerator<KeyPage> {
  const { type, count, from } = options;
  const match = `${escapeGlob(keys.before)}*${escapeGlob(keys.behind)}`;
  for (const node of mastersOf(connection)) {
    let runId = await runIdOf(node);
    if (runId !== '' && from?.done.includes(runId)) continue;
    let cursor = from?.runId === runId && runId !== '' ? from.cursor : '0';
    let isThrough = false;
    while (!isThrough) {
      const [next, found] = await node.scan(cursor, 'MATCH', match, 'COUNT', count, 'TYPE', type);
      const now = await runIdOf(node);
      // Another process answers since: its keys are in another order.
      cursor = now === runId ? next : '0';
      isThrough = now === runId && next === '0';
      runId = now;
      yield { keys: found, runId, cursor, isThrough };
    }
  }
}

async function runIdOf(node: Redis): Promise<string> {
  return /^run_id:(\w+)/m.exec(await node.info('server'))?.[1] ?? '';
}

/** How many keys there are in all, of whatever pattern. Rejects with what ioredis rejects with. */
export async function countKeys(connection: Pick<RedisConnection, 'client'>): Promise<number> {
  const sizes = await Promise.all(mastersOf(connection).map(async (node) => await node.dbsize()));
  return sizes.reduce((sum, size) => sum + size, 0);
}

function mastersOf({ client }: Pick<RedisConnection, 'client'>): readonly Redis[] {
  return client instanceof Cluster ? client.nodes('master') : [client];
}

function escapeGlob(text: string): string {
  return text.replaceAll(/[\\*?[\]]/g, String.raw`\$&`);
}
