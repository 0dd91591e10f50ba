import { applyEdits, modify } from 'jsonc-parser';
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
    // It is known to be JSON now: what is looked for in it is found in one pass.
    return MAY_HOLD_LONG_NUMBER.test(text) ? parseJson(text.replaceAll(STRING_OR_LONG_NUMBER, quoteLongNumber)) : value;
  } catch {
    return undefined;
  }
}

/** 2^53 has 16 digits. */
const MAY_HOLD_LONG_NUMBER = /\d{16}/;
/** A whole string, so that nothing in it is taken for a number; or a plain integer, which has neither fraction nor exponent. */
const STRING_OR_LONG_NUMBER = /"[^"\\]*(?:\\.[^"\\]*)*"|(?<![\d.eE+-])-?\d{16,}(?![\d.eE])/g;

function quoteLongNumber(token: string): string {
  return token.startsWith('"') || Number.isSafeInteger(Number(token)) ? token : `"${token}"`;
}

/** A number of a record, which may have come as its digits. Undefined for everything else: "12" is no number. */
export function numberOf(value: unknown): number | undefined {
  if (typeof value === 'number') return value;
  return typeof value === 'string' && /^-?\d{16,}$/.test(value) ? Number(value) : undefined;
}

export function isRecord(value: unknown): value is SessionRecord {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

/** The same JSON text with another value at `path`. Everything else keeps its spelling: numbers that JavaScript rounds, and white space. */
export function replaceInJson(text: string, path: readonly string[], value: unknown): string {
  return applyEdits(text, modify(text, [...path], value, {}));
}
