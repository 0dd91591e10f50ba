import type { StoredKey } from './jwks.js';

/** A key whose private half this instance has, and that passes its self-test. */
export interface Candidate {
  readonly kid: string;
  readonly signsFrom?: number;
}

export interface RotationInput {
  readonly candidates: readonly Candidate[];
  /** What the fleet knows of its keys. */
  readonly stored: readonly StoredKey[];
  readonly nowMs: number;
  readonly publishMs: number;
}

/**
 * Which key signs: the newest whose time has come and which verifiers have had time to fetch. The first key of a fleet
 * in which none has signed does so at once; one that has signed never waits again. Undefined: none may.
 */
export function chooseActive({ candidates, stored, nowMs, publishMs }: RotationInput): string | undefined {
  const known = new Map(stored.map((key) => [key.jwk.kid, key]));
  const emptyFleet = stored.every(({ signedAt }) => signedAt === undefined);
  const firstSeen = (kid: string) => known.get(kid)?.firstSeenAt ?? nowMs;
  const startOf = (key: Candidate) => key.signsFrom ?? firstSeen(key.kid);

  const eligible = candidates.filter((key) => {
    if (known.get(key.kid)?.signedAt !== undefined) return true;
    return startOf(key) <= nowMs && (emptyFleet || firstSeen(key.kid) + publishMs <= nowMs);
  });
  eligible.sort((one, other) => startOf(other) - startOf(one) || (one.kid < other.kid ? 1 : -1));
  return eligible[0]?.kid;
}

/**
 * What two accounts of the fleet's keys say together: nothing that either knows is lost. What comes from Redis may be gone
 * (flushed), or not be believed (forged, replayed); what this instance has already learned stays true.
 */
export function uniteKeys(one: readonly StoredKey[], other: readonly StoredKey[]): StoredKey[] {
  const united = new Map(one.map((key) => [key.jwk.kid, key]));
  for (const key of other) {
    const known = united.get(key.jwk.kid);
    const signed = [known?.signedAt, key.signedAt].filter((time) => time !== undefined);
    united.set(key.jwk.kid, {
      jwk: key.jwk,
      firstSeenAt: Math.min(known?.firstSeenAt ?? key.firstSeenAt, key.firstSeenAt),
      lastSeenAt: Math.max(known?.lastSeenAt ?? key.lastSeenAt, key.lastSeenAt),
      ...(signed.length > 0 ? { signedAt: Math.min(...signed) } : {}),
    });
  }
  return [...united.values()];
}

export interface MergeInput {
  readonly stored: readonly StoredKey[];
  /** The keys that this instance has from files of its own. */
  readonly own: readonly StoredKey['jwk'][];
  readonly nowMs: number;
  /** How long a key that nobody has any more is kept: as long as a token signed with it may live. */
  readonly keepMs: number;
}

/** What the fleet knows once this instance has said what it has. */
export function mergeKeys({ stored, own, nowMs, keepMs }: MergeInput): StoredKey[] {
  const ownKids = new Set(own.map(({ kid }) => kid));
  const known = new Map(stored.map((key) => [key.jwk.kid, key]));
  const others = own.length === 0 ? stored : stored.filter(({ jwk, lastSeenAt }) => !ownKids.has(jwk.kid) && lastSeenAt + keepMs > nowMs);
  return [...others, ...own.map((jwk) => ({ ...known.get(jwk.kid), jwk, firstSeenAt: known.get(jwk.kid)?.firstSeenAt ?? nowMs, lastSeenAt: nowMs }))];
}
