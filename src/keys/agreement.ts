import type { Config } from '../config/config.js';
import type { SignedValue } from '../redis/signed-value.js';
import type { StoredJwks } from './jwks.js';
import type { KeyRing } from './key-ring.js';
import type { LoadedKey } from './load.js';
import { chooseActive, type FleetMember, type Hold, majorityAgainst, mergeKeys, uniteKeys, whatHolds } from './rotation.js';

/** The instances that are alive, as this one last read. */
export interface FleetView {
  readonly self: FleetMember;
  readonly others: readonly FleetMember[];
}

export interface AgreementOptions {
  readonly config: Pick<Config['keys'], 'use' | 'publishSeconds'>;
  readonly ring: KeyRing;
  /** How long a token may live at most, in seconds. */
  readonly longestLifeSeconds: number;
  /** The fleet's public keys in Redis. */
  readonly stored: SignedValue<StoredJwks>;
  readonly fleet: () => FleetView;
  /** The time by which keys are first seen, published and kept: that of Redis, in ms. Rejects while Redis is away. */
  readonly fleetNowMs: () => Promise<number>;
  /** Called after Redis was told of keys that the others should hear of. */
  readonly tell: () => void;
}

/** What the fleet and this instance have come to. */
export interface Agreed {
  /** The key that signs here. */
  readonly active: string | undefined;
  /** Own keys that do not sign yet, and what holds them. */
  readonly held: readonly { readonly key: LoadedKey; readonly hold: Hold }[];
  /** The instance that most agree with, where this one's issuer or audience is another: then it does not sign. */
  readonly against: FleetMember | undefined;
}

/** Tells the fleet what this instance has, hears what the fleet has, and claims the key that signs. Rejects with what ioredis rejects with. */
export type Agree = (sound: readonly LoadedKey[]) => Promise<Agreed>;

export function createAgreement(options: AgreementOptions): Agree {
  const { config, ring, stored, fleet, fleetNowMs, tell } = options;
  const keepMs = 2 * options.longestLifeSeconds * 1000;
  const publishMs = config.publishSeconds * 1000;

  return async function agree(sound) {
    // The fleet's own clock: an instance whose clock is off must not make a key older or younger than it is.
    const nowMs = await fleetNowMs();
    const own = ring.own.map(({ publicJwk }) => publicJwk);
    const candidates = config.use === 'verify' ? [] : sound;
    const { self, others } = fleet();
    const against = majorityAgainst(self, others);

    let known: StoredJwks['keys'] = [];
    let keys: StoredJwks['keys'] = [];
    let active: string | undefined;
    await stored.update((current) => {
      known = current?.keys ?? [];
      const merged = mergeKeys({ stored: uniteKeys(ring.stored, known), own, nowMs, keepMs }).filter(({ jwk }) => !ring.isDenied(jwk.kid));
      active = against ? undefined : chooseActive(candidates, { stored: merged, others, nowMs, publishMs });
      keys = merged.map((key) => (key.jwk.kid === active ? { ...key, signedAt: key.signedAt ?? nowMs, lastSignedAt: nowMs } : key));
      return isNews(known, keys, keepMs) ? { keys } : undefined;
    });
    ring.setStored(keys);
    if (keys.some(({ jwk }) => !known.some((before) => before.jwk.kid === jwk.kid))) tell();
    const held = candidates.flatMap((key) => {
      const hold = whatHolds(key, { stored: keys, others, nowMs, publishMs });
      return hold ? [{ key, hold }] : [];
    });
    return { active, held, against };
  };
}

/** Whether Redis has to be told: other keys, a key that signs for the first time, or a sign of life that has grown old. */
function isNews(known: StoredJwks['keys'], keys: StoredJwks['keys'], keepMs: number): boolean {
  if (keys.length !== known.length) return true;
  const isOld = (before: number | undefined, now: number | undefined) => (now ?? 0) - (before ?? 0) > keepMs / 10;
  return keys.some((key) => {
    const before = known.find(({ jwk }) => jwk.kid === key.jwk.kid);
    if (!before || before.signedAt !== key.signedAt || before.forcedAt !== key.forcedAt) return true;
    return isOld(before.lastSeenAt, key.lastSeenAt) || isOld(before.lastSignedAt, key.lastSignedAt);
  });
}
