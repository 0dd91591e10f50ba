import { randomBytes, randomUUID } from 'node:crypto';
import type { SessionConfig } from '../config/config.js';
import type { RecordShape, SessionRecord } from './format.js';
import { isRecord, readJsonRecord } from './json-record.js';
import { readTime } from './time.js';

/** At least 16 characters that nobody guesses, and none that leads to another part of a key. */
const GENERATED_ID = /^[\w-]{16,256}$/;

type JsonOptions = Omit<NonNullable<SessionConfig['json']>, 'key'>;

/**
 * Sessions that somebody made at home: JSON in a string, JSON in one field of a hash, or a hash whose fields are the members. They end
 * with their key, and where a path to a time is given, at that time.
 */
export function createJsonShape({ storage, field, expiresAt }: JsonOptions): RecordShape {
  const path = expiresAt?.split('.');

  function readRecord(text: string): SessionRecord | undefined {
    const outer = readJsonRecord(text);
    if (!outer || storage === 'string') return outer;
    if (field === undefined) return readFields(outer);
    const inner = outer[field];
    return typeof inner === 'string' ? readJsonRecord(inner) : undefined;
  }

  /** The end stands where the app wrote it, and as the app spells it. */
  function replaceEnd(record: SessionRecord, endsAtMs: number): SessionRecord {
    return path ? (replaceAt(record, path, (old) => spellTime(old, endsAtMs)) ?? record) : record;
  }

  return {
    storage: storage === 'string' ? 'text' : 'hash',
    generatedId: GENERATED_ID,
    outlivesMs: 0,

    read(text) {
      const record = readRecord(text);
      if (!record || !path) return record && { record };
      const end = readTime(
        path.reduce<unknown>((value, name) => (isRecord(value) && Object.hasOwn(value, name) ? value[name] : undefined), record),
        'first',
      );
      // A session whose end cannot be read might be over: it is none.
      return end === undefined ? undefined : { record, expiresAtMs: end };
    },

    withEnd(text, endsAtMs) {
      const outer = readJsonRecord(text) ?? {};
      if (storage === 'string') return JSON.stringify(replaceEnd(outer, endsAtMs));
      if (field !== undefined) {
        const inner = readJsonRecord(String(outer[field])) ?? {};
        return JSON.stringify({ ...outer, [field]: JSON.stringify(replaceEnd(inner, endsAtMs)) });
      }
      const [first] = path ?? [];
      if (first === undefined) return text;
      const value = replaceEnd(readFields(outer) ?? {}, endsAtMs)[first];
      return JSON.stringify({ ...outer, [first]: typeof value === 'object' ? JSON.stringify(value) : String(value) });
    },

    newIds: (oldId) => {
      const random = [randomUUID(), randomBytes(16).toString('hex'), randomBytes(24).toString('base64url'), randomBytes(32).toString('base64url')];
      return [...random.filter((id) => id.length === oldId.length), ...random];
    },
  };
}

/** A field that holds an object or a list as JSON is one; everything else is text, numbers too: a person's id may be 007. */
function readFields(fields: SessionRecord): SessionRecord | undefined {
  const record: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (typeof value === 'string' && /^[[{]/.test(value)) {
      const inner = readJsonRecord(`{"value":${value}}`);
      if (!inner) return undefined;
      record[name] = inner['value'];
    } else record[name] = value;
  }
  return record;
}

function replaceAt(record: SessionRecord, [name, ...rest]: readonly string[], replace: (old: unknown) => unknown): SessionRecord | undefined {
  if (name === undefined || !Object.hasOwn(record, name)) return undefined;
  const old = record[name];
  if (rest.length === 0) return { ...record, [name]: replace(old) };
  const inner = isRecord(old) ? replaceAt(old, rest, replace) : undefined;
  return inner && { ...record, [name]: inner };
}

/** As the old one: ISO 8601, ms (over 10^11) or seconds, as a number or as its digits. */
function spellTime(old: unknown, timeMs: number): unknown {
  if (typeof old === 'string' && !/^\d+(\.\d+)?$/.test(old)) return new Date(timeMs).toISOString();
  const value = Number(old) > 1e11 ? Math.floor(timeMs) : Math.floor(timeMs / 1000);
  return typeof old === 'string' ? String(value) : value;
}
