import { z } from 'zod';

/** The stages, lowest first. What each of them does is the table of `rollout/stage.ts`. */
export const STAGES = ['recall', 'session-only', 'shadow', 'dual', 'jwt-preferred', 'jwt-only'] as const;

const LATER = 'Does nothing in this version.';

const file = z.string().min(1);
const seconds = (min: number, max: number) => z.int().min(min).max(max);
const CLIENT_ID = /^[A-Za-z0-9._-]{1,64}$/;

/** `scheme://host[:port]` and nothing behind it, as a browser writes it in `Origin` (RFC 6454, section 6.1). */
const origin = z.string().refine(isOrigin, 'must be an origin: scheme://host[:port], lower case, no path');

const nodeAddress = z.strictObject({ host: z.string().min(1), port: z.int().min(1).max(65535).default(6379) });

const connectionShape = {
  url: z
    .string()
    .regex(/^rediss?:\/\//, 'must start with redis:// or rediss://')
    .optional()
    .describe('Where Redis is, as `redis://` or `rediss://` (TLS).'),
  urlFile: file.optional().describe('A file that holds the URL, where the URL has a password in it.'),
  cluster: z.array(nodeAddress).min(1).optional().describe('Nodes of a Redis Cluster to start from.'),
  sentinels: z.array(nodeAddress).min(1).optional().describe('Sentinels; `name` says which master.'),
  name: z.string().min(1).optional().describe('Name of the master that the sentinels watch.'),
  tls: z
    .union([z.boolean(), z.strictObject({ caFile: file })])
    .optional()
    .describe("TLS to cluster nodes and sentinels' masters; `caFile` for a CA of your own."),
  username: z.string().min(1).optional().describe('ACL user.'),
  passwordFile: file.optional().describe('A file that holds the password.'),
};

const recordsRedis = z
  .strictObject(connectionShape)
  .refine(hasOneTarget, 'give exactly one of url, urlFile, cluster, sentinels')
  .refine((value) => !value.sentinels || value.name !== undefined, { path: ['name'], error: 'sentinels need the name of the master' });

const bridgeRedis = z
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
  .refine(hasOneTarget, 'give exactly one of url, urlFile, cluster, sentinels')
  .refine((value) => !value.sentinels || value.name !== undefined, { path: ['name'], error: 'sentinels need the name of the master' });

const mappedPath = z.string().regex(/^[^.\s]+(\.[^.\s]+)*$/, 'must be a path like user.id');

const session = z.strictObject({
  name: z.string().regex(CLIENT_ID).default('web').describe('Name of this entry; part of every `sid`, so it must not change while tokens live.'),
  format: z
    .enum(['koa-session', 'koa-generic-session', 'express-session', 'php', 'json', 'http'])
    .default('koa-session')
    .describe('How the legacy app writes its sessions. This version reads `koa-session`.'),
  cookie: z
    .string()
    .regex(/^[!#$%&'*+\-.^_`|~0-9A-Za-z:]+$/, 'must be a cookie name')
    .default('koa.sess')
    .describe('Name of the cookie: `koa.sess` since koa-session 6, `koa:sess` before.'),
  keyPrefix: z
    .string()
    .default('')
    .describe(
      "What stands before the cookie's value in the Redis key. koa-session's own `prefix` option stands in the cookie too and is left out here.",
    ),
  idPattern: z
    .string()
    .refine(isPattern, 'must be a regular expression')
    .optional()
    .describe(
      'Regular expression that a whole session id must match, for an app with a `genid` of its own. Default: letters, digits and `_ . : + / = ~ -`, at most 256; with `signed: false` only what koa-session generates itself.',
    ),
  secretsFile: file.optional().describe("The legacy app's cookie secrets (`app.keys`), one a line, newest first."),
  signed: z.boolean().default(true).describe('`false` where the app does not sign its cookie.'),
  redis: recordsRedis.optional().describe('Where the records are, if elsewhere than the keys of the bridge.'),
  rolling: z.boolean().default(false).describe('Whether the app prolongs a session at each use.'),
  absoluteTtlSeconds: seconds(60, 31_622_400)
    .default(7_776_000)
    .describe('How long a rolling session, or one without an end of its own, may be carried over at most, from the login on.'),
  cookieOptions: z
    .strictObject({
      path: z.string().default('/'),
      domain: z.string().optional(),
      secure: z.boolean().default(true),
      httpOnly: z.boolean().default(true),
      sameSite: z.enum(['strict', 'lax', 'none']).default('lax'),
    })
    .prefault({})
    .describe(`Attributes of a restored cookie. In this version, \`check\` compares them with the issuer.`),
  principal: z
    .strictObject({
      subject: mappedPath.describe('Path of the person in the record; must lead to a string or a whole number.'),
      tenant: mappedPath.optional().describe('Path of the tenant.'),
      roles: mappedPath.optional().describe('Path of the roles: a list of strings, or one string for one role.'),
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

const client = z
  .strictObject({
    id: z
      .string()
      .regex(CLIENT_ID, 'letters, digits and . _ - only, at most 64')
      .refine((id) => id !== 'unknown', 'unknown is what a request without a client is called')
      .describe('Name of the client: `client_id` in OAuth.'),
    type: z.enum(['public', 'confidential']).default('public').describe('`confidential` clients authenticate with a secret.'),
    secretHashFile: file.optional().describe('A file that holds the hex SHA-256 of the secret; `crossfade init --client ID` makes one.'),
    origins: z
      .array(origin)
      .default([])
      .describe("Origins whose pages may use this client. Without any, the request's cookie is never read at a POST of the bridge."),
    refreshTransport: z
      .enum(['cookie', 'body'])
      .default('body')
      .describe(
        `How the refresh token travels. In this version: a client with \`cookie\` may have a cookie set, so its every exchange passes the origin check.`,
      ),
    exchanges: z.boolean().default(false).describe('Whether this client knows how to exchange its session.'),
    wayBack: z.boolean().default(false).describe(`Whether it knows how to go back to a session. ${LATER}`),
    introspect: z.boolean().default(false).describe(`Whether it may introspect access tokens. ${LATER}`),
    issue: z.boolean().default(false).describe(`Whether it may have tokens issued at login. ${LATER}`),
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

const launchdarkly = z.strictObject({
  sdkKeyFile: file.describe('A file that holds the SDK key.'),
  streamUri: z.url().optional(),
  baseUri: z.url().optional(),
  eventsUri: z.url().optional(),
  sendEvents: z.boolean().default(false),
});

/**
 * The whole configuration. Units stand in the names. The JSON Schema for editors and `docs/configuration.md` are made
 * from this, descriptions included.
 */
export const configSchema = z.strictObject({
  issuer: z
    .string()
    .refine(isIssuer, 'must be an https URL without path, query or fragment (http only for a loopback host)')
    .describe("The exact `iss` of the tokens: the app's own host, where its cookies go."),
  audience: z.array(z.string().min(1)).min(1).describe('First: the default `aud` of a token. All: what the bridge itself accepts.'),
  mode: z.enum(['enforce', 'observe']).default('enforce').describe('`observe` is not in this version.'),
  listen: z
    .strictObject({ host: z.string().default('127.0.0.1'), port: z.int().min(0).max(65535).default(8787) })
    .prefault({})
    .describe('Where `crossfade serve` answers the public.'),
  admin: z
    .strictObject({
      host: z.string().default('127.0.0.1'),
      port: z.int().min(0).max(65535).default(8788),
      tokenFile: file.optional().describe(`A file that holds the bearer token of the console and its API. ${LATER}`),
    })
    .prefault({})
    .describe('Where `crossfade serve` answers operators: health and metrics.'),
  http: z
    .strictObject({
      basePath: z
        .string()
        .regex(/^(\/[A-Za-z0-9._~-]+)+$/, 'must start with / and not end with one')
        .default('/auth')
        .describe('Where the endpoints are.'),
      trustProxy: z
        .array(z.union([z.cidrv4(), z.cidrv6()]))
        .default(['127.0.0.1/32'])
        .describe('Peers whose `X-Forwarded-*` and `X-Original-*` headers are believed, as CIDR.'),
    })
    .prefault({}),
  fleetSecretFile: file.describe('A file that holds base64url of 32 random bytes, the same on all instances.'),
  redis: bridgeRedis.describe("The bridge's own keys. This Redis must not evict."),
  sessions: z.array(session).describe('The legacy sessions, one entry per format, tried in order. `[]` when the migration is done.'),
  tokens: z
    .strictObject({
      accessTtlSeconds: seconds(30, 86_400).default(600).describe('Life of an access token, at most: never beyond the session that it came from.'),
      refreshIdleSeconds: seconds(60, 31_622_400).default(1_209_600).describe(`How long a refresh token lives unused. ${LATER}`),
      refreshAbsoluteSeconds: seconds(60, 31_622_400).default(7_776_000).describe(`How long a family of refresh tokens lives at most. ${LATER}`),
      reuseGraceSeconds: seconds(0, 3600).default(30).describe(`How long a used refresh token still gives its successor. ${LATER}`),
      lateRetry: z.enum(['allow', 'revoke']).default('allow').describe(`Whether a refresh token stays good until its successor was used. ${LATER}`),
      familiesPerSession: z.int().min(1).max(1000).default(10).describe(`Families that may live at once per session and client. ${LATER}`),
      clockSkewSeconds: seconds(0, 300).default(30).describe('How far `iat` and `nbf` may lie ahead, and `exp` behind.'),
      expiryJitter: z
        .number()
        .min(0)
        .max(0.5)
        .default(0.05)
        .describe('Share of its life that a token may lose at random, so that tokens do not expire together.'),
      resurrectionSeconds: seconds(0, 86_400)
        .default(120)
        .describe(`How long after a logout a record under the same id is taken for a late write. ${LATER}`),
    })
    .prefault({}),
  bearer: z
    .strictObject({
      foreign: z
        .enum(['pass', 'reject'])
        .default('pass')
        .describe("A bearer that is somebody else's: `pass` leaves it to the app, anonymous; `reject` is 401."),
    })
    .prefault({}),
  keys: z
    .strictObject({
      directory: file.default('./keys').describe('Directory of key files: `[time-]NAME.pem` (PKCS#8) or `[time-]NAME.jwk.json`.'),
      algorithm: z.enum(['ES256', 'EdDSA', 'RS256', 'PS256']).default('ES256').describe('What the keys sign with.'),
      use: z.enum(['sign', 'verify']).default('sign').describe('`verify` for instances that need no private key.'),
      selfTestSeconds: seconds(1, 3600).default(30).describe('How often every key is tested anew.'),
      publishSeconds: seconds(0, 86_400)
        .default(900)
        .describe('How long a new key is published before it signs: longer than the JWKS caches of verifiers. 0 only for a single instance.'),
      jwksMaxAgeSeconds: seconds(0, 86_400).default(300).describe('`max-age` of the JWKS.'),
      allowGroupRead: z.boolean().default(false).describe('Whether a key file may be readable by its group.'),
    })
    .prefault({}),
  rollout: z
    .strictObject({
      flags: z
        .strictObject({ file: file.optional(), launchdarkly: launchdarkly.optional() })
        .refine((value) => (value.file === undefined) !== (value.launchdarkly === undefined), 'give exactly one of file, launchdarkly')
        .optional()
        .describe("Where flags come from: a file in LaunchDarkly's own shape, or LaunchDarkly. Without either, everybody is at `defaultStage`."),
      stageFlag: z.string().min(1).default('auth-migration-stage').describe('Key of the string flag that holds the stage.'),
      killSwitchFlag: z
        .string()
        .min(1)
        .default('auth-migration-kill-switch')
        .describe('Key of the boolean flag that holds everybody at `session-only`.'),
      defaultStage: z.enum(STAGES).default('session-only').describe('The stage where no flag gives one.'),
      nudgesPerSecond: z.number().min(0).max(100_000).default(200).describe('How many responses a second may tell a client to exchange.'),
      shadowSampleRate: z.number().min(0).max(1).default(0.01).describe(`Share of requests that get a shadow mint. ${LATER}`),
      subjectKey: z
        .enum(['hmac', 'plain'])
        .default('hmac')
        .describe("What the flag source sees as the user's key: a pseudonym, or the subject itself."),
      guardrail: z
        .strictObject({
          windowSeconds: seconds(1, 3600).default(30),
          failureRate: z.number().min(0).max(1).default(0.05),
          minRequests: z.int().min(1).default(20),
          minSubjects: z.int().min(1).default(10),
        })
        .prefault({})
        .describe(`When a cohort is held back by itself. ${LATER}`),
      cohorts: z
        .array(z.strictObject({ name: z.string().regex(CLIENT_ID), client: z.string(), tenants: z.array(z.string().min(1)).min(1).optional() }))
        .default([])
        .describe("Groups of tenants of a client, by name. The flag source sees the name as the client context's `cohort`."),
    })
    .prefault({}),
  clients: z.array(client).default([]).describe('The registered apps.'),
  services: z
    .array(z.strictObject({ id: z.string().regex(CLIENT_ID), audience: z.string().min(1), upstream: z.enum(['headers', 'jwt']).default('headers') }))
    .default([])
    .describe('Services that a token may be asked for by `audience`. `upstream: jwt` is not in this version.'),
  limits: z
    .strictObject({ exchangePerSessionPerMinute: z.int().min(1).default(30), failuresPerAddressPerMinute: z.int().min(1).default(60) })
    .prefault({})
    .describe(`Limits of the endpoints. ${LATER}`),
  verify: z
    .strictObject({
      anonymous: z
        .enum(['deny', 'allow'])
        .default('deny')
        .describe('What forward-auth says of a request without a credential: 401, or 200 with empty identity headers.'),
    })
    .prefault({}),
  observe: z
    .strictObject({ expectedHeader: z.string().min(1).optional() })
    .prefault({})
    .describe(`Settings of \`mode: observe\`. ${LATER}`),
  shutdownSeconds: seconds(0, 600).default(20).describe('How long requests under way may take after SIGTERM.'),
});

function hasOneTarget(value: { url?: unknown; urlFile?: unknown; cluster?: unknown; sentinels?: unknown }): boolean {
  return [value.url, value.urlFile, value.cluster, value.sentinels].filter((target) => target !== undefined).length === 1;
}

function isOrigin(value: string): boolean {
  if (!/^[a-z][a-z0-9+.-]*:\/\/[^/?#\s]+$/.test(value)) return false;
  return !/^https?:/.test(value) || (URL.canParse(value) && new URL(value).origin === value);
}

function isIssuer(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const url = new URL(value);
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '' || url.username !== '' || value.includes('?') || value.includes('#')) return false;
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname));
}

function isPattern(value: string): boolean {
  try {
    new RegExp(value);
    return true;
  } catch {
    return false;
  }
}

/** Whether `hostname` (as `URL` writes it) can only be this machine. */
function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname.endsWith('.localhost') || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname);
}
