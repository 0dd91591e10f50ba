import { createHmac } from 'node:crypto';
import { z } from 'zod';
import { SESSION_FORMATS } from './session-formats.js';

// The entries of the configuration: where Redis is, one kind of session, one client, LaunchDarkly.

export const file = z.string().min(1);
export const seconds = (min: number, max: number) => z.int().min(min).max(max);
export const CLIENT_ID = /^[A-Za-z0-9._-]{1,64}$/;

/** `scheme://host[:port]` and nothing behind it, as a browser writes it in `Origin` (RFC 6454, section 6.1). */
const origin = z.string().refine(isOrigin, 'must be an origin: scheme://host[:port], lower case, no path');

const nodeAddress = z.strictObject({ host: z.string().min(1), port: z.int().min(1).max(65535).default(6379) });

const tls = z.union([z.boolean(), z.strictObject({ caFile: file.optional(), servername: z.string().min(1).optional() })]);

const connectionShape = {
  url: z
    .string()
    .regex(/^rediss?:\/\//, 'must start with redis:// or rediss://')
    .optional()
    .describe('Where Redis is, as `redis://` or `rediss://` (TLS), with the number of a database behind the port where it is not 0.'),
  urlFile: file.optional().describe('A file that holds the URL, where the URL has a password in it.'),
  cluster: z.array(nodeAddress).min(1).optional().describe('Nodes of a Redis Cluster to start from.'),
  sentinels: z.array(nodeAddress).min(1).optional().describe('Sentinels; `name` says which master.'),
  name: z.string().min(1).optional().describe('Name of the master that the sentinels watch.'),
  database: z.int().min(0).optional().describe('Number of the database behind `sentinels`. A URL has it in its path, and a Cluster has only one.'),
  tls: tls
    .optional()
    .describe(
      'TLS to Redis; implied by `rediss://`. `caFile`: a CA of your own. `servername`: the name in the certificates, where it is not the name that is connected to.',
    ),
  sentinelTls: tls.optional().describe('The same for the sentinels. Default: as `tls`.'),
  username: z.string().min(1).optional().describe('ACL user.'),
  usernameFile: file.optional().describe('A file that holds the ACL user, where it changes together with the password.'),
  passwordFile: file.optional().describe('A file that holds the password.'),
  sentinelUsername: z.string().min(1).optional().describe('ACL user at the sentinels.'),
  sentinelPasswordFile: file.optional().describe('A file that holds the password of the sentinels.'),
};

const recordsRedis = z.strictObject(connectionShape).refine(hasOneTarget, 'give exactly one of url, urlFile, cluster, sentinels');

export const bridgeRedisSchema = z
  .strictObject({
    ...connectionShape,
    keyPrefix: z
      .string()
      .min(1)
      .regex(/^[^{}\s*?[\]]+$/, 'must not hold braces, white space or glob characters')
      .default('crossfade:')
      .describe('What all keys of the bridge start with.'),
    commandTimeoutMs: z.int().min(10).max(10_000).default(250).describe('How long a command may take before the request is answered 503.'),
  })
  .refine(hasOneTarget, 'give exactly one of url, urlFile, cluster, sentinels');

const mappedPath = z.string().regex(/^[^.\s]+(\.[^.\s]+)*$/, 'must be a path like user.id');

const jsonSession = z.strictObject({
  key: z
    .string()
    .refine((value) => value.split('{id}').length === 2, 'must hold {id} once')
    .describe('The Redis key, with `{id}` where the id stands: `app:{id}:session`.'),
  storage: z.enum(['string', 'hash']).default('string').describe('`string`: JSON. `hash`: the fields are the members, or `field` holds JSON.'),
  field: z.string().min(1).optional().describe('Field of the hash that holds the record as JSON. Default: every field is a member of the record.'),
  signature: z
    .enum(['keygrip', 'express', 'cookie-signature'])
    .optional()
    .describe(
      'How the cookie is signed: `keygrip` (a second cookie, `.sig`), `express` (`res.cookie` with `signed: true`) or `cookie-signature` (the same without `s:`). Default: `keygrip`; `signed: false` where it is not.',
    ),
  expiresAt: mappedPath
    .optional()
    .describe('Path of the time at which the session ends: seconds, milliseconds or ISO 8601. Default: only the time to live of the key counts.'),
});

const whoami = z.strictObject({
  url: z
    .url({ protocol: /^https?$/ })
    .describe('Is asked by GET with the one cookie; 200 with a JSON object says who it is, 401 or `null` that it is nobody.'),
  timeoutMs: z.int().min(10).max(10_000).default(1000).describe('How long an answer may take before the request is answered 503.'),
  expiresAt: mappedPath.optional().describe('Path in the answer of the time at which the session ends.'),
});

export const sessionSchema = z.strictObject({
  name: z.string().regex(CLIENT_ID).default('web').describe('Name of this entry; part of every `sid`, so it must not change while tokens live.'),
  format: z
    .enum(SESSION_FORMATS)
    .default('koa-session')
    .describe('How the legacy app writes its sessions; `http`: the app itself is asked. docs/formats.md has a table.'),
  cookie: z
    .string()
    .regex(/^[!#$%&'*+\-.^_`|~0-9A-Za-z:]+$/, 'must be a cookie name')
    .optional()
    .describe(
      'Name of the cookie. Default: that of the library (`koa.sess`; `koa:sess` before koa-session 6; `koa.sid`, `connect.sid`, `PHPSESSID`); none for `json` and `http`.',
    ),
  keyPrefix: z
    .string()
    .optional()
    .describe(
      'What stands before the id in the Redis key. Default: that of the library (`""`, `koa:sess:`, `sess:`, `PHPREDIS_SESSION:`). koa-session\'s own `prefix` option stands in the cookie too and is left out here; `json` has `json.key`.',
    ),
  idPattern: z
    .string()
    .refine(isPattern, 'must be a regular expression')
    .optional()
    .describe(
      'Regular expression that a whole session id must match, for an app with a `genid` of its own. Default: letters, digits and `_ . : + / = ~ -`, at most 256; where the cookie is not signed only what the library generates itself.',
    ),
  secretsFile: file.optional().describe("The legacy app's cookie secrets (`app.keys`), one a line, newest first."),
  signature: z
    .strictObject({
      algorithm: z.string().refine(isHmacHash, 'must be a hash that Node.js knows, such as sha1, sha256 or sha512').default('sha1'),
      encoding: z.enum(['base64', 'base64url', 'hex']).default('base64'),
    })
    .optional()
    .describe(
      'Hash and encoding of the cookie signature. Set it where the app sets `app.keys` to a `KeyGrip` with another hash: for `new KeyGrip(keys, "sha256")` use `{ algorithm: sha256 }`. Default: `sha1` in `base64`, as in Koa.',
    ),
  keepDroppedSecretSeconds: seconds(0, 604_800)
    .default(3600)
    .describe(
      'How long a cookie secret goes on verifying, on all instances, after `secretsFile` has lost it. It ends at once by a line `-` before it, or by `crossfade secrets drop`. 0: never.',
    ),
  signed: z
    .boolean()
    .optional()
    .describe('`false` where the app does not sign its cookie. Default: as the library does; PHP does not, and for `http` the app itself checks.'),
  serializeHandler: z.enum(['php', 'php_serialize']).optional().describe("PHP's `session.serialize_handler`, for `php` only. Default: `php`."),
  json: jsonSession.optional().describe('Where the records of `json` are, and how they look.'),
  http: whoami.optional().describe('Whom to ask, for `http`.'),
  redis: recordsRedis.optional().describe('Where the records are, if elsewhere than the keys of the bridge.'),
  rolling: z.boolean().optional().describe('Whether the app prolongs a session at each use. Default: no; for `php` yes, since PHP always does.'),
  absoluteTtlSeconds: seconds(60, 31_622_400)
    .default(7_776_000)
    .describe('How long a rolling session, or one without an end of its own, may be carried over at most, from the login on.'),
  cookieOptions: z
    .strictObject({
      path: z.string().default('/'),
      domain: z.string().optional(),
      secure: z.boolean().optional().describe('Default: true where the issuer is https.'),
      httpOnly: z.boolean().default(true),
      sameSite: z.enum(['strict', 'lax', 'none']).default('lax'),
      expires: z
        .union([z.enum(['browser', 'record']), seconds(1, 31_536_000)])
        .optional()
        .describe(
          'How long the browser keeps it: until it is closed (`browser`), until the record ends (`record`), or so many seconds. Default: as the record says (koa-session, express-session, koa-generic-session), `browser` for PHP, `record` for `json`.',
        ),
    })
    .prefault({})
    .describe('Attributes of the session cookie, as the app sets it: for a session that comes back, and at a logout.'),
  principal: z
    .strictObject({
      subject: mappedPath.describe('Path of the person in the record; must lead to a string or a whole number.'),
      tenant: mappedPath.optional().describe('Path of the tenant.'),
      roles: mappedPath.optional().describe('Path of the roles: a list of strings or whole numbers, or one of them for one role.'),
      scope: mappedPath.optional().describe('Path of the scope: a list of strings, or one string with spaces between.'),
      authTime: mappedPath.optional().describe('Path of the time of the login: seconds, milliseconds (over 10^11) or ISO 8601.'),
    })
    .optional()
    .describe('What of the record makes the principal. Nothing else of it gets into a token. Needed, unless a function does it.'),
});

const match = z
  .strictObject({
    host: z.string().min(1).optional(),
    userAgent: z
      .string()
      .min(1)
      .refine((value) => value.split('*').length <= 2, 'takes one * at most')
      .optional(),
    header: z.record(z.string(), z.string()).optional(),
  })
  .refine((value) => Object.keys(value).length > 0, 'needs a host, a userAgent or a header');

export const clientSchema = z
  .strictObject({
    id: z
      .string()
      .regex(CLIENT_ID, 'letters, digits and . _ - only, at most 64')
      .refine((id) => id !== 'unknown', 'unknown is what a request without a client is called')
      .describe('Name of the client: `client_id` in OAuth.'),
    type: z.enum(['public', 'confidential']).default('public').describe('`confidential` clients authenticate with a secret.'),
    secretHashFile: file
      .optional()
      .describe('A file that holds the hex SHA-256 of the secret; `crossfade init --client ID` makes one. Several lines: each is good.'),
    origins: z
      .array(origin)
      .default([])
      .describe("Origins whose pages may use this client. Without any, the request's cookie is never read at a POST of the bridge."),
    refreshTransport: z
      .enum(['cookie', 'body'])
      .default('body')
      .describe('How the refresh token travels: in a cookie that no script can read, or in form and answer.'),
    exchanges: z.boolean().default(false).describe('Whether this client knows how to exchange its session.'),
    wayBack: z.boolean().default(false).describe('Whether it knows how to return to a session.'),
    introspect: z.boolean().default(false).describe('Whether it may introspect access tokens. Confidential clients only.'),
    issue: z.boolean().default(false).describe('Whether it may have tokens issued at a login of its own. Confidential clients only.'),
    minVersion: z
      .string()
      .regex(/^\d+(\.\d+)*$/, 'must be numbers with dots')
      .optional()
      .describe('Versions below are held at `jwt-preferred`, and get no nudge.'),
    match: match
      .optional()
      .describe(
        'How a request of this client is known: `host`, `userAgent` (one `*` stands for the version), `header`; all that are given must fit.',
      ),
  })
  .refine((value) => value.type === 'public' || value.secretHashFile !== undefined, {
    path: ['secretHashFile'],
    error: 'a confidential client needs one: crossfade init --client ID',
  });

export const launchdarklySchema = z.strictObject({
  sdkKeyFile: file.describe('A file that holds the SDK key.'),
  streamUri: z.url().optional(),
  baseUri: z.url().optional(),
  eventsUri: z.url().optional(),
  sendEvents: z.boolean().default(false),
});

function hasOneTarget(value: { url?: unknown; urlFile?: unknown; cluster?: unknown; sentinels?: unknown }): boolean {
  return [value.url, value.urlFile, value.cluster, value.sentinels].filter((target) => target !== undefined).length === 1;
}

function isOrigin(value: string): boolean {
  if (!/^[a-z][a-z0-9+.-]*:\/\/[^/?#\s]+$/.test(value)) return false;
  return !/^https?:/.test(value) || (URL.canParse(value) && new URL(value).origin === value);
}

function isPattern(value: string): boolean {
  try {
    new RegExp(value);
    return true;
  } catch {
    return false;
  }
}

/** Some hashes that Node.js lists make no HMAC (shake128). */
function isHmacHash(value: string): boolean {
  try {
    createHmac(value, 'key').update('').digest();
    return true;
  } catch {
    return false;
  }
}
