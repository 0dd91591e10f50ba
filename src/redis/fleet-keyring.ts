import { createHash } from 'node:crypto';
import type { FleetSecretLines } from '../config/config.js';
import { deriveKey, type PseudonymKeys, pseudonymsOf, readPseudonyms, type Secret } from '../config/secret.js';
import { openSignedText, seal, signText, unseal } from './signed-text.js';

/**
 * Signs and seals what the bridge keeps in Redis, under the secret that the fleet writes with, and opens what was written under any that
 * this instance has.
 */
export interface Seals {
  sign(context: string, text: string): string;
  /** Undefined where no secret opens it. */
  openSigned(context: string, signed: string): string | undefined;
  seal(context: string, text: string): string;
  /** Undefined where no secret opens it. */
  unseal(context: string, sealed: string): string | undefined;
  /** Whether it was written under a secret that was taken out of use, where it says so or nothing else can have written it. */
  isDenied(written: string): boolean;
}

/** A secret of the fleet, by the name that operators call it. It is a digest of 256 random bits: it tells nothing of them. */
interface Held {
  readonly name: string;
  /** Whether the fleet began with it: what it writes bears no name, so that releases that know no other read it. */
  readonly isFirst: boolean;
  readonly mac: Buffer;
  readonly seal: Buffer;
  readonly counter: Buffer;
}

/** Stands in front of what was written under any secret but the first. */
const NAMED = /^([0-9a-f]{8}):/;
const NAME_LENGTH = 8;

export interface DeniedSecret {
  readonly name: string;
  readonly isFirst: boolean;
  /** Whether it has leaked: then what passed through it is not believed either. */
  readonly isRevoked: boolean;
  /** The secret under which that was said. */
  readonly under?: string | undefined;
}

/**
 * The secrets of `fleetSecretFile`. All of them open; one writes, the same on every instance. A line that the file loses while the
 * instance runs goes on opening until the restart, or until it is denied.
 */
export class FleetSecrets implements Seals {
  /** All that this instance has seen, newest first. */
  #all: readonly Held[];
  #inFile: ReadonlySet<Held>;
  #denied = new Map<string, DeniedSecret>();
  #writing: Held;
  readonly #pseudonyms: Secret;
  /** The keys that names are made with: those do not rotate. */
  readonly names: PseudonymKeys;

  constructor(lines: FleetSecretLines) {
    const [only] = lines.secrets;
    if (!only) throw new TypeError('a fleet has at least one secret');
    this.#pseudonyms = lines.pseudonyms ?? pseudonymsOf(only);
    this.names = readPseudonyms(this.#pseudonyms);
    const held = lines.secrets.map((secret) => this.#hold(secret));
    this.#all = byAge([], held);
    this.#inFile = new Set(held);
    // Until the others were heard: the oldest is the one that all have.
    this.#writing = this.#all.at(-1) ?? this.#hold(only);
  }

  #hold(secret: Secret): Held {
    return {
      name: nameOfSecret(secret),
      isFirst: pseudonymsOf(secret).reveal() === this.#pseudonyms.reveal(),
      mac: deriveKey(secret, 'mac'),
      seal: deriveKey(secret, 'seal'),
      counter: deriveKey(secret, 'counter'),
    };
  }

  /** Whether another file names everybody as this one does. */
  hasNamesOf({ secrets: [first], pseudonyms }: FleetSecretLines): boolean {
    const other = pseudonyms ?? (first && pseudonymsOf(first));
    return other?.reveal() === this.#pseudonyms.reveal();
  }

  /** Takes the file as it is now. */
  takeFile({ secrets }: FleetSecretLines): void {
    const held = secrets.map((secret) => this.#all.find(({ name }) => name === nameOfSecret(secret)) ?? this.#hold(secret));
    this.#all = byAge(this.#all, held);
    this.#inFile = new Set(held);
    // Of a secret that was not here it was not known whether it is newer than the one under which it was denied.
    for (const { name, under } of this.denied) if (under !== undefined && !this.mayDeny(under, name)) this.#denied.delete(name);
  }

  get #usable(): readonly Held[] {
    return this.#all.filter(({ name }) => !this.#denied.has(name));
  }

  /** Names of those that open here, newest first. */
  get opens(): readonly string[] {
    return this.#usable.map(({ name }) => name);
  }

  /** Those that may write: of the file, and not denied. */
  get inFile(): readonly string[] {
    return this.#usable.flatMap((held) => (this.#inFile.has(held) ? [held.name] : []));
  }

  /** Those that the file has lost since the start. */
  get lost(): readonly string[] {
    return this.#usable.flatMap((held) => (this.#inFile.has(held) ? [] : [held.name]));
  }

  /** The one that writes. */
  get writes(): string {
    return this.#writing.name;
  }

  /** The first secret of the fleet, where this instance has it: what releases open that know no other. */
  get first(): string | undefined {
    return this.#all.find(({ isFirst }) => isFirst)?.name;
  }

  /** Whether what is written now can be opened by a release that knows one secret only. */
  get writesFirst(): boolean {
    return this.#writing.isFirst;
  }

  /** What stands in front of what this secret writes. */
  get prefix(): string {
    return this.#writing.isFirst ? '' : `${this.#writing.name}:`;
  }

  /** Writes with this one from now on. False: it is not here, or it was the one already. */
  writeWith(name: string): boolean {
    const next = this.#usable.find((held) => held.name === name);
    if (!next || next === this.#writing) return false;
    this.#writing = next;
    return true;
  }

  /** Whether a value that was written under one secret may take another one out of use: only a newer one may, and none may itself. */
  mayDeny(under: string, name: string): boolean {
    const names = this.#all.map((held) => held.name);
    const [at, of] = [names.indexOf(under), names.indexOf(name)];
    return of < 0 || (at >= 0 && at < of);
  }

  /** Names of this one and of all that are newer. */
  notOlderThan(name: string): ReadonlySet<string> {
    const names = this.#all.map((held) => held.name);
    return new Set(names.slice(0, names.indexOf(name) + 1));
  }

  /** Whether something is named after a secret that is not here, and not known to be out of use. */
  isUnknown(written: string): boolean {
    const name = nameInFront(written);
    return name !== '' && !this.#denied.has(name) && !this.#all.some((held) => held.name === name);
  }

  /** Whether one of these has leaked. */
  isRevoked(names: readonly string[]): boolean {
    return names.some((name) => this.#denied.get(name)?.isRevoked === true);
  }

  /** The secrets that a thing was sealed under, `before` and now, without the one that writes. */
  passedThrough(before: readonly string[] | undefined, written: string): { readonly under?: string[] } {
    const names = new Set([...(before ?? []), this.secretOf(written) ?? ''].filter((name) => name !== '' && name !== this.writes));
    return names.size === 0 ? {} : { under: [...names] };
  }

  /** Whether the file still holds one that has leaked. */
  get holdsRevoked(): boolean {
    return this.isRevoked([...this.#inFile].map(({ name }) => name));
  }

  /** The secret that something was written under, where it is here. */
  secretOf(written: string): string | undefined {
    const name = nameInFront(written);
    return name === '' ? this.first : name;
  }

  get denied(): readonly DeniedSecret[] {
    return [...this.#denied.values()];
  }

  /** Takes secrets out of use for good, whatever a file says. True: one of them was not denied yet. */
  deny(denied: readonly DeniedSecret[]): boolean {
    const news = denied.filter(({ name, isRevoked }) => !this.#denied.has(name) || (isRevoked && !this.isRevoked([name])));
    // Which was the first is known by the file, where it has it.
    for (const one of news) this.#denied.set(one.name, { ...one, isFirst: this.first === undefined ? one.isFirst : this.first === one.name });
    const next = this.#usable.find((held) => this.#inFile.has(held)) ?? this.#usable[0];
    if (next && this.#denied.has(this.#writing.name)) this.#writing = next;
    return news.length > 0;
  }

  sign(context: string, text: string): string {
    return this.prefix + signText(this.#writing.mac, context, text);
  }

  openSigned(context: string, signed: string): string | undefined {
    return this.#open(signed, (held, rest) => openSignedText(held.mac, context, rest));
  }

  seal(context: string, text: string): string {
    return this.prefix + seal(this.#writing.seal, context, text);
  }

  unseal(context: string, sealed: string): string | undefined {
    return this.#open(sealed, (held, rest) => unseal(held.seal, context, rest));
  }

  #open(written: string, open: (held: Held, rest: string) => string | undefined): string | undefined {
    const name = nameInFront(written);
    const held = this.#usable.find((one) => (one.isFirst ? name === '' : one.name === name));
    return held && open(held, name === '' ? written : written.slice(name.length + 1));
  }

  isDenied(written: string): boolean {
    const name = nameInFront(written);
    return this.denied.some((one) => (name === '' ? one.isFirst : one.name === name));
  }

  /** Whether it was written under another secret than the one that writes now. */
  isOutdated(written: string): boolean {
    return nameInFront(written) !== (this.#writing.isFirst ? '' : this.#writing.name);
  }

  /** The keys that rotating parts of refresh tokens come from: first the one that writes. */
  get counterKeys(): readonly [Buffer, ...Buffer[]] {
    const others = this.#usable.filter((held) => held !== this.#writing);
    return [this.#writing.counter, ...others.map(({ counter }) => counter)];
  }
}

/**
 * Newest first. What is known of their age stays, also where a file is put back that lacks the newest or has them in another order: else a
 * secret that was taken out of use would count as newer than the one under which that was said. The first of the fleet is the oldest.
 */
function byAge(known: readonly Held[], file: readonly Held[]): readonly Held[] {
  const all = [...known];
  for (const [at, held] of [...file.entries()].reverse()) {
    if (all.includes(held)) continue;
    const next = file[at + 1];
    all.splice(next ? all.indexOf(next) : all.length, 0, held);
  }
  return [...all.filter(({ isFirst }) => !isFirst), ...all.filter(({ isFirst }) => isFirst)];
}

/** The name of the secret that something was written under; empty for the first secret of the fleet. */
export function nameInFront(written: string): string {
  return NAMED.exec(written)?.[1] ?? '';
}

export function nameOfSecret(secret: Secret): string {
  return createHash('sha256').update(`crossfade fleet secret\0${secret.reveal()}`).digest('hex').slice(0, NAME_LENGTH);
}

/** What another live instance has announced. */
export interface Opener {
  /** Absent: of a release that knows only the first secret. */
  readonly opens?: readonly string[] | undefined;
  readonly writes?: string | undefined;
}

/**
 * Which secret an instance writes with: the newest of its file that every live instance opens (law 9). Where there is none, the one that the
 * longest alive writes with, as far as it is here; else it stays as it is. `strangers`: instances that open nothing of this fleet.
 */
export function chooseWriting(secrets: FleetSecrets, others: readonly Opener[], strangers: number): string {
  const { first } = secrets;
  const known = first === undefined ? [] : [first];
  const opened = strangers > 0 ? undefined : secrets.inFile.find((name) => others.every(({ opens }) => (opens ?? known).includes(name)));
  const written = others.map(({ writes }) => writes ?? first).find((name) => name !== undefined && secrets.opens.includes(name));
  return opened ?? written ?? secrets.writes;
}
