import { fromBytes } from './bytes.js';
import type { SessionRecord } from './format.js';

/** Deeper nesting is no session that somebody meant. */
const MAX_DEPTH = 32;

/** What is not spelled as PHP spells it, or is a kind of value that is not read: an object, an enum, a reference. */
class Unreadable extends Error {
  override readonly name = 'Unreadable';
}

/**
 * A session as PHP's handler `php` (`name|value` after `name|value`) or `php_serialize` (one array) writes it. `bytes`: a character for
 * each byte, since lengths are in bytes. Objects are refused, whatever their class: what a class makes of its members only its code
 * knows, and a session without them would be another session. Undefined for whatever is not read.
 */
export function readPhpSession(bytes: string, handler: 'php' | 'php_serialize'): SessionRecord | undefined {
  try {
    const reader = new PhpReader(bytes);
    return handler === 'php' ? readVariables(reader) : readWhole(reader);
  } catch (error) {
    if (error instanceof Unreadable) return undefined;
    throw error;
  }
}

function readVariables(reader: PhpReader): SessionRecord {
  const record: Record<string, unknown> = {};
  while (!reader.atEnd) setMember(record, fromBytes(reader.until('|')), reader.value(0));
  return record;
}

function readWhole(reader: PhpReader): SessionRecord {
  const value = reader.value(0);
  if (!reader.atEnd || value === null || typeof value !== 'object') throw new Unreadable();
  return Array.isArray(value) ? { ...value } : Object.fromEntries(Object.entries(value));
}

/** A name that would reach a prototype is none that a session has (X14). */
function setMember(record: Record<string, unknown>, name: string, value: unknown): void {
  if (name === '__proto__' || name === 'constructor') throw new Unreadable();
  record[name] = value;
}

/** Reads PHP's serialization format from left to right, each value to its last character. */
class PhpReader {
  readonly #bytes: string;
  #at = 0;

  constructor(bytes: string) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** Up to `mark`, which is passed. */
  until(mark: string): string {
    const end = this.#bytes.indexOf(mark, this.#at);
    if (end < 0) throw new Unreadable();
    const text = this.#bytes.slice(this.#at, end);
    this.#at = end + mark.length;
    return text;
  }

  value(depth: number): unknown {
    if (depth > MAX_DEPTH) throw new Unreadable();
    const type = this.#take(1);
    if (type === 'N') {
      this.#expect(';');
      return null;
    }
    this.#expect(':');
    switch (type) {
      case 'b':
        return this.#boolean();
      case 'i':
        return toNumber(this.until(';'));
      case 'd':
        return this.#float();
      case 's': {
        const text = this.#string();
        this.#expect(';');
        return text;
      }
      case 'a':
        return this.#array(depth);
      default:
        throw new Unreadable();
    }
  }

  #boolean(): boolean {
    const text = this.until(';');
    if (text !== '0' && text !== '1') throw new Unreadable();
    return text === '1';
  }

  #float(): number {
    const text = this.until(';');
    const value = Number(text.replace(/^(-?)INF$/, '$1Infinity'));
    if (text === '' || (Number.isNaN(value) && text !== 'NAN')) throw new Unreadable();
    return value;
  }

  #string(): string {
    const length = this.#length();
    this.#expect(':"');
    const text = this.#take(length);
    this.#expect('"');
    return fromBytes(text);
  }

  /** A list where its keys count from 0, else by name. */
  #array(depth: number): unknown {
    const length = this.#length();
    this.#expect(':{');
    const record: Record<string, unknown> = {};
    let isList = true;
    for (let at = 0; at < length; at++) {
      const key = this.#key();
      isList &&= key === at;
      setMember(record, String(key), this.value(depth + 1));
    }
    this.#expect('}');
    return isList ? Object.values(record) : record;
  }

  #key(): string | number {
    const type = this.#bytes[this.#at];
    const key = type === 'i' || type === 's' ? this.value(0) : undefined;
    if (typeof key !== 'string' && typeof key !== 'number') throw new Unreadable();
    return key;
  }

  #length(): number {
    const digits = /^\d{1,7}/.exec(this.#bytes.slice(this.#at, this.#at + 7))?.[0];
    if (digits === undefined) throw new Unreadable();
    this.#at += digits.length;
    return Number(digits);
  }

  #take(length: number): string {
    const text = this.#bytes.slice(this.#at, this.#at + length);
    if (text.length !== length) throw new Unreadable();
    this.#at += length;
    return text;
  }

  #expect(text: string): void {
    if (this.#take(text.length) !== text) throw new Unreadable();
  }
}

/** A whole number that JavaScript cannot hold stays the text that it was: it may be somebody's id. */
function toNumber(text: string): number | string {
  if (!/^-?\d{1,19}$/.test(text)) throw new Unreadable();
  return Number.isSafeInteger(Number(text)) ? Number(text) : text;
}
