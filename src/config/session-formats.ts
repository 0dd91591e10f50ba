export const SESSION_FORMATS = ['koa-session', 'koa-generic-session', 'express-session', 'php', 'json', 'http'] as const;
export type SessionFormatName = (typeof SESSION_FORMATS)[number];

/** How PHP writes a session: `session.serialize_handler`. */
export type SerializeHandler = 'php' | 'php_serialize';

/** How a cookie is signed. */
export type SignedBy = 'keygrip' | 'express' | 'cookie-signature' | 'none';

/** What the library of a format does where the app has not told it otherwise; undefined: there is no usual one. */
interface FormatDefaults {
  readonly cookie: string | undefined;
  readonly keyPrefix: string;
  readonly signedBy: SignedBy;
  /** Whether each use of a session prolongs it. */
  readonly rolling: boolean;
}

const FORMATS: Readonly<Record<SessionFormatName, FormatDefaults>> = {
  'koa-session': { cookie: 'koa.sess', keyPrefix: '', signedBy: 'keygrip', rolling: false },
  'koa-generic-session': { cookie: 'koa.sid', keyPrefix: 'koa:sess:', signedBy: 'keygrip', rolling: false },
  'express-session': { cookie: 'connect.sid', keyPrefix: 'sess:', signedBy: 'express', rolling: false },
  php: { cookie: 'PHPSESSID', keyPrefix: 'PHPREDIS_SESSION:', signedBy: 'none', rolling: true },
  json: { cookie: undefined, keyPrefix: '', signedBy: 'keygrip', rolling: false },
  http: { cookie: undefined, keyPrefix: '', signedBy: 'none', rolling: false },
};

/** What may be left out of an entry. */
export interface SessionChoices {
  readonly format: SessionFormatName;
  readonly cookie?: string | undefined;
  readonly keyPrefix?: string | undefined;
  readonly signed?: boolean | undefined;
  readonly rolling?: boolean | undefined;
  readonly serializeHandler?: SerializeHandler | undefined;
  readonly json?: { readonly signature?: SignedBy | undefined } | undefined;
}

/** An entry with what its format's library does by itself. A cookie that has no usual name is '' (a problem that the checks tell). */
export function withFormatDefaults<T extends SessionChoices>(session: T) {
  const usual = FORMATS[session.format];
  const { signed: _, ...rest } = session;
  return {
    ...rest,
    cookie: session.cookie ?? usual.cookie ?? '',
    keyPrefix: session.keyPrefix ?? usual.keyPrefix,
    rolling: session.rolling ?? usual.rolling,
    signedBy: session.signed === false ? 'none' : (session.json?.signature ?? usual.signedBy),
    serializeHandler: session.serializeHandler ?? 'php',
  } as const;
}

/** Whether an app of this format signs its cookie: never, always, or as it is told to. */
export function signingOf(format: SessionFormatName): 'never' | 'always' | 'as told' {
  if (FORMATS[format].signedBy === 'none') return 'never';
  return format === 'express-session' ? 'always' : 'as told';
}
