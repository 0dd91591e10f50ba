import type { Config } from '../config/config.js';
import type { SignedValue } from '../redis/signed-value.js';
import type { DenyList } from './deny-list.js';
import { NOTHING_UNREAD, type StoredJwks, type StoredPolicy, type UnreadJwks, unreadKids } from './jwks.js';
import type { KeyRing } from './key-ring.js';
import type { LoadedKey } from './load.js';
import {
  acceptsAudience,
  canSomeoneSign,
  chooseActive,
  type FleetMember,
  type KeyHold,
  majorityAgainst,
  mergeKeys,
  policyOf,
  uniteKeys,
  whatHolds,
} from './rotation.js';

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
  readonly denyList: Pick<DenyList, 'kids'>;
  readonly fleet: () => FleetView;
  /** The time by which keys are first seen, published and kept: that of Redis, in ms. Rejects while Redis is away. */
  readonly fleetNowMs: () => Promise<number>;
  /** Why this instance must not act for the fleet, a sentence each. */
  readonly blocked: () => readonly string[];
  /** The keys that files of live instances hold, after a fleet secret has leaked: no others are believed then. Undefined: all are. */
  readonly trusted: () => ReadonlySet<string> | undefined;
  /** Called after Redis was told of keys that the others should hear of. */
  readonly tell: () => void;
}

/** An issuer with its audiences. */
export interface Policy {
  readonly issuer: string;
  readonly audience: readonly string[];
  /** Tokens of a later time than this, in ms, were not issued under it; absent: it is in use. */
  readonly issuedUntil?: number;
}

/** A sign of life is written anew after this share of the time for which it counts. */
const NEWS = 10;
const CLOCKS_MS = 60_000;

/** What the fleet and this instance have come to. */
export interface Agreed {
  /** The key that signs here. */
  readonly active: string | undefined;
  /** Own keys that do not sign yet, and what holds them. */
  readonly held: readonly { readonly key: LoadedKey; readonly hold: KeyHold }[];
  /** The instance that most agree with, where this one's issuer is another: then it does not sign. */
  readonly against: FleetMember | undefined;
  /** Audiences of the config that some live instance does not accept yet, with those instances: no token is signed for them (law 9). */
  readonly unaccepted: ReadonlyMap<string, readonly FleetMember[]>;
  /** Under what tokens are accepted beside the config's own: that of most, and those of tokens that may still live. */
  readonly policies: readonly Policy[];
}

/** Tells the fleet what this instance has, hears what the fleet has, and claims the key that signs. Rejects with what ioredis rejects with. */
export type Agree = (sound: readonly LoadedKey[]) => Promise<Agreed>;

export function createAgreement(options: AgreementOptions): Agree {
  const { config, ring, stored, denyList, fleet, blocked, trusted, fleetNowMs, tell } = options;
  const keepMs = 2 * options.longestLifeSeconds * 1000;
  const publishMs = config.publishSeconds * 1000;
  let knownPolicies: readonly StoredPolicy[] = [];
  let unread: UnreadJwks = NOTHING_UNREAD;

  return async function agree(sound) {
    // The fleet's own clock: an instance whose clock is off must not make a key older or younger than it is.
    const nowMs = await fleetNowMs();
    const own = ring.own.map(({ publicJwk }) => publicJwk);
    const candidates = config.use === 'verify' ? [] : sound;
    const { self, others } = fleet();
    const against = majorityAgainst(self, others);
    const isUrgent = [...denyList.kids.values()].some(({ how, at }) => how === 'revoked' && at + publishMs > nowMs);
    const input = { others, nowMs, publishMs, isUrgent };

    const inFiles = trusted();
    const isTrusted = (kid: string) => !inFiles || inFiles.has(kid) || own.some((jwk) => jwk.kid === kid);
    const isAccepted = ({ issuer, audience }: StoredPolicy) =>
      !inFiles || audience.every((one) => [self, ...others].some((member) => acceptsAudience(member, issuer, one)));
    let before: StoredJwks | undefined;
    let next: StoredJwks = { keys: [], policies: [], unread };
    let active: string | undefined;
    let unaccepted: ReadonlyMap<string, readonly FleetMember[]> = new Map();
    await stored.update((current) => {
      before = current;
      unread = current?.unread ?? unread;
      const merged = mergeKeys({ stored: uniteKeys(ring.stored, current?.keys ?? []), own, nowMs, keepMs }).filter(
        ({ jwk }) => !ring.isDenied(jwk.kid) && isTrusted(jwk.kid),
      );
      const policies = unitePolicies([...knownPolicies, ...(current?.policies ?? [])], nowMs).filter(isAccepted);
      // What the fleet has issued is accepted by every instance that has read of it.
      const wasIssued = (audience: string) => policies.some((policy) => policy.issuer === self.issuer && policy.audience.includes(audience));
      unaccepted = new Map(
        self.audience.flatMap((audience) => {
          const missing = wasIssued(audience) ? [] : others.filter((other) => !acceptsAudience(other, self.issuer, audience));
          return missing.length > 0 ? [[audience, missing] as const] : [];
        }),
      );
      const issued = self.audience.filter((audience) => !unaccepted.has(audience));
      active = against || issued.length === 0 || blocked().length > 0 ? undefined : chooseActive(candidates, { ...input, stored: merged });
      const used = active === undefined ? [] : issued.map((audience) => ({ issuer: self.issuer, audience: [audience], lastSignedAt: nowMs, keepMs }));
      next = {
        keys: merged.map((key) => (key.jwk.kid === active ? { ...key, signedAt: key.signedAt ?? nowMs, lastSignedAt: nowMs } : key)),
        policies: unitePolicies([...policies, ...used], nowMs),
        unread,
      };
      // What was read verifies, also where Redis takes no claim.
      ring.setStored(merged);
      knownPolicies = policies;
      return isNews(current, next, keepMs) ? next : undefined;
    });
    ring.setStored(next.keys);
    ring.setAnnounced(new Set([...others.flatMap(({ verifies }) => verifies), ...unreadKids(unread)]));
    knownPolicies = next.policies;
    const newKey = next.keys.some(({ jwk }) => !before?.keys.some((key) => key.jwk.kid === jwk.kid));
    const newPolicy = next.policies.some((policy) => !before?.policies.some((one) => policyOf(one) === policyOf(policy)));
    if (newKey || newPolicy) tell();
    const someoneSigns = canSomeoneSign(candidates, { stored: next.keys, others });
    const held = candidates.flatMap((key) => {
      const hold = whatHolds(key, { ...input, stored: next.keys }, someoneSigns);
      return hold ? [{ key, hold }] : [];
    });
    const issued = next.policies.map((policy) => ({ ...toPolicy(policy), issuedUntil: policy.lastSignedAt + policy.keepMs / NEWS + CLOCKS_MS }));
    const isOwn = ({ issuer, audience }: Policy) => issuer === self.issuer && audience.every((one) => self.audience.includes(one));
    const policies = [...(against ? [toPolicy(against)] : []), ...issued].filter((one) => !isOwn(one));
    return { active, held, against, unaccepted, policies };
  };
}

function toPolicy({ issuer, audience }: Policy): { issuer: string; audience: string[] } {
  return { issuer, audience: [...audience] };
}

/** The latest time of each; those are left out of which no token lives any more. */
function unitePolicies(policies: readonly StoredPolicy[], nowMs: number): StoredPolicy[] {
  const united = new Map<string, StoredPolicy>();
  for (const policy of policies) {
    if (policy.lastSignedAt + policy.keepMs <= nowMs) continue;
    const known = united.get(policyOf(policy)) ?? policy;
    const [lastSignedAt, keepMs] = [Math.max(policy.lastSignedAt, known.lastSignedAt), Math.max(policy.keepMs, known.keepMs)];
    united.set(policyOf(policy), { ...policy, lastSignedAt, keepMs });
  }
  return [...united.values()];
}

/** Whether Redis has to be told: other keys, a key or policy that signs for the first time, or a sign of life that has grown old. */
function isNews(current: StoredJwks | undefined, next: StoredJwks, keepMs: number): boolean {
  const { keys: known, policies } = current ?? { keys: [], policies: [] };
  if (next.keys.length !== known.length || next.policies.length !== policies.length) return true;
  const isOld = (before: number | undefined, now: number | undefined) => (now ?? 0) - (before ?? 0) > keepMs / NEWS;
  const staleKey = next.keys.some((key) => {
    const before = known.find(({ jwk }) => jwk.kid === key.jwk.kid);
    if (!before || before.signedAt !== key.signedAt || before.forcedAt !== key.forcedAt) return true;
    return isOld(before.lastSeenAt, key.lastSeenAt) || isOld(before.lastSignedAt, key.lastSignedAt);
  });
  return (
    staleKey || next.policies.some((policy) => isOld(policies.find((one) => policyOf(one) === policyOf(policy))?.lastSignedAt, policy.lastSignedAt))
  );
}
