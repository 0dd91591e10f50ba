import { parse as parseJson } from 'secure-json-parse';
import type { SessionRecord } from './format.js';

/** A plain object out of JSON, without members that would reach a prototype; undefined for everything else. */
export function readJsonRecord(text: string): SessionRecord | undefined {
  try {
    const value: unknown = parseJson(text, { protoAction: 'error', constructorAction: 'error' });
    return isRecord(value) && !Object.hasOwn(value, 'constructor') ? value : undefined;
  } catch {
    return undefined;
  }
}

export function isRecord(value: unknown): value is SessionRecord {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}
