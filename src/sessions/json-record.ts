import { applyEdits, modify } from 'jsonc-parser';
import { parse as parseExactly } from 'lossless-json';
import { parse as parseJson } from 'secure-json-parse';
import type { SessionRecord } from './format.js';

/** A plain object out of JSON, without members that would reach a prototype; undefined for everything else. */
export function readJsonRecord(text: string): SessionRecord | undefined {
  const value = readJson(text);
  return isRecord(value) ? value : undefined;
}

/**
 * The value of a JSON text; undefined for what is none, or has members that would reach a prototype. A whole number beyond 2^53 comes as
 * the text of its digits: as a number it would be rounded, and a 64-bit id would become that of another principal.
 */
export function readJson(text: string): unknown {
  try {
    const value: unknown = parseJson(text, { protoAction: 'error', constructorAction: 'error' });
    if (isRecord(value) && Object.hasOwn(value, 'constructor')) return undefined;
    return MAY_HOLD_LONG_NUMBER.test(text) ? parseExactly(text, undefined, EXACT) : value;
  } catch {
    return undefined;
  }
}

/** 2^53 has 16 digits. */
const MAY_HOLD_LONG_NUMBER = /(?:^|[[:,\s])-?\d{16}/;

const EXACT = {
  parseNumber: (digits: string) => (/^-?\d+$/.test(digits) && !Number.isSafeInteger(Number(digits)) ? digits : Number(digits)),
  // As JSON.parse does: the last one counts.
  onDuplicateKey: ({ newValue }: { readonly newValue: unknown }) => newValue,
};

export function isRecord(value: unknown): value is SessionRecord {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

/** The same JSON text with another value at `path`. Everything else keeps its spelling: numbers that JavaScript rounds, and white space. */
export function replaceInJson(text: string, path: readonly string[], value: unknown): string {
  return applyEdits(text, modify(text, [...path], value, {}));
}
