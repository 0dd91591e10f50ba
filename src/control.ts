import type { Config } from './config/config.js';
import { deriveKey } from './config/secret.js';
import { createFleetStore, type FleetStore } from './fleet/store.js';
import { createDenyList, type DenyList, type DenyListContent, denyListSchema } from './keys/deny-list.js';
import { type StoredJwks, storedJwksSchema } from './keys/jwks.js';
import type { RedisClient } from './redis/connection.js';
import { SignedValue } from './redis/signed-value.js';
import { type ClampList, type Clamps, clampsSchema, createClamps } from './rollout/clamps.js';
import { type FlagSnapshot, flagSnapshotSchema } from './rollout/flag-store.js';
import type { Audit } from './telemetry/audit.js';
import type { Metrics } from './telemetry/metrics.js';

export interface ControlOptions {
  readonly config: Config;
  readonly client: RedisClient;
  /** The time by which clamps end: that of Redis, as well as it is known here, in ms. */
  readonly fleetNowMs: () => number;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

/** What decides about keys and stages, as Redis keeps it for all instances under a MAC (law 10). */
export interface Control {
  /** What all of the bridge's keys start with. */
  readonly prefix: string;
  /** The fleet's public keys. */
  readonly jwks: SignedValue<StoredJwks>;
  readonly denyList: DenyList;
  readonly clamps: Clamps;
  /** The last known flags. */
  readonly flags: SignedValue<FlagSnapshot>;
  readonly fleet: FleetStore;
}

export function createControl({ config, client, fleetNowMs, audit, metrics }: ControlOptions): Control {
  const prefix = `${config.redis.keyPrefix}v1:`;
  const macKey = deriveKey(config.fleetSecret, 'mac');
  const stored = { client, macKey, audit, metrics };
  const cohorts = new Set([...config.rollout.cohorts.map(({ name }) => name), ...config.clients.map(({ id }) => id), 'unknown']);
  const denied = new SignedValue<DenyListContent>({ ...stored, name: 'revoked-kids', key: `${prefix}revoked-kids`, schema: denyListSchema });
  const clamps = new SignedValue<ClampList>({ ...stored, name: 'clamps', key: `${prefix}clamps`, schema: clampsSchema });
  return {
    prefix,
    jwks: new SignedValue({ ...stored, name: 'jwks', key: `${prefix}jwks`, schema: storedJwksSchema }),
    denyList: createDenyList(denied),
    clamps: createClamps({ knowsCohort: (name) => cohorts.has(name), stored: clamps, fleetNowMs, audit, metrics }),
    flags: new SignedValue({ ...stored, name: 'flags', key: `${prefix}flags`, schema: flagSnapshotSchema }),
    fleet: createFleetStore({ client, prefix, macKey, audit, metrics }),
  };
}
