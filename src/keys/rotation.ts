import type { StoredKey } from './jwks.js';

/** A key whose private half this instance has, and that passes its self-test. */
export interface Candidate {
  readonly kid: string;
  readonly signsFrom?: number;
}

/** What an instance says of itself, as far as keys go. */
export interface FleetMember {
  readonly instance: string;
  /** Name of its machine. */
  readonly host: string;
  /** By Redis' clock, in ms. */
  readonly startedAt: number;
  readonly issuer: string;
  readonly audience: readonly string[];
  /** Kids that it verifies. */
  readonly verifies: readonly string[];
  /** The kid that it signs with. */
  readonly signs?: string | undefined;
  /** Issuers and audiences that it accepts, each as `policyOf` names it. */
  readonly accepts: readonly string[];
  /** How far its clock is ahead of that of Redis, in ms. */
  readonly clockOffMs: number;
  /** Whether it has private keys: one that only verifies does not decide what is issued. */
  readonly hasKeys: boolean;
}

export interface RotationInput {
  /** What the fleet knows of its keys. */
  readonly stored: readonly StoredKey[];
  /** Every instance that is alive, but this one. */
  readonly others: readonly Pick<FleetMember, 'host' | 'verifies' | 'signs'>[];
  readonly nowMs: number;
  readonly publishMs: number;
  /** A key was revoked a moment ago: where none is left that may sign, the next waits neither for its time nor for a cache. */
  readonly isUrgent?: boolean;
}

/** What keeps a key from signing. `until` in ms since the epoch, by Redis' clock; `hosts` do not verify it. */
export type KeyHold = { readonly why: 'time' | 'publishing'; readonly until: number } | { readonly why: 'fleet'; readonly hosts: readonly string[] };

/**
 * What keeps a key from signing; undefined: nothing. Its time must have come, every live instance must verify it (law 9), and caches
 * of the JWKS must have had time to fetch it. A key that has signed never waits again, and the first of a fleet waits for no cache:
 * nobody has fetched another.
 */
export function whatHolds(
  { kid, signsFrom }: Candidate,
  { stored, others, nowMs, publishMs, isUrgent = false }: RotationInput,
  someoneSigns = true,
): KeyHold | undefined {
  const known = stored.find(({ jwk }) => jwk.kid === kid);
  if (known?.signedAt !== undefined) return undefined;
  const isSpare = isUrgent && !someoneSigns;
  if (signsFrom !== undefined && signsFrom > nowMs && !isSpare) return { why: 'time', until: signsFrom };
  const hosts = others.filter(({ verifies }) => !verifies.includes(kid)).map(({ host }) => host);
  if (hosts.length > 0 && known?.forcedAt === undefined) return { why: 'fleet', hosts };
  const isFirst = stored.every(({ signedAt }) => signedAt === undefined);
  const until = (known?.firstSeenAt ?? nowMs) + publishMs;
  return isFirst || isSpare || until <= nowMs ? undefined : { why: 'publishing', until };
}

/** Which key signs: the newest that nothing holds back. Undefined: none may. */
export function chooseActive(candidates: readonly Candidate[], input: RotationInput): string | undefined {
  const known = new Map(input.stored.map((key) => [key.jwk.kid, key]));
  const startOf = (key: Candidate) => startsAt(key, known.get(key.kid)) ?? input.nowMs;
  const someoneSigns = canSomeoneSign(candidates, input);
  return candidates
    .filter((key) => whatHolds(key, input, someoneSigns) === undefined)
    .sort((one, other) => startOf(other) - startOf(one) || (one.kid < other.kid ? 1 : -1))[0]?.kid;
}

/** From when a key signs, where it does: as its name says, or earlier, where it had to stand in for one that was revoked. */
export function startsAt(
  { signsFrom }: Pick<Candidate, 'signsFrom'>,
  known: Pick<StoredKey, 'firstSeenAt' | 'signedAt'> | undefined,
): number | undefined {
  const planned = signsFrom ?? known?.firstSeenAt;
  return planned === undefined || known?.signedAt === undefined ? planned : Math.min(planned, known.signedAt);
}

/** Whether another instance signs, or this one has a key that has signed. */
export function canSomeoneSign(candidates: readonly Candidate[], { stored, others }: Pick<RotationInput, 'stored' | 'others'>): boolean {
  const signed = new Set(stored.flatMap(({ jwk, signedAt }) => (signedAt === undefined ? [] : [jwk.kid])));
  return candidates.some(({ kid }) => signed.has(kid)) || others.some(({ signs }) => signs !== undefined);
}

/**
 * How far the clock of an instance is ahead of those of most, Redis' among them, in ms; 0 where it is alone: there is nobody to
 * refuse what it signs.
 */
export function clockAgainstMost(ownOffMs: number, others: readonly Pick<FleetMember, 'clockOffMs'>[]): number {
  if (others.length === 0) return 0;
  const offsets = [0, ownOffMs, ...others.map(({ clockOffMs }) => clockOffMs)].sort((one, other) => one - other);
  return ownOffMs - (offsets[Math.floor((offsets.length - 1) / 2)] ?? 0);
}

/**
 * The one that most live instances that sign agree with on the issuer, where this one does not; at a tie that of the one longest alive.
 * Undefined: this one is of the majority. Audiences need not be the same: each is issued only where all accept it.
 */
export function majorityAgainst(self: FleetMember, others: readonly FleetMember[]): FleetMember | undefined {
  const groups = new Map<string, FleetMember[]>();
  const all = [self, ...others];
  const signers = all.filter(({ hasKeys }) => hasKeys);
  for (const member of signers.length > 0 ? signers : all) groups.set(member.issuer, [...(groups.get(member.issuer) ?? []), member]);
  const oldest = (members: readonly FleetMember[]) => Math.min(...members.map(({ startedAt }) => startedAt));
  const [most] = [...groups.values()].sort((one, other) => other.length - one.length || oldest(one) - oldest(other));
  return most?.[0] && most[0].issuer !== self.issuer ? most[0] : undefined;
}

/** Whether an instance accepts tokens of this issuer for this audience, by what it has announced. */
export function acceptsAudience(
  { accepts, issuer: own, audience: list }: Pick<FleetMember, 'accepts' | 'issuer' | 'audience'>,
  issuer: string,
  audience: string,
): boolean {
  if (own === issuer && list.includes(audience)) return true;
  return accepts.some((policy) => {
    const [first, ...audiences] = readPolicy(policy);
    return first === issuer && audiences.includes(audience);
  });
}

function readPolicy(name: string): readonly unknown[] {
  try {
    const parts: unknown = JSON.parse(name);
    return Array.isArray(parts) ? parts : [];
  } catch {
    return [];
  }
}

/** One name for an issuer with its audiences. */
export function policyOf({ issuer, audience }: Pick<FleetMember, 'issuer' | 'audience'>): string {
  return JSON.stringify([issuer, ...audience]);
}

/**
 * What two accounts of the fleet's keys say together: nothing that either knows is lost. What comes from Redis may be gone
 * (flushed), or not be believed (forged, replayed); what this instance has already learned stays true.
 */
export function uniteKeys(one: readonly StoredKey[], other: readonly StoredKey[]): StoredKey[] {
  const united = new Map(one.map((key) => [key.jwk.kid, key]));
  for (const key of other) {
    const known = united.get(key.jwk.kid);
    united.set(key.jwk.kid, {
      ...known,
      ...key,
      firstSeenAt: Math.min(known?.firstSeenAt ?? key.firstSeenAt, key.firstSeenAt),
      lastSeenAt: Math.max(known?.lastSeenAt ?? key.lastSeenAt, key.lastSeenAt),
      ...time('signedAt', Math.min, known, key),
      ...time('lastSignedAt', Math.max, known, key),
      ...time('forcedAt', Math.min, known, key),
      ...time('keepMs', Math.max, known, key),
    });
  }
  return [...united.values()];
}

/** A time that may be absent, of two accounts. */
function time(
  name: 'signedAt' | 'lastSignedAt' | 'forcedAt' | 'keepMs',
  pick: (...times: number[]) => number,
  ...accounts: readonly (StoredKey | undefined)[]
): Partial<StoredKey> {
  const times = accounts.flatMap((key) => key?.[name] ?? []);
  return times.length > 0 ? { [name]: pick(...times) } : {};
}

export interface MergeInput {
  readonly stored: readonly StoredKey[];
  /** The keys that this instance has from files of its own. */
  readonly own: readonly StoredKey['jwk'][];
  readonly nowMs: number;
  /** How long a key that nobody has any more is kept: as long as a token that an instance with this configuration signs may live. */
  readonly keepMs: number;
}

/** What the fleet knows once this instance has said what it has. */
export function mergeKeys({ stored, own, nowMs, keepMs }: MergeInput): StoredKey[] {
  const ownKids = new Set(own.map(({ kid }) => kid));
  const known = new Map(stored.map((key) => [key.jwk.kid, key]));
  const living = stored.filter(({ jwk, lastSeenAt, keepMs: longest = 0 }) => !ownKids.has(jwk.kid) && lastSeenAt + Math.max(longest, keepMs) > nowMs);
  // An instance without keys of its own does not throw away the last that there are.
  const others = own.length === 0 && living.length === 0 ? stored : living;
  return [
    ...others,
    ...own.map((jwk) => {
      const before = known.get(jwk.kid);
      return { ...before, jwk, firstSeenAt: before?.firstSeenAt ?? nowMs, lastSeenAt: nowMs, keepMs: Math.max(before?.keepMs ?? 0, keepMs) };
    }),
  ];
}
