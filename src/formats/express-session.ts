import { randomBytes } from 'node:crypto';
import type { CookieLife, RecordShape } from './format.js';
import { isRecord, numberOf, readJsonRecord, replaceInJson } from './json-record.js';

/** 24 random bytes, as uid-safe spells them. */
const GENERATED_ID = /^[\w-]{32}$/;

/**
 * Records of express-session in connect-redis 3 to 10: JSON with a `cookie` member. The `expires` in it goes stale, since a touch moves
 * only the time to live of the key: that is the authority (C7).
 */
export const expressSessionShape: RecordShape = {
  storage: 'text',
  endsWithKey: true,
  generatedId: GENERATED_ID,
  outlivesMs: 0,

  read(text) {
    const record = readJsonRecord(text);
    if (!record || !isRecord(record['cookie'])) return undefined;
    const originalMaxAge = numberOf(record['cookie']['originalMaxAge']);
    return { record, ...(originalMaxAge !== undefined && originalMaxAge > 0 ? { idleMs: originalMaxAge } : {}) };
  },

  withEnd(text, endsAtMs) {
    const cookie = readJsonRecord(text)?.['cookie'];
    if (!isRecord(cookie) || typeof cookie['expires'] !== 'string') return text;
    return replaceInJson(text, ['cookie', 'expires'], new Date(endsAtMs).toISOString());
  },

  /** express-session sets the end anew, by `originalMaxAge`, whenever it writes the cookie. */
  cookieLife: (text) => lifeOfMaxAge(text, 'originalMaxAge'),

  newIds: () => [randomBytes(24).toString('base64url'), randomBytes(16).toString('hex'), randomBytes(32).toString('base64url')],
};

/** Of the options of the cookie that express-session and koa-generic-session keep in the record. Without a maximum age it ends with the browser. */
export function lifeOfMaxAge(text: string, name: 'originalMaxAge' | 'maxAge'): CookieLife | undefined {
  const cookie = readJsonRecord(text)?.['cookie'];
  if (!isRecord(cookie)) return undefined;
  const maxAge = numberOf(cookie[name]);
  return maxAge !== undefined && maxAge > 0 ? { forMs: maxAge } : 'browser';
}
