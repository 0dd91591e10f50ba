/**
 * Remembers what was asked for of late, within a bound. Two generations instead of a list in the order of use: what is asked for again and
 * again is found by one look into the younger one, which is all that the request's path can afford.
 */
export interface Recent<K, V> {
  readonly size: number;
  get(key: K): V | undefined;
  set(key: K, value: V): void;
  delete(key: K): void;
  clear(): void;
  /** Drops what does not hold any longer, a few at a time: others have their turn in between. */
  sweep(holds: (value: V) => boolean): Promise<void>;
}

export interface RecentOptions<V> {
  /** So many of them are remembered in any case, and never more than twice as many. */
  readonly max: number;
  /** The same for their weight. Default: none of them weighs anything. */
  readonly maxWeight?: number;
  readonly weigh?: (value: V) => number;
}

const SWEPT_AT_ONCE = 500;

export function createRecent<K, V>({ max, maxWeight = Number.POSITIVE_INFINITY, weigh = () => 0 }: RecentOptions<V>): Recent<K, V> {
  let young = new Map<K, V>();
  let old = new Map<K, V>();
  let weight = 0;

  function set(key: K, value: V): void {
    if (young.size >= max || weight >= maxWeight) {
      old = young;
      young = new Map();
      weight = 0;
    }
    weight += weigh(value);
    young.set(key, value);
  }

  return {
    get size() {
      return young.size + old.size;
    },
    get(key) {
      const value = young.get(key);
      if (value !== undefined || old.size === 0) return value;
      const older = old.get(key);
      if (older === undefined) return undefined;
      old.delete(key);
      set(key, older);
      return older;
    },
    set(key, value) {
      old.delete(key);
      set(key, value);
    },
    delete(key) {
      young.delete(key);
      old.delete(key);
    },
    clear() {
      young.clear();
      old.clear();
      weight = 0;
    },
    async sweep(holds) {
      let looked = 0;
      for (const generation of [old, young])
        for (const [key, value] of generation) {
          if (!holds(value)) generation.delete(key);
          looked += 1;
          if (looked % SWEPT_AT_ONCE === 0) await new Promise((resolve) => setImmediate(resolve));
        }
    },
  };
}
