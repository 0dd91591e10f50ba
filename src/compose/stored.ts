import type { Config } from '../config/config.js';
import { createDeniedSecrets, type DeniedSecrets, type DeniedSecretsContent, deniedSecretsCodec } from '../fleet/denied-secrets.js';
import { createFleetStore, type FleetStore } from '../fleet/store.js';
import { createDenyList, type DenyList, type DenyListContent, denyListCodec } from '../keys/deny-list.js';
import { type StoredJwks, storedJwksCodec } from '../keys/jwks.js';
import type { Belonging } from '../redis/belonging.js';
import type { RedisClient } from '../redis/client.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { SignedValue, UnreadableValue, unlessUnreadable, whole } from '../redis/signed-value.js';
import { type ClampList, clampsCodec } from '../rollout/clamp.js';
import { type Clamps, createClamps } from '../rollout/clamps.js';
import { type FlagSnapshot, flagSnapshotSchema } from '../rollout/flag-store.js';
import type { Tools } from '../telemetry/tools.js';

/** Longer than two heartbeats. */
const SETTLE_MS = 11_000;
const SETTLE_AGAIN_MS = 500;

export interface ControlOptions extends Pick<Tools, 'audit' | 'metrics'> {
  readonly config: Config;
  readonly client: RedisClient;
  readonly secrets: FleetSecrets;
  /** The one that asks. Absent: a command. */
  readonly instance?: string;
  /** Whether an operator has said that what cannot be opened is junk. */
  readonly isForced?: boolean;
  /** The time by which clamps end: that of Redis, as well as it is known here, in ms. */
  readonly fleetNowMs: () => number;
}

/** What decides about keys and stages, as Redis keeps it for all instances under a MAC (law 10). */
export interface Control {
  /** What all of the bridge's keys start with. */
  readonly prefix: string;
  readonly secrets: FleetSecrets;
  /** The fleet's public keys. */
  readonly jwks: SignedValue<StoredJwks>;
  readonly denyList: DenyList;
  readonly clamps: Clamps;
  /** The last known flags. */
  readonly flags: SignedValue<FlagSnapshot>;
  readonly deniedSecrets: DeniedSecrets;
  readonly fleet: FleetStore;
  /** Whether what decides stands under a secret that release 0.1 does not know, when it was last read. */
  readonly isNamed: boolean;
  /** Waits, for some seconds at most, until what decides can be understood, where an instance lives that replaces junk with its next heartbeat. */
  settle(): Promise<void>;
  /** All signed values. */
  readonly values: readonly Pick<SignedValue<unknown>, 'name' | 'isOutdated' | 'writeAnew' | 'forget'>[];
  /** Why this instance must not act for the fleet, a sentence each: what decides stands in Redis, and was never understood here since the start. */
  readonly blocked: readonly string[];
  readonly belonging: Belonging;
}

export function createControl({ config, client, secrets, instance, isForced = false, fleetNowMs, audit, metrics }: ControlOptions): Control {
  const prefix = `${config.redis.keyPrefix}v1:`;
  const fleet = createFleetStore({ client, prefix, secrets, instance, audit, metrics });
  const kept = { client, secrets, mayBegin: () => fleet.isHere, isAlone: () => fleet.isAlone, isForced: () => isForced, audit, metrics };
  const deniedValue = new SignedValue<DeniedSecretsContent>({
    ...kept,
    name: 'denied-secrets',
    key: `${prefix}denied-secrets`,
    codec: deniedSecretsCodec,
  });
  const deniedSecrets = createDeniedSecrets(deniedValue, secrets);
  let heard: Promise<void> | undefined;
  /** Before anything is read under a secret it must be known whether that is out of use. What cannot be understood of it is told by `blocked`. */
  const before = async () => {
    heard ??= deniedSecrets.sync().catch(unlessUnreadable);
    await heard.catch((error: unknown) => {
      heard = undefined;
      throw error;
    });
  };
  const stored = { ...kept, before };
  const cohorts = new Set([...config.rollout.cohorts.map(({ name }) => name), ...config.clients.map(({ id }) => id), 'unknown']);
  const jwks = new SignedValue<StoredJwks>({ ...stored, name: 'jwks', key: `${prefix}jwks`, codec: storedJwksCodec });
  const denied = new SignedValue<DenyListContent>({ ...stored, name: 'revoked-kids', key: `${prefix}revoked-kids`, codec: denyListCodec });
  const clamps = new SignedValue<ClampList>({ ...stored, name: 'clamps', key: `${prefix}clamps`, codec: clampsCodec });
  const flags = new SignedValue<FlagSnapshot>({ ...stored, name: 'flags', key: `${prefix}flags`, codec: whole(flagSnapshotSchema) });
  // Flags are known from their source as well: nothing waits for them.
  const deciding = [jwks, denied, clamps, deniedValue];
  const cannotAct = ({ standing }: Pick<SignedValue<unknown>, 'standing'>) =>
    standing === 'unread' || standing === 'later' || (!isForced && (standing === 'foreign' || (standing === 'passed' && fleet.isOutnumbered)));
  const isAmongStrangers = () => jwks.standing !== 'known' && fleet.strangers > 0 && !fleet.isHere && !isForced;
  const belonging: Belonging = {
    isStranger: () => isAmongStrangers() || deciding.some((value) => value.standing !== 'later' && cannotAct(value)),
    isUnheard() {
      if (isForced || !deciding.some(({ standing }) => standing === 'foreign' || standing === 'passed')) return false;
      if (instance !== undefined) return fleet.isOutnumbered;
      // A command has read all of it now, and is no instance: where one value opens, the rest is junk.
      return fleet.strangers > 0 && !deciding.some(({ wasOpened }) => wasOpened);
    },
    isInTouch: () => fleet.isInTouch,
  };
  return {
    prefix,
    secrets,
    belonging,
    jwks,
    denyList: createDenyList(denied),
    clamps: createClamps({ knowsCohort: (name) => cohorts.has(name), stored: clamps, fleetNowMs, audit, metrics }),
    flags,
    deniedSecrets,
    fleet,
    async settle() {
      for (const end = performance.now() + SETTLE_MS; performance.now() < end; ) {
        for (const value of deciding) await value.read();
        if (!fleet.hasOthers || deciding.every(({ standing }) => standing !== 'foreign')) return;
        await new Promise((resolve) => setTimeout(resolve, SETTLE_AGAIN_MS));
      }
    },
    values: [jwks, denied, clamps, flags, deniedValue],
    get isNamed() {
      return [jwks, clamps, denied].some((value) => value.isNamed);
    },
    get blocked() {
      const unread = deciding.filter(cannotAct);
      const strangers =
        unread.length === 0 && isAmongStrangers()
          ? [`${fleet.strangers} live instances have another fleet secret, and nothing here is of this one`]
          : [];
      return [...unread.map(({ name, standing }) => new UnreadableValue(name, standing).message), ...strangers];
    },
  };
}
