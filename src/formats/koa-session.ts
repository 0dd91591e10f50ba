import type { RecordShape } from './format.js';
import { numberOf, readJsonRecord, replaceInJson } from './json-record.js';
import { randomIds } from './random-ids.js';

/** What koa-session makes by itself: a UUID (7, 6, 5) or `<ms>-<uid>` (4), behind the app's own `prefix`. */
const GENERATED_ID = /^([\w.:-]{0,64})(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{13}-[\w-]{16,64})$/;
/** koa-session keeps a record so much longer than the session, in ms. */
const RECORD_OUTLIVES_MS = 10_000;

/**
 * Records of koa-session 4 to 7 with an external store: JSON with `_expire` (ms) and `_maxAge`, or `_session: true` for a session
 * without an end of its own.
 */
export const koaSessionShape: RecordShape = {
  storage: 'text',
  endsWithKey: false,
  generatedId: GENERATED_ID,
  outlivesMs: RECORD_OUTLIVES_MS,

  read(text) {
    const record = readJsonRecord(text);
    if (!record) return undefined;
    const [expire, maxAge] = [numberOf(record['_expire']), numberOf(record['_maxAge'])];
    return {
      record,
      // koa-session heeds it only if it is a number.
      ...(expire === undefined ? {} : { expiresAtMs: expire }),
      ...(maxAge !== undefined && maxAge > 0 ? { idleMs: maxAge } : {}),
    };
  },

  withEnd(text, endsAtMs) {
    return numberOf(readJsonRecord(text)?.['_expire']) !== undefined ? replaceInJson(text, ['_expire'], endsAtMs) : text;
  },

  cookieLife(text) {
    const record = readJsonRecord(text);
    const expire = numberOf(record?.['_expire']);
    if (expire !== undefined) return { untilMs: expire };
    return record?.['_session'] === true ? 'browser' : undefined;
  },

  /** Behind the same prefix as the old one; an app with a `genid` of its own gets what its pattern lets pass. */
  newIds(oldId) {
    const prefix = GENERATED_ID.exec(oldId)?.[1] ?? '';
    return randomIds().map((text) => prefix + text);
  },
};

/** An unsigned cookie may name any key, so only what koa-session marked as its own is taken for a session. */
export const markedKoaSessionShape: RecordShape = {
  ...koaSessionShape,
  read(text) {
    const found = koaSessionShape.read(text);
    return found && (found.expiresAtMs !== undefined || found.record['_session'] === true) ? found : undefined;
  },
};
