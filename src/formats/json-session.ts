import type { SessionConfig } from '../config/config.js';
import { fromBytes, toBytes } from './bytes.js';
import type { RecordShape, SessionRecord } from './format.js';
import { isRecord, readJson, readJsonRecord, replaceInJson } from './json-record.js';
import { randomIds } from './random-ids.js';
import { readTime, spellIsoTimeAs } from './time.js';

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
    if (storage === 'string') return readJsonRecord(text);
    const fields = readFields(text);
    if (!fields) return undefined;
    if (field !== undefined) return readJsonRecord(fields[field] ?? '');
    return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, readField(value)]));
  }

  function endIn(record: SessionRecord): unknown {
    return path?.reduce<unknown>((value, name) => (isRecord(value) && Object.hasOwn(value, name) ? value[name] : undefined), record);
  }

  return {
    storage: storage === 'string' ? 'text' : 'hash',
    endsWithKey: expiresAt === undefined,
    generatedId: GENERATED_ID,
    outlivesMs: 0,

    read(text) {
      const record = readRecord(text);
      if (!record || !path) return record && { record };
      const end = readTime(endIn(record), 'first');
      // A session whose end cannot be read might be over: it is none.
      return end === undefined ? undefined : { record, expiresAtMs: end };
    },

    /** Nothing but the time is touched: what another language wrote, JavaScript would spell otherwise. */
    withEnd(text, endsAtMs) {
      const record = readRecord(text);
      if (!record || !path) return text;
      const end = spellTime(endIn(record), endsAtMs);
      if (storage === 'string') return replaceInJson(text, path, end);
      const [first = '', ...rest] = field === undefined ? path : [field, ...path];
      const old = readFields(text)?.[first] ?? '';
      const value = rest.length === 0 ? String(end) : replaceInJson(old, rest, end);
      return replaceInJson(text, [first], toBytes(value));
    },

    /** Only the app knows. */
    cookieLife: () => undefined,

    newIds: (oldId) => {
      const random = randomIds();
      return [...random.filter((id) => id.length === oldId.length), ...random];
    },
  };
}

/** The fields of a hash, whose values are kept a character for each byte, as the text that they are. */
function readFields(text: string): Readonly<Record<string, string>> | undefined {
  const fields = readJsonRecord(text);
  return fields && Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, fromBytes(String(value))]));
}

/** A field that holds an object or a list as JSON is one; everything else is text, numbers too: a person's id may be 007. */
function readField(value: string): unknown {
  return (/^[[{]/.test(value) ? readJson(value) : undefined) ?? value;
}

/** As the old one: ISO 8601, ms (over 10^11) or seconds, as a number or as its digits. */
function spellTime(old: unknown, timeMs: number): unknown {
  if (typeof old === 'string' && !/^\d+(\.\d+)?$/.test(old)) return spellIsoTimeAs(old, timeMs);
  const value = Number(old) > 1e11 ? Math.floor(timeMs) : Math.floor(timeMs / 1000);
  return typeof old === 'string' ? String(value) : value;
}
