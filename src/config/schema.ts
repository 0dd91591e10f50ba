import { z } from 'zod';
import { SAFE_STAGE, STAGES } from '../stages.js';
import { bridgeRedisSchema, CLIENT_ID, clientSchema, file, launchdarklySchema, seconds, sessionSchema } from './schema-entries.js';

/** The stages, lowest first. What each of them does is the table of `rollout/stage.ts`. */

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
  mode: z
    .enum(['enforce', 'observe'])
    .default('enforce')
    .describe('`observe`: decide and answer nothing, write no session, and only compare with whom the app itself finds.'),
  listen: z
    .strictObject({ host: z.string().default('127.0.0.1'), port: z.int().min(0).max(65535).default(8787) })
    .prefault({})
    .describe('Where `crossfade serve` answers the public.'),
  admin: z
    .strictObject({
      host: z.string().default('127.0.0.1'),
      port: z.int().min(0).max(65535).default(8788),
      tokenFile: file
        .optional()
        .describe("A file that holds the operators' token, at least 20 characters: for the console and the API. Without one there is neither."),
      hosts: z
        .array(z.string().min(1))
        .default([])
        .describe('Names by which operators reach this port, beside `localhost`, `host` and addresses: the API answers no other `Host`.'),
    })
    .prefault({})
    .describe('Where `crossfade serve` answers operators: health, metrics, the console and the API.'),
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
  redis: bridgeRedisSchema.describe("The bridge's own keys. This Redis must not evict."),
  sessions: z.array(sessionSchema).describe('The legacy sessions, one entry per format, tried in order. `[]` when the migration is done.'),
  tokens: z
    .strictObject({
      accessTtlSeconds: seconds(30, 86_400).default(600).describe('Life of an access token, at most: never beyond the session that it came from.'),
      refreshIdleSeconds: seconds(60, 31_622_400).default(1_209_600).describe('How long a refresh token lives unused.'),
      refreshAbsoluteSeconds: seconds(60, 31_622_400)
        .default(7_776_000)
        .describe('How long a family of refresh tokens lives at most; never longer than the session that it came from.'),
      reuseGraceSeconds: seconds(0, 3600).default(30).describe('How long a refresh token still gives its successor, once that has been used.'),
      lateRetry: z
        .enum(['allow', 'revoke'])
        .default('allow')
        .describe('`allow`: a refresh token stays good until its successor has been used. `revoke`: only for `reuseGraceSeconds`.'),
      familiesPerSession: z
        .int()
        .min(1)
        .max(1000)
        .default(10)
        .describe('Families that may live at once per session and client; the least recently used gives way.'),
      clockSkewSeconds: seconds(0, 300).default(30).describe('How far `iat` and `nbf` may lie ahead, and `exp` behind.'),
      expiryJitter: z
        .number()
        .min(0)
        .max(0.5)
        .default(0.05)
        .describe('Share of its life that a token may lose at random, so that tokens do not expire together.'),
      resurrectionSeconds: seconds(0, 86_400)
        .default(120)
        .describe('How long after a logout a record under the same id is taken for a late write, where the app records no time of the login.'),
    })
    .prefault({}),
  bearer: z
    .strictObject({
      foreign: z
        .enum(['pass', 'reject'])
        .default('pass')
        .describe("A bearer that is somebody else's: `pass` leaves it to the app, anonymous; `reject` is 401."),
      rememberedTokens: z
        .int()
        .min(0)
        .max(10_000_000)
        .default(150_000)
        .describe(
          'How many verified tokens are remembered in any case, as hashes, so that their signature is not verified again, and at most twice as many: more than live at once, ~0.6 KB each. 0: none.',
        ),
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
        .strictObject({ file: file.optional(), launchdarkly: launchdarklySchema.optional() })
        .refine((value) => (value.file === undefined) !== (value.launchdarkly === undefined), 'give exactly one of file, launchdarkly')
        .optional()
        .describe("Where flags come from: a file in LaunchDarkly's own shape, or LaunchDarkly. Without either, everybody is at `defaultStage`."),
      stageFlag: z.string().min(1).default('auth-migration-stage').describe('Key of the string flag that holds the stage.'),
      killSwitchFlag: z
        .string()
        .min(1)
        .default('auth-migration-kill-switch')
        .describe('Key of the boolean flag that holds everybody at `session-only`.'),
      defaultStage: z.enum(STAGES).default(SAFE_STAGE).describe('The stage where no flag gives one.'),
      nudgesPerSecond: z
        .number()
        .min(0)
        .max(100_000)
        .default(200)
        .describe('How many responses a second may tell a client to exchange, of all instances together.'),
      shadowSampleRate: z
        .number()
        .min(0)
        .max(1)
        .default(0.01)
        .describe('Share of the requests by session at the stage `shadow` that get a shadow mint.'),
      subjectKey: z
        .enum(['hmac', 'plain'])
        .default('hmac')
        .describe("What the flag source sees as the user's key: a pseudonym, or the subject itself."),
      guardrail: z
        .strictObject({
          windowSeconds: seconds(1, 3600).default(30).describe('How far back it looks.'),
          failureRate: z.number().min(0).max(1).default(0.05).describe("The budget: share of requests that may fail by the bridge's own fault."),
          minRequests: z.int().min(1).default(20).describe('With fewer requests in the window nothing is judged.'),
          minSubjects: z.int().min(1).default(10).describe('With fewer persons in the window nothing is judged.'),
        })
        .prefault({})
        .describe('When a cohort is held at `session-only` by itself, until an operator releases it.'),
      cohorts: z
        .array(z.strictObject({ name: z.string().regex(CLIENT_ID), client: z.string(), tenants: z.array(z.string().min(1)).min(1).optional() }))
        .default([])
        .describe("Groups of tenants of a client, by name. The flag source sees the name as the client context's `cohort`."),
    })
    .prefault({}),
  clients: z.array(clientSchema).default([]).describe('The registered apps.'),
  services: z
    .array(z.strictObject({ id: z.string().regex(CLIENT_ID), audience: z.string().min(1), upstream: z.enum(['headers', 'jwt']).default('headers') }))
    .default([])
    .describe(
      'Services that a token may be asked for by `audience`. `upstream: jwt`: behind forward-auth with `?service=ID`, the service gets a token of its own, whatever the client sent.',
    ),
  limits: z
    .strictObject({ exchangePerSessionPerMinute: z.int().min(1).default(30), failuresPerAddressPerMinute: z.int().min(1).default(60) })
    .prefault({})
    .describe('Limits of the endpoints: successful exchanges by session, refreshes by family, failures by address (IPv6: by /64).'),
  verify: z
    .strictObject({
      anonymous: z
        .enum(['deny', 'allow'])
        .default('deny')
        .describe('What forward-auth says of a request without a credential: 401, or 200 with empty identity headers.'),
    })
    .prefault({}),
  observe: z
    .strictObject({
      expectedHeader: z
        .string()
        .min(1)
        .optional()
        .describe("Header of the app's response that names the subject that the app itself found; empty: nobody."),
    })
    .prefault({})
    .describe('Settings of `mode: observe`.'),
  shutdownSeconds: seconds(0, 600).default(20).describe('How long requests under way may take after SIGTERM.'),
});

function isIssuer(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const url = new URL(value);
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '' || url.username !== '' || value.includes('?') || value.includes('#')) return false;
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname));
}

/** Whether `hostname` (as `URL` writes it) can only be this machine. */
function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname.endsWith('.localhost') || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname);
}
