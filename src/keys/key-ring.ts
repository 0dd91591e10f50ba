import { type JwksDocument, type KeySource, type StoredKey, serveJwks, toVerificationKey, type VerificationKey } from './jwks.js';
import type { LoadedKey } from './load.js';

/** `next` is published and does not sign yet, `active` signs, `retiring` verifies only. */
export type KeyPhase = 'next' | 'active' | 'retiring';

/** An instance that was not heard of for 15 s counts no longer, and the last that was heard of this one may be 5 s old. */
const STALE_MS = 10_000;

/**
 * The keys that this instance holds: those with a private half from files, and public halves that the fleet has left in
 * Redis. A key that is in never leaves because its file is gone or has become unreadable, only because an operator said so.
 */
export class KeyRing implements KeySource {
  readonly #own = new Map<string, LoadedKey>();
  #stored: readonly StoredKey[] = [];
  #denied: ReadonlySet<string> = new Set();
  #verification = new Map<string, VerificationKey>();
  #jwks: JwksDocument | undefined;
  #active: string | undefined;
  #announced: ReadonlySet<string> = new Set();
  /** When the fleet's keys were last read, by the clock here; undefined: never since the start. */
  #readAt: number | undefined;
  readonly #nowMs: () => number;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  find(kid: string): VerificationKey | undefined {
    return this.#verification.get(kid);
  }

  isDenied(kid: string): boolean {
    return this.#denied.has(kid);
  }

  /**
   * A `kid` that is not here may be good while nothing is here; while the fleet's keys were not read for so long that the
   * others may have gone on without this instance; and where another instance has announced it.
   */
  inDoubt(kid: string): boolean {
    return this.#verification.size === 0 || this.isStale || this.#announced.has(kid);
  }

  get isStale(): boolean {
    return this.#readAt === undefined || this.#nowMs() - this.#readAt > STALE_MS;
  }

  /** Whether the fleet's keys were read from Redis since the start. */
  get fleetKeysRead(): boolean {
    return this.#readAt !== undefined;
  }

  get own(): readonly LoadedKey[] {
    return [...this.#own.values()];
  }

  get stored(): readonly StoredKey[] {
    return this.#stored;
  }

  get active(): LoadedKey | undefined {
    return this.#active === undefined ? undefined : this.#own.get(this.#active);
  }

  /** What is served at `jwks_uri`; undefined while there is no key: an empty set would tell verifiers to drop theirs. */
  get jwks(): JwksDocument | undefined {
    return this.#jwks;
  }

  phaseOf(kid: string): KeyPhase {
    if (kid === this.#active) return 'active';
    const stored = this.#stored.find(({ jwk }) => jwk.kid === kid);
    return stored?.signedAt === undefined ? 'next' : 'retiring';
  }

  get kids(): readonly string[] {
    return [...this.#verification.keys()];
  }

  /** Adds keys that are not denied. */
  add(keys: readonly LoadedKey[]): void {
    for (const key of keys) this.#own.set(key.kid, key);
    if (keys.length > 0) this.#publish();
  }

  /** Takes what the fleet knows of its keys. */
  setStored(stored: readonly StoredKey[]): void {
    this.#stored = stored;
    this.#readAt = this.#nowMs();
    this.#publish();
  }

  /** Forgets the keys that this instance has no file of. */
  forgetStored(): void {
    this.#stored = this.#stored.filter(({ jwk }) => this.#own.has(jwk.kid));
    this.#publish();
  }

  /** Takes the kids that the other instances verify. */
  setAnnounced(kids: ReadonlySet<string>): void {
    this.#announced = kids;
  }

  activate(kid: string | undefined): void {
    this.#active = kid;
  }

  /** Takes keys out for good, and keeps them from coming in again. */
  deny(kids: ReadonlySet<string>): void {
    this.#denied = kids;
    for (const kid of kids) this.#own.delete(kid);
    if (this.#active !== undefined && kids.has(this.#active)) this.#active = undefined;
    this.#publish();
  }

  /** The JWKS as it would be served with these keys in the ring. */
  jwksWith(keys: readonly LoadedKey[]): string {
    const all = [...keys.map(({ publicJwk }) => publicJwk), ...this.#publicJwks()];
    return serveJwks([...new Map(all.map((jwk) => [jwk.kid, jwk])).values()]).body;
  }

  #publicJwks() {
    const own = this.own.map(({ publicJwk }) => publicJwk);
    return [...own, ...this.#stored.map(({ jwk }) => jwk).filter(({ kid }) => !this.#own.has(kid) && !this.#denied.has(kid))];
  }

  #publish(): void {
    const jwks = this.#publicJwks();
    this.#verification = new Map(jwks.map((jwk) => [jwk.kid, this.#verification.get(jwk.kid) ?? toVerificationKey(jwk)]));
    this.#jwks = jwks.length > 0 ? serveJwks(jwks) : undefined;
  }
}
