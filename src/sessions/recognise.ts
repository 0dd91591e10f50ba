import { expressSessionShape } from './express-session.js';
import type { RecordShape } from './format.js';
import { isRecord, readJsonRecord } from './json-record.js';
import { createJsonShape } from './json-session.js';
import { koaGenericSessionShape } from './koa-generic-session.js';
import { markedKoaSessionShape } from './koa-session.js';
import { createPhpShape } from './php-session.js';

/** What a value in Redis looks like. `shape`: how it is read; absent where it cannot be. */
export interface Recognised {
  /** As a person calls it: the `format` of the configuration, or what made it. */
  readonly name: string;
  readonly shape?: RecordShape;
}

/** Only code of the language that wrote them could read these, and would run what they say: they are named, never parsed. */
const FOREIGN: readonly (readonly [name: string, ...begins: string[]])[] = [
  ['pickle (Python)', '\x80\x02', '\x80\x03', '\x80\x04', '\x80\x05'],
  ['Marshal (Ruby)', '\x04\x08'],
  ['Java serialization', '\xac\xed\x00\x05'],
  ['igbinary (PHP)', '\x00\x00\x00\x02'],
];

/** `bytes`: a character for each byte. Undefined: nothing that looks like a session. */
export function recognise(key: string, bytes: string): Recognised | undefined {
  const foreign = FOREIGN.find(([, ...begins]) => begins.some((begin) => bytes.startsWith(begin)));
  if (foreign) return { name: foreign[0] };
  if (bytes.startsWith('{')) return recogniseJson(Buffer.from(bytes, 'latin1').toString('utf8'));
  for (const handler of ['php', 'php_serialize'] as const) {
    const shape = createPhpShape(handler);
    if (shape.read(bytes)) return { name: handler === 'php' ? 'php' : 'php (php_serialize)', shape };
  }
  return key.startsWith('PHPREDIS_SESSION:') ? { name: 'php with objects' } : undefined;
}

function recogniseJson(text: string): Recognised | undefined {
  const record = readJsonRecord(text);
  if (!record) return undefined;
  if (markedKoaSessionShape.read(text)) return { name: 'koa-session', shape: markedKoaSessionShape };
  const { cookie } = record;
  if (isRecord(cookie) && 'originalMaxAge' in cookie) return { name: 'express-session', shape: expressSessionShape };
  if (isRecord(cookie) && 'overwrite' in cookie) return { name: 'koa-generic-session', shape: koaGenericSessionShape };
  return { name: 'json', shape: createJsonShape({ storage: 'string' }) };
}
