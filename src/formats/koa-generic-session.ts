import { expressSessionShape, lifeOfMaxAge } from './express-session.js';
import type { RecordShape } from './format.js';
import { isRecord, numberOf, readJsonRecord } from './json-record.js';

/**
 * Records of koa-generic-session 2 in koa-redis 4: JSON with the cookie's options in a `cookie` member, whose `maxAge` (ms) is the
 * life that each write gives anew. When it ends only the key knows.
 */
export const koaGenericSessionShape: RecordShape = {
  ...expressSessionShape,

  read(text) {
    const record = readJsonRecord(text);
    if (!record || !isRecord(record['cookie'])) return undefined;
    const maxAge = numberOf(record['cookie']['maxAge']);
    return { record, ...(maxAge !== undefined && maxAge > 0 ? { idleMs: maxAge } : {}) };
  },

  withEnd: (text) => text,
  cookieLife: (text) => lifeOfMaxAge(text, 'maxAge'),
};
