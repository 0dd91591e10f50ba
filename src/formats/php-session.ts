import { randomBytes } from 'node:crypto';
import type { RecordShape, SessionRecord } from './format.js';
import { readPhpSession } from './php-serialization.js';

/** PHP's `session.sid_length` of 22 to 256, at any `session.sid_bits_per_character`. */
const GENERATED_ID = /^[A-Za-z0-9,-]{22,256}$/;

/**
 * Records of PHP's session handler in phpredis, as `session.serialize_handler` writes them. Each use moves the time to live of the key,
 * and nothing else says when the session ends.
 */
export function createPhpShape(handler: 'php' | 'php_serialize'): RecordShape {
  return {
    storage: 'bytes',
    endsWithKey: true,
    generatedId: GENERATED_ID,
    outlivesMs: 0,
    read(text) {
      const record: SessionRecord | undefined = readPhpSession(text, handler);
      return record && { record };
    },
    withEnd: (text) => text,
    /** `session.cookie_lifetime` is 0 unless php.ini says otherwise, and PHP never writes the cookie again. */
    cookieLife: () => 'browser',
    /** As long as the old one: the app may check. Hexadecimal digits are in every alphabet of PHP's. */
    newIds: ({ length }) => [
      randomBytes(Math.ceil(length / 2))
        .toString('hex')
        .slice(0, length),
    ],
  };
}
