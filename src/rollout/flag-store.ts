import type { LDFeatureStore, LDFeatureStoreDataStorage, LDFeatureStoreItem } from 'launchdarkly-node-server-sdk';
import { z } from 'zod';
import { flagSchema, segmentSchema } from './flag-shape.js';

const item = z.looseObject({ key: z.string(), version: z.number() });

/** All flags and segments of a source, as they are kept in Redis for a cold start without it. */
export const flagSnapshotSchema = z.strictObject({ features: z.record(z.string(), item), segments: z.record(z.string(), item) });
export type FlagSnapshot = z.output<typeof flagSnapshotSchema>;

export interface MemoryFlagStore extends LDFeatureStore {
  /** Everything in the store, without what the SDK computes for itself; undefined while nothing ever arrived. */
  snapshot(): FlagSnapshot | undefined;
}

/**
 * A feature store in memory that outlives the client that fills it. The SDK's own is not exported, and its Redis store
 * stalls every evaluation for seconds while Redis is away.
 */
export function createMemoryFlagStore(onRefused: (key: string) => void = () => undefined): MemoryFlagStore {
  let all: LDFeatureStoreDataStorage = {};
  let filled = false;

  /** Whether evaluation could do anything with it; one that it could not leaves the one before in force. */
  function isSound(namespace: string, key: string, next: LDFeatureStoreItem): boolean {
    const sound = next.deleted === true || (namespace === 'features' ? flagSchema : segmentSchema).safeParse(next).success;
    if (!sound) onRefused(key);
    return sound;
  }

  function put(namespace: string, key: string, next: LDFeatureStoreItem): void {
    const kind = all[namespace] ?? {};
    const known = kind[key];
    if ((!known || known.version < next.version) && isSound(namespace, key, next))
      all = { ...all, [namespace]: { ...kind, [key]: { ...next, key } } };
  }

  return {
    get({ namespace }, key, callback) {
      const found = Object.hasOwn(all[namespace] ?? {}, key) ? all[namespace]?.[key] : undefined;
      callback(found && !found.deleted ? found : null);
    },
    all({ namespace }, callback) {
      callback(Object.fromEntries(Object.entries(all[namespace] ?? {}).filter(([, found]) => !found.deleted)));
    },
    init(data, callback) {
      const before = all;
      all = Object.fromEntries(
        Object.entries(data).map(([namespace, items]) => [
          namespace,
          Object.fromEntries(
            Object.entries(items).flatMap(([key, next]) => {
              const kept = isSound(namespace, key, next) ? next : before[namespace]?.[key];
              return kept ? [[key, kept]] : [];
            }),
          ),
        ]),
      );
      filled = true;
      callback();
    },
    upsert({ namespace }, next, callback) {
      put(namespace, next.key, next);
      callback();
    },
    delete({ namespace }, key, version, callback) {
      put(namespace, key, { key, version, deleted: true });
      callback();
    },
    initialized(callback) {
      callback(filled);
    },
    close() {},
    snapshot() {
      if (!filled) return undefined;
      const kept = (namespace: string) => Object.fromEntries(Object.entries(all[namespace] ?? {}).filter(([, found]) => !found.deleted));
      const parsed = flagSnapshotSchema.safeParse(withoutComputed({ features: kept('features'), segments: kept('segments') }));
      return parsed.success ? parsed.data : undefined;
    },
  };
}

/** Leaves out the members that the SDK adds to what it was sent. */
function withoutComputed(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (name, member: unknown) =>
      name === 'attributeReference' || name === 'bucketByAttributeReference' || name.startsWith('generated_') ? undefined : member,
    ),
  );
}
