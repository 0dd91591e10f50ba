import calculateSlot from 'cluster-key-slot';
import { Cluster } from 'ioredis';
import type { RedisClient } from './client.js';
import { isWrongType } from './script.js';

/** What a key holds; null: nothing, or something that is no string. */
export type Value = Buffer | null;

/** Reads of strings that go out together: those of one turn of the event loop as one MGET (on a Cluster, as one for each slot). */
export interface BatchedReads {
  /**
   * Reads keys as they are at some moment after the call: nothing is kept from one turn to the next. `lifeOf`: a key whose time to live is
   * wanted as well. Rejects with what ioredis rejects with.
   */
  read(keys: readonly string[], lifeOf?: string): Promise<BatchedValues>;
  /** Whether the keys of one call are in one place: on a Cluster one may be there and the other not. */
  readonly areWhole: boolean;
}

export interface BatchedValues {
  /** In the order of the keys. */
  readonly values: readonly Value[];
  /** As PTTL gives it, in ms; undefined where it was not asked for. */
  readonly ttlMs?: number;
}

/** One call of `read`, until its values have come. */
interface Pending {
  readonly keys: readonly string[];
  readonly lifeOf: string | undefined;
  readonly values: Value[];
  ttlMs?: number;
  /** Answers of Redis that are still to come. */
  left: number;
  readonly resolve: (found: BatchedValues) => void;
  readonly reject: (error: unknown) => void;
}

/** What goes out as one command: keys, for each of them by which call it was asked for and at which place of it, and calls that want a life. */
interface Batch {
  readonly keys: string[];
  readonly by: Pending[];
  readonly at: number[];
  readonly lives: Pending[];
}

/** Keys of one MGET to a single server, at most: it does nothing else meanwhile. */
const MAX_KEYS = 1000;
/** One key that must not be read, or that is just moving to another node, must not cost the others their answer; nor must an MGET that is forbidden. */
const ONE_BY_ONE = /^(NOPERM|CROSSSLOT|TRYAGAIN|ERR unknown command)/;

export function createBatchedReads(client: RedisClient): BatchedReads {
  let waiting: Pending[] = [];

  function flush(): void {
    const calls = waiting;
    waiting = [];
    for (const batch of client instanceof Cluster ? bySlot(calls) : inTurn(calls)) send(batch);
  }

  function send(batch: Batch): void {
    if (batch.lives.length > 0) sendWithLives(batch);
    else
      client.mgetBuffer(batch.keys).then(
        (values) => settle(batch, values),
        (error: unknown) => fail(batch, error),
      );
  }

  /** In one write, and answered in one: MGET, and a PTTL for each key whose life is wanted. */
  function sendWithLives(batch: Batch): void {
    const pipeline = client.pipeline().mgetBuffer(batch.keys);
    for (const { lifeOf = '' } of batch.lives) pipeline.pttl(lifeOf);
    pipeline.exec().then(
      (replies) => {
        const [[failure, values] = [NO_REPLY, null], ...ttls] = replies ?? [];
        batch.lives.forEach((call, n) => {
          const [error, ttl] = ttls[n] ?? [NO_REPLY, null];
          if (error) call.reject(error);
          else call.ttlMs = Number(ttl);
        });
        if (failure || !Array.isArray(values)) fail(batch, failure);
        else settle(batch, values);
      },
      (error: unknown) => fail(batch, error),
    );
  }

  function fail({ keys, by, at }: Batch, error: unknown): void {
    const oneByOne = error instanceof Error && ONE_BY_ONE.test(error.message);
    by.forEach((call, n) => {
      if (!oneByOne) call.reject(error);
      else
        client.getBuffer(keys[n] ?? '').then(
          (value) => settleOne(call, at[n] ?? 0, value),
          (own: unknown) => (isWrongType(own) ? settleOne(call, at[n] ?? 0, null) : call.reject(own)),
        );
    });
  }

  return {
    areWhole: !(client instanceof Cluster),
    read(keys, lifeOf) {
      return new Promise((resolve, reject) => {
        if (waiting.length === 0) setImmediate(flush);
        waiting.push({ keys, lifeOf, values: [], left: keys.length, resolve, reject });
      });
    },
  };
}

const NO_REPLY = new Error('Redis gave no reply');

function settle({ by, at }: Batch, values: readonly unknown[]): void {
  by.forEach((call, n) => {
    const value = values[n];
    settleOne(call, at[n] ?? 0, value instanceof Buffer ? value : null);
  });
}

function settleOne(call: Pending, at: number, value: Value): void {
  call.values[at] = value;
  call.left -= 1;
  if (call.left === 0) call.resolve(call);
}

function createBatch(): Batch {
  return { keys: [], by: [], at: [], lives: [] };
}

function add(batch: Batch, call: Pending, at: number, key: string): void {
  batch.keys.push(key);
  batch.by.push(call);
  batch.at.push(at);
  if (key === call.lifeOf) batch.lives.push(call);
}

function inTurn(calls: readonly Pending[]): readonly Batch[] {
  const batches = [createBatch()];
  for (const call of calls) {
    if ((batches.at(-1)?.keys.length ?? 0) + call.keys.length > MAX_KEYS) batches.push(createBatch());
    const batch = batches.at(-1);
    if (batch) for (let at = 0; at < call.keys.length; at++) add(batch, call, at, call.keys[at] ?? '');
  }
  return batches;
}

function bySlot(calls: readonly Pending[]): Iterable<Batch> {
  const batches = new Map<number, Batch>();
  for (const call of calls)
    call.keys.forEach((key, at) => {
      const slot = calculateSlot(key);
      const batch = batches.get(slot) ?? createBatch();
      batches.set(slot, batch);
      add(batch, call, at, key);
    });
  return batches.values();
}
