import type { SessionFormatName } from '../config/session-formats.js';
import { fromBytes } from './bytes.js';
import { expressSessionShape } from './express-session.js';
import type { RecordShape } from './format.js';
import { isRecord, readJsonRecord } from './json-record.js';
import { createJsonShape } from './json-session.js';
import { koaGenericSessionShape } from './koa-generic-session.js';
import { markedKoaSessionShape } from './koa-session.js';
import { createPhpShape } from './php-session.js';

/** What a value in Redis looks like. */
export interface Recognised {
  /** As a person calls it: the `format` of the configuration, or what made it. */
  readonly name: string;
  /** How it is read; absent where it cannot be. */
  readonly read?: { readonly format: SessionFormatName; readonly shape: RecordShape };
  /** Much else looks like that: it is a session only if there is a person in it. */
  readonly isVague?: true;
}

/** Only code of the language that wrote them could read these, and would run what they say: they are named, never parsed. */
const FOREIGN: readonly (readonly [name: string, ...begins: string[]])[] = [
  ['pickle (Python)', '\x80\x02', '\x80\x03', '\x80\x04', '\x80\x05'],
  ['Marshal (Ruby)', '\x04\x08'],
  ['Java serialization', '\xac\xed\x00\x05'],
  ['igbinary (PHP)', '\x00\x00\x00\x02'],
];

/**
 * A map that is not empty, whose first key is a string or bytes; or a list that begins with a string, a list or a map (the MessagePack
 * specification, "formats").
 */
const MESSAGE_PACK =
  /^(?:(?:[\x81-\x8f]|\xde[\0-\xff]{2}|\xdf[\0-\xff]{4})[\xa1-\xbf\xd9\xda\xc4\xc5]|(?:[\x91-\x9f]|\xdc[\0-\xff]{2}|\xdd[\0-\xff]{4})[\x81-\xbf\xc4\xc5\xd9\xda\xde])/;

const PHP_PREFIX = 'PHPREDIS_SESSION:';

/** `bytes`: a character for each byte. Undefined: nothing that looks like a session. */
export function recognise(key: string, bytes: string): Recognised | undefined {
  // phpredis with redis.session.locking_enabled: held for as long as a request, under the key of the session, whatever its prefix.
  if (key.endsWith('_LOCK')) return { name: 'lock of phpredis (no session)' };
  const foreign = FOREIGN.find(([, ...begins]) => begins.some((begin) => bytes.startsWith(begin)));
  if (foreign) return { name: foreign[0] };
  if (MESSAGE_PACK.test(bytes)) return { name: 'MessagePack' };
  if (bytes.startsWith('{')) return recogniseJson(fromBytes(bytes));
  const isPhps = key.startsWith(PHP_PREFIX);
  for (const handler of ['php', 'php_serialize'] as const) {
    const shape = createPhpShape(handler);
    const found = { name: handler === 'php' ? 'php' : 'php (php_serialize)', read: { format: 'php', shape } } as const;
    if (bytes !== '' && shape.read(bytes)) return isPhps ? found : { ...found, isVague: true };
  }
  return isPhps && bytes !== '' ? { name: 'php with objects' } : undefined;
}

/** `text`: the fields of a hash, as they are read. */
export function recogniseHash(text: string): Recognised | undefined {
  const values = Object.values(readJsonRecord(text) ?? {}).map(String);
  const foreign = FOREIGN.find(([, ...begins]) => begins.some((begin) => values.some((value) => value.startsWith(begin))));
  if (foreign) return { name: `${foreign[0]} in a hash` };
  const shape = createJsonShape({ storage: 'hash' });
  return { name: 'json (storage: hash)', read: { format: 'json', shape }, isVague: true };
}

function recogniseJson(text: string): Recognised | undefined {
  const record = readJsonRecord(text);
  if (!record) return undefined;
  const found = (format: SessionFormatName, shape: RecordShape) => ({ name: format, read: { format, shape } });
  if (markedKoaSessionShape.read(text)) return found('koa-session', markedKoaSessionShape);
  const { cookie } = record;
  if (isRecord(cookie) && 'originalMaxAge' in cookie) return found('express-session', expressSessionShape);
  if (isRecord(cookie) && 'overwrite' in cookie) return found('koa-generic-session', koaGenericSessionShape);
  return { ...found('json', createJsonShape({ storage: 'string' })), isVague: true };
}
