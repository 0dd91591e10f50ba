import { z } from 'zod';
import type { Live } from '../config/live-files.js';
import { Secret } from '../config/secret.js';

/** A secret with which an app signs its cookies, and the name by which operators call it. */
export interface CookieSecret {
  readonly name: string;
  readonly secret: Secret;
}

/** The cookie secrets of one entry, as they are now. */
export interface CookieSecrets {
  /** All that verify, newest first. Another list after each change. */
  readonly verifying: readonly CookieSecret[];
  /** Signs the cookies of sessions that come back. Undefined: there is none. */
  readonly signing: CookieSecret | undefined;
  /** Notes that a living, mapped session came with a cookie that this secret has signed. */
  seen(name: string): void;
}

/**
 * What the fleet knows of a secret. The newest note counts. It is sealed and holds the secret, because an instance that starts later must
 * verify the same cookies. `filed`: the file of some instance has it. `dropped`: a file has lost it, and it verifies until `until`, in ms.
 * `ended`: it verifies nothing.
 */
export const noteSchema = z.object({
  state: z.enum(['filed', 'dropped', 'ended']),
  at: z.number(),
  secret: z.string().optional(),
  until: z.number().optional(),
  /** An operator has undone its end. Without this mark no note replaces an end. */
  restored: z.boolean().optional(),
  /** The fleet secrets that it was sealed under before: where one of them leaks, what passed through it is not believed. */
  under: z.array(z.string()).optional(),
});
export type Note = z.output<typeof noteSchema>;

/** One entry of `sessions`. */
export interface EntrySecretsOptions {
  readonly name: string;
  /** How long a secret goes on verifying that the file has lost, in seconds. */
  readonly keepSeconds: number;
  /** The lines of `secretsFile`. */
  readonly file: Live<readonly Secret[]>;
}

const SHARE_WINDOW_MS = 300_000;

/** The cookie secrets of one entry: in its file, and noted by the fleet. */
export class EntrySecrets implements CookieSecrets {
  readonly entry: string;
  readonly keepSeconds: number;
  readonly file: Live<readonly Secret[]>;
  readonly #nameOf: (secret: string) => string;
  readonly #nowMs: () => number;
  readonly #onSeen: (name: string) => void;
  /** Of `secretsFile`, in its order. */
  inFile: readonly CookieSecret[] = [];
  /** Behind the line `-` of the file. */
  marked: readonly CookieSecret[] = [];
  readonly notes = new Map<string, Note>();
  /** Names of those that the app has signed with. */
  readonly signedWith = new Set<string>();
  #verifying: readonly CookieSecret[] = [];
  #counts = new Map<string, number>();
  #before = new Map<string, number>();
  #countedFrom = 0;

  constructor(options: EntrySecretsOptions, nameOf: (secret: string) => string, nowMs: () => number, onSeen: (name: string) => void) {
    this.entry = options.name;
    this.keepSeconds = options.keepSeconds;
    this.file = options.file;
    this.#nameOf = nameOf;
    this.#nowMs = nowMs;
    this.#onSeen = onSeen;
  }

  /** Takes the file as it is. */
  readFile(): void {
    const { active, marked } = this.#parse(this.file.current);
    this.inFile = active;
    this.marked = marked;
  }

  isInFile(name: string): boolean {
    return this.inFile.some((one) => one.name === name);
  }

  isEnded(name: string): boolean {
    return this.notes.get(name)?.state === 'ended';
  }

  /** No file here has it, and it verifies. */
  get held(): readonly { readonly name: string; readonly secret: Secret; readonly until?: number }[] {
    const now = this.#nowMs();
    return [...this.notes].flatMap(([name, { state, secret, until }]) => {
      if (this.isInFile(name) || secret === undefined || state === 'ended') return [];
      if (state === 'filed') return [{ name, secret: new Secret(secret) }];
      return until !== undefined && until > now ? [{ name, secret: new Secret(secret), until }] : [];
    });
  }

  /** A line `-` stands before those that are taken out; so does `-` in front of a secret that is known. */
  #parse(lines: readonly Secret[]): { active: CookieSecret[]; marked: CookieSecret[] } {
    const active: CookieSecret[] = [];
    const marked: CookieSecret[] = [];
    let isMarked = false;
    for (const line of lines) {
      const text = line.reveal();
      const behind = text.startsWith('-') ? this.#toSecret(text.slice(1).trimStart()) : undefined;
      if (text === '-') isMarked = true;
      else if (behind && this.#isKnown(behind.name)) marked.push(behind);
      else (isMarked ? marked : active).push(this.#toSecret(text));
    }
    return { active, marked };
  }

  #toSecret(text: string): CookieSecret {
    return { name: this.#nameOf(text), secret: new Secret(text) };
  }

  #isKnown(name: string): boolean {
    return this.isInFile(name) || this.notes.has(name) || this.signedWith.has(name);
  }

  /** Puts together what verifies. True: it is another list than before. */
  update(): boolean {
    const marked = new Set(this.marked.map(({ name }) => name));
    const all = [...this.inFile, ...this.held].filter(
      ({ name }, at, list) => !this.isEnded(name) && !marked.has(name) && list.findIndex((one) => one.name === name) === at,
    );
    const isSame = all.length === this.#verifying.length && all.every(({ name }, at) => this.#verifying[at]?.name === name);
    if (!isSame) this.#verifying = all.map(({ name, secret }) => ({ name, secret }));
    return !isSame;
  }

  get verifying(): readonly CookieSecret[] {
    return this.#verifying;
  }

  /** The app reads its secrets again when it restarts: until then it would not take what the newest one signs. */
  get signing(): CookieSecret | undefined {
    const usable = this.inFile.filter(({ name }) => this.#verifying.some((one) => one.name === name));
    return usable.find(({ name }) => this.signedWith.has(name)) ?? usable[0];
  }

  seen(name: string): void {
    const now = this.#nowMs();
    if (now - this.#countedFrom > SHARE_WINDOW_MS) {
      this.#before = this.#counts;
      this.#counts = new Map();
      this.#countedFrom = now;
    }
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    if (!this.signedWith.has(name)) this.#onSeen(name);
  }

  shareOf(name: string): number | undefined {
    const countOf = (counts: ReadonlyMap<string, number>) => counts.get(name) ?? 0;
    const all = [...this.#counts.values(), ...this.#before.values()].reduce((sum, count) => sum + count, 0);
    return all === 0 ? undefined : (countOf(this.#counts) + countOf(this.#before)) / all;
  }
}
