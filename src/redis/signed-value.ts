import { z } from 'zod';
import type { Audit } from '../telemetry/audit.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { RedisClient } from './client.js';
import { type FleetSecrets, nameInFront } from './fleet-keyring.js';
import { parseJson } from './replies.js';
import { loadScript } from './script.js';

const removeValue = loadScript('remove-value');
const replaceValue = loadScript('replace-value');

/** A later release may add members: they stay, and say nothing here. */
const envelope = z.looseObject({ version: z.int().positive(), payload: z.string(), mac: z.string() });

/** Stands for the content of a key that is no string. */
const WRONG_TYPE = 'a key of another type';

/** Versions are times. */
const FURTHEST_MS = 30 * 86_400_000;

/** How a value stands in Redis as text. */
export interface Codec<T> {
  /** Undefined where this release does not understand it. */
  read(text: string): T | undefined;
  write(value: T): string;
}

/** A value that is understood as a whole or not at all. */
export function whole<T>(schema: z.ZodType<T>): Codec<T> {
  return { read: (text) => schema.safeParse(parseJson(text)).data, write: (value) => JSON.stringify(value) };
}

/**
 * What an instance knows of a value. `known`: it has understood or written it since its start, or found none. `unread`: Redis
 * could not be asked yet. `open`: there is none, beside strangers.
 * `foreign`: what stands there was written with another secret, or by somebody else. `later`: the fleet wrote it, in a form that this release
 * does not understand. `passed`: it was known, and stands now under a secret that is not here, while others are about that have another one.
 */
export type Standing = 'known' | 'unread' | 'open' | 'foreign' | 'passed' | 'later';

const WHY_UNREADABLE: Readonly<Partial<Record<Standing, string>>> = {
  later: 'is of a later release, which this one does not understand',
  unread: 'could not be read yet',
};

/** What stands in Redis cannot be understood, and is left alone. */
export class UnreadableValue extends Error {
  constructor(name: string, standing: Standing) {
    super(`${name} in Redis ${WHY_UNREADABLE[standing] ?? 'was written with a fleet secret that is not in fleetSecretFile, or by somebody else'}`);
    this.name = 'UnreadableValue';
  }
}

/** For whoever only looks: what cannot be understood is told elsewhere. */
export function unlessUnreadable(error: unknown): undefined {
  if (!(error instanceof UnreadableValue)) throw error;
}

export interface SignedValueOptions<T> {
  readonly client: RedisClient;
  /** The Redis key without prefix: what the value is called in audits and metrics. */
  readonly name: string;
  /** The Redis key. */
  readonly key: string;
  readonly secrets: FleetSecrets;
  readonly codec: Codec<T>;
  /** Whether the fleet on this Redis is this one, as far as is known: then Redis may have no value yet, and what does not open is junk. */
  readonly mayBegin: () => boolean;
  /** Whether nobody on this Redis has another secret, as far as is known: then what is named by one that is not here is junk. */
  readonly isAlone: () => boolean;
  /** Resolves once it is known which secrets are out of use. Rejects with what ioredis rejects with. */
  readonly before?: () => Promise<void>;
  /** Whether an operator has said that what cannot be opened is junk. */
  readonly isForced: () => boolean;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

type Opened<T> =
  | { readonly kind: 'absent' }
  | { readonly kind: 'understood'; readonly value: T; readonly rest: Readonly<Record<string, unknown>> }
  /** The fleet has written it, and it is not understood here. */
  | { readonly kind: 'later' }
  /** Written with another secret, changed, or an old one that was put back. */
  | { readonly kind: 'refused'; readonly reason: string };

/**
 * A JSON value in Redis that decides about something, kept under a MAC and a version (law 10). What fails that check counts as absent, is
 * audited, and gives way to an instance that has understood the value before. One that never has takes it for that of a
 * fleet with another secret, and leaves it alone. What the fleet has written and this release does not understand is always left alone.
 */
export class SignedValue<T> {
  readonly #options: SignedValueOptions<T>;
  /** The highest version that was seen under each secret. */
  readonly #floors = new Map<string, number>();
  #lastRefused: string | undefined;
  #wasKnown = false;
  #standing: Standing = 'unread';
  /** The fleet has gone on without this instance. */
  #isOfOthers = false;
  #isNamed = false;

  constructor(options: SignedValueOptions<T>) {
    this.#options = options;
  }

  get name(): string {
    return this.#options.name;
  }

  get standing(): Standing {
    if (!this.#wasKnown) return this.#standing;
    return this.#isOfOthers ? 'passed' : 'known';
  }

  /** Whether it stood under a secret that releases with one secret do not have, when it was last read. */
  get isNamed(): boolean {
    return this.#isNamed;
  }

  /** Whether a value that stood there could be opened with a secret of this instance. */
  get wasOpened(): boolean {
    return this.#floors.size > 0;
  }

  /** The value, or undefined where there is none that counts. Throws what ioredis throws. */
  async read(): Promise<T | undefined> {
    await this.#options.before?.();
    const opened = this.#open(await this.#get());
    return opened.kind === 'understood' ? opened.value : undefined;
  }

  /**
   * Replaces the value by what `change` makes of it and of the secret that it stands under, atomically; `change` is called again where another instance was
   * faster. Undefined from `change` leaves it as it is. Throws what ioredis throws, and `UnreadableValue` for what is left alone.
   */
  async update(change: (current: T | undefined, under: string | undefined) => T | undefined): Promise<T | undefined> {
    await this.#options.before?.();
    for (let attempt = 0; attempt < 10; attempt++) {
      const found = await this.#get();
      const opened = this.#open(found);
      this.#check(opened, found);
      const current = opened.kind === 'understood' ? opened.value : undefined;
      const next = change(current, found === null ? undefined : this.#options.secrets.secretOf(found));
      if (next === undefined) {
        // An instance that starts would take it for the value of another fleet.
        if (opened.kind === 'refused' && found !== null) await removeValue(this.#options.client, [this.#options.key], [found, WRONG_TYPE]);
        return current;
      }
      if (opened.kind === 'absent' && !this.#mayBegin) throw new UnreadableValue(this.name, 'foreign');
      const rest = opened.kind === 'understood' ? opened.rest : {};
      if (await this.#replace(found, this.#options.codec.write(next), rest)) {
        this.#wasKnown = true;
        return next;
      }
    }
    throw new Error(`${this.#options.name} was changed by others ten times in a row`);
  }

  /** Writes the same under the secret that the fleet writes with now, whether or not it is understood. Throws what ioredis throws. */
  async writeAnew(): Promise<void> {
    const { secrets } = this.#options;
    for (let attempt = 0; attempt < 10; attempt++) {
      const found = await this.#get();
      if (found === null || !secrets.isOutdated(found)) return;
      const checked = this.#verify(found);
      if (!('payload' in checked) || checked.version < this.#floorOf(found) || (await this.#replace(found, checked.payload, checked.rest))) return;
    }
  }

  /** Whether it stands under another secret than the one that writes. Throws what ioredis throws. */
  async isOutdated(): Promise<boolean> {
    const found = await this.#get();
    return found !== null && this.#options.secrets.isOutdated(found) && 'payload' in this.#verify(found);
  }

  /** Forgets what was learned, where the secret under which it was written is no secret any more. */
  forget(): void {
    for (const name of this.#floors.keys()) if (this.#options.secrets.isRevoked([name])) this.#floors.delete(name);
    this.#lastRefused = undefined;
  }

  /** An older secret may be in the wrong hands: no version under it keeps out what stands under a newer one. */
  #floorOf(written: string): number {
    const { secrets } = this.#options;
    const counting = secrets.notOlderThan(secrets.secretOf(written) ?? '');
    return Math.max(0, ...[...this.#floors].flatMap(([name, version]) => (counting.has(name) ? [version] : [])));
  }

  #raiseFloor(written: string, version: number): void {
    const name = this.#options.secrets.secretOf(written);
    if (name !== undefined) this.#floors.set(name, Math.max(version, this.#floors.get(name) ?? 0));
  }

  #check(opened: Opened<T>, found: string | null): void {
    if (opened.kind === 'later') throw new UnreadableValue(this.name, 'later');
    if (opened.kind !== 'refused' || this.#options.isForced()) return;
    // The fleet may have gone on to a secret that is not here, while this instance was away.
    const name = nameInFront(found ?? '');
    this.#isOfOthers = name !== '' && !this.#options.secrets.opens.includes(name) && !this.#options.isAlone();
    if (!this.#wasKnown || this.#isOfOthers) throw new UnreadableValue(this.name, 'foreign');
  }

  get #mayBegin(): boolean {
    return this.#wasKnown || this.#options.isForced() || this.#options.mayBegin();
  }

  /** A key of another type is something that somebody else wrote: it fails the check like any other. */
  async #get(): Promise<string | null> {
    return await this.#options.client.get(this.#options.key).catch((error: unknown) => {
      if (error instanceof Error && error.message.startsWith('WRONGTYPE')) return WRONG_TYPE;
      throw error;
    });
  }

  #open(found: string | null): Opened<T> {
    this.#isNamed = found !== null && nameInFront(found) !== '';
    // What stands under a secret that is out of use is as good as nothing.
    if (found === null || this.#options.secrets.isDenied(found)) {
      // That there is none is known as well: what comes later in its place is judged by that.
      if (this.#options.mayBegin()) this.#wasKnown = true;
      return this.#note('open', { kind: 'absent' });
    }
    const checked = this.#verify(found);
    if ('reason' in checked) return this.#refuse(found, checked.reason);
    const { version, payload, rest } = checked;
    if (version < this.#floorOf(found)) return this.#refuse(found, 'replayed');
    this.#raiseFloor(found, version);
    const value = this.#options.codec.read(payload);
    if (value === undefined) {
      this.#tell(found, 'later');
      return this.#note('later', { kind: 'later' });
    }
    this.#wasKnown = true;
    this.#isOfOthers = false;
    return this.#note('known', { kind: 'understood', value, rest });
  }

  #note(standing: Standing, opened: Opened<T>): Opened<T> {
    this.#standing = standing;
    return opened;
  }

  #refuse(found: string, reason: string): Opened<T> {
    this.#tell(found, reason);
    return this.#note('foreign', { kind: 'refused', reason });
  }

  /** Audited once for each value that stands there, however often it is read. */
  #tell(found: string, reason: string): void {
    if (found === this.#lastRefused) return;
    this.#lastRefused = found;
    this.#options.metrics.refusedValues.inc({ key: this.#options.name });
    this.#options.audit('value.refused', { key: this.#options.name, reason });
  }

  /** What one of the fleet's secrets has signed, or why it is refused. */
  #verify(
    found: string,
  ): { readonly version: number; readonly payload: string; readonly rest: Readonly<Record<string, unknown>> } | { readonly reason: string } {
    const name = nameInFront(found);
    const prefix = name === '' ? '' : `${name}:`;
    const opened = envelope.safeParse(parseJson(found.slice(prefix.length)));
    if (!opened.success) return { reason: 'malformed' };
    const { version, payload, mac, ...rest } = opened.data;
    // Above it no other version would find a place.
    if (version > Date.now() + FURTHEST_MS) return { reason: 'replayed' };
    return this.#options.secrets.openSigned(this.#contextOf(version), `${prefix}${mac}.${payload}`) === undefined
      ? { reason: 'bad-mac' }
      : { version, payload, rest };
  }

  #contextOf(version: number): string {
    return `${this.#options.name}\0${version}`;
  }

  async #replace(expected: string | null, payload: string, rest: Readonly<Record<string, unknown>>): Promise<boolean> {
    const { secrets, client, key } = this.#options;
    // The time, so that whoever has not seen what Redis has lost does not begin anew below it.
    const { prefix } = secrets;
    const version = Math.max(this.#floorOf(prefix) + 1, Date.now());
    const signed = secrets.sign(this.#contextOf(version), payload).slice(prefix.length);
    const mac = signed.slice(0, signed.indexOf('.'));
    const value = prefix + JSON.stringify({ ...rest, version, payload, mac });
    if ((await replaceValue(client, [key], [expected ?? '', WRONG_TYPE, value])) !== 1) return false;
    this.#raiseFloor(value, version);
    return true;
  }
}
