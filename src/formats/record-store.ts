import type { ChainableCommander } from 'ioredis';
import { unavailable } from '../errors.js';
import type { SessionRejection } from '../principal.js';
import type { BatchedReads, Value } from '../redis/batched-reads.js';
import type { RedisConnection } from '../redis/connection.js';
import { asking } from '../redis/replies.js';
import { loadScript } from '../redis/script.js';
import type { RecordStorage, StoredRecord } from './format.js';
import { readJsonRecord } from './json-record.js';

/** Where the records of an entry are. All methods throw `temporarily_unavailable` where it cannot be known. */
export interface RecordStore {
  /** The record under a key with its time to live, or why there is none. */
  read(key: string): Promise<StoredRecord | SessionRejection>;
  /** Where records are strings in Redis: they may be read together with others. */
  readonly reads?: BatchedReads;
  /** Writes a record under a new key. */
  create(key: string, text: string, ttlMs: number): Promise<void>;
  remove(key: string): Promise<void>;
  /** Deletes a record that still is, byte for byte, what was read; false: it is another one by now, or gone. */
  removeSame(key: string, text: string): Promise<boolean>;
}

const removeSame = loadScript('remove-same');

/** The records of an app that keeps them in Redis: each read is one round trip. */
export function createRedisRecords({ client, reads }: Pick<RedisConnection, 'client' | 'reads'>, storage: RecordStorage): RecordStore {
  return {
    ...(storage === 'hash' ? {} : { reads }),

    async read(key) {
      const replies = await asking(queueRead(client.pipeline(), storage, key).exec());
      return toStored(storage, replies?.[0], replies?.[1]);
    },

    async create(key, text, ttlMs) {
      const px = Math.ceil(ttlMs);
      if (storage === 'hash') await asking(client.multi().hset(key, toFields(text)).pexpire(key, px).exec());
      else await asking(client.set(key, Buffer.from(text, storage === 'bytes' ? 'latin1' : 'utf8'), 'PX', px, 'NX'));
    },

    async remove(key) {
      await asking(client.del(key));
    },

    async removeSame(key, text) {
      // What is no UTF-8 was not read as it stands there.
      const bytes = storage === 'text' ? await asking(client.getBuffer(key)) : Buffer.from(text, 'latin1');
      if (storage === 'text' && bytes?.toString('utf8') !== text) return false;
      const args = storage === 'hash' ? ['hash', ...Object.entries(toFields(text)).flat()] : ['string', bytes ?? ''];
      return (await asking(removeSame(client, [key], args))) === 1;
    },
  };
}

function toFields(text: string): Record<string, Buffer> {
  return Object.fromEntries(Object.entries(readJsonRecord(text) ?? {}).map(([name, bytes]) => [name, Buffer.from(String(bytes), 'latin1')]));
}

/** Adds the two commands that read a record and its time to live. */
export function queueRead(pipeline: ChainableCommander, storage: RecordStorage, key: string): ChainableCommander {
  const reading = storage === 'hash' ? pipeline.hgetallBuffer(key) : storage === 'bytes' ? pipeline.getBuffer(key) : pipeline.get(key);
  return reading.pttl(key);
}

export type RedisReply = readonly [error: Error | null, result: unknown] | undefined;

/** What the replies to those two say. */
export function toStored(storage: RecordStorage, found: RedisReply, ttl: RedisReply): StoredRecord | SessionRejection {
  if (!found || !ttl) throw unavailable('redis');
  const failure = found[0] ?? ttl[0];
  if (failure?.message.startsWith('WRONGTYPE')) return 'unreadable-record';
  if (failure) throw unavailable('redis', failure);
  const text = toRecordText(storage, found[1]);
  // -2: its time was over between the two.
  if (text === undefined || Number(ttl[1]) === -2) return 'unknown-session';
  return { text, ttlMs: Number(ttl[1]) };
}

/** The same of what was read together with others; `ttlMs` where it was asked for. */
export function toStoredString(storage: RecordStorage, value: Value, ttlMs: number | undefined): StoredRecord | SessionRejection {
  if (value === null || ttlMs === -2) return 'unknown-session';
  return { text: value.toString(storage === 'bytes' ? 'latin1' : 'utf8'), ttlMs };
}

function toRecordText(storage: RecordStorage, value: unknown): string | undefined {
  if (value === null || value === undefined) return undefined;
  if (storage === 'hash') {
    const fields = Object.entries(value).map(([name, bytes]) => [name, Buffer.isBuffer(bytes) ? bytes.toString('latin1') : String(bytes)]);
    return fields.length === 0 ? undefined : JSON.stringify(Object.fromEntries(fields));
  }
  return Buffer.isBuffer(value) ? value.toString('latin1') : String(value);
}
