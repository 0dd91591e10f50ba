import type { SessionConfig } from '../config/config.js';
import { createCookieScheme } from './cookie-scheme.js';
import type { CookieSecrets } from './entry-secrets.js';
import { expressSessionShape } from './express-session.js';
import type { RecordShape, SessionFormat } from './format.js';
import { createJsonShape } from './json-session.js';
import { createKeyedFormat, SIGNED_ID } from './keyed-format.js';
import { koaGenericSessionShape } from './koa-generic-session.js';
import { koaSessionShape, markedKoaSessionShape } from './koa-session.js';
import { createPhpShape } from './php-session.js';
import { createWhoamiFormat } from './whoami.js';

/** How the records of an entry look. */
export function shapeOf({
  format,
  signedBy,
  serializeHandler,
  json,
}: Pick<SessionConfig, 'format' | 'signedBy' | 'serializeHandler' | 'json'>): RecordShape {
  switch (format) {
    case 'koa-session':
      return signedBy === 'none' ? markedKoaSessionShape : koaSessionShape;
    case 'koa-generic-session':
      return koaGenericSessionShape;
    case 'express-session':
      return expressSessionShape;
    case 'php':
      return createPhpShape(serializeHandler);
    case 'json':
    case 'http':
      return createJsonShape(json ?? { storage: 'string' });
  }
}

/** Whether an app of this kind gives an id to the next login as well, left to itself. */
export function reusesIds(format: SessionConfig['format']): boolean {
  return format === 'json' || format === 'php';
}

/** What stands before and behind an id in the Redis key. */
export function keyOf({ json, keyPrefix }: Pick<SessionConfig, 'json' | 'keyPrefix'>): { readonly before: string; readonly behind: string } {
  const [before = '', behind = ''] = json?.key.split('{id}') ?? [keyPrefix];
  return { before, behind };
}

/** `secrets`: of an app that signs its cookie. `reservedPrefix`: what the bridge's own keys start with. */
export function createFormat(session: SessionConfig, secrets: Pick<CookieSecrets, 'verifying' | 'signing'>, reservedPrefix: string): SessionFormat {
  if (session.http) return createWhoamiFormat(session, session.http);
  const shape = shapeOf(session);
  const isProven = session.signedBy !== 'none';
  return createKeyedFormat({
    entry: session.name,
    scheme: createCookieScheme(session, secrets),
    shape,
    keyOf: keyOf(session),
    idPattern: session.idPattern === undefined ? (isProven ? SIGNED_ID : shape.generatedId) : new RegExp(`^(?:${session.idPattern})$`),
    reservedPrefix,
  });
}
