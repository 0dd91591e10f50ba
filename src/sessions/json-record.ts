import { parse as parseJson } from 'secure-json-parse';
import type { SessionRecord } from './format.js';

/** A plain object out of JSON, without members that would reach a prototype; undefined for everything else. */
export function readJsonRecord(text: string): SessionRecord | undefined {
  const value = readJson(text);
  return isRecord(value) ? value : undefined;
}

/** The value of a JSON text; undefined for what is none, or has members that would reach a prototype. */
export function readJson(text: string): unknown {
  try {
    const value: unknown = parseJson(text, { protoAction: 'error', constructorAction: 'error' });
    return isRecord(value) && Object.hasOwn(value, 'constructor') ? undefined : value;
  } catch {
    return undefined;
  }
}

export function isRecord(value: unknown): value is SessionRecord {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}
