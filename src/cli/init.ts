import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type SessionFormatName, withFormatDefaults } from '../config/session-formats.js';

export interface InitOptions {
  readonly issuer: string;
  readonly redis: string;
  readonly format: SessionFormatName;
  /** Default: that of the format. */
  readonly cookie?: string;
  /** Default: that of the format's usual record. */
  readonly subject?: string;
  /** What the bridge's own paths start with, where the app has routes of those names. Default: /auth. */
  readonly basePath?: string;
}

/** `crossfade init`: everything that a first start needs, except the app's own cookie secrets. Overwrites nothing; says what it did. */
export function init(directory: string, options: InitOptions): string[] {
  const isSigned = withFormatDefaults(options).signedBy !== 'none';
  mkdirSync(join(directory, 'keys'), { recursive: true, mode: 0o700 });
  return [
    write(directory, 'crossfade.yaml', configText(options), 0o644),
    writeKey(directory),
    write(directory, 'fleet-secret', `${randomBytes(32).toString('base64url')}\n`, 0o600),
    write(directory, 'admin-token', `${randomBytes(32).toString('base64url')}\n`, 0o600),
    ...(isSigned ? [write(directory, 'session-secrets', '', 0o600)] : []),
    write(directory, 'flags.json', FLAGS, 0o644),
    ignore(directory, ['keys/', 'fleet-secret', 'admin-token', ...(isSigned ? ['session-secrets'] : [])]),
    '',
    'Next:',
    ...[
      ...(isSigned ? ["put the app's cookie secrets (app.keys in Koa, secret in Express) into session-secrets, one a line, newest first"] : []),
      'name under principal what the record has, the time of the login (authTime) too: without it crossfade end cannot tell an old session from a new one',
      'crossfade check                     what is still wrong',
      ...(options.format === 'http' ? [] : ['crossfade check --sample 1000       how many real sessions map to a principal, read-only']),
      'crossfade serve',
    ].map((step, at) => `  ${at + 1}. ${step}`),
  ];
}

/** `crossfade init --client ID`: the secret is in the answer and kept nowhere; the file holds its hash. */
export function initClient(directory: string, id: string): string[] {
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(id) || id === 'unknown')
    throw new Error('--client: letters, digits and . _ - only, at most 64, and not unknown');
  mkdirSync(directory, { recursive: true });
  if (existsSync(join(directory, `${id}.sha256`)))
    throw new Error(`${join(directory, `${id}.sha256`)} is there already: remove it to make another secret`);
  const secret = randomBytes(32).toString('base64url');
  return [
    write(directory, `${id}.sha256`, `${createHash('sha256').update(secret).digest('hex')}\n`, 0o600),
    '',
    `The secret of ${id}, shown this once:`,
    '',
    `  ${secret}`,
    '',
    'In crossfade.yaml:',
    '',
    'clients:',
    `  - { id: ${id}, type: confidential, secretHashFile: ./${id}.sha256 }`,
  ];
}

function write(directory: string, name: string, text: string, mode: number): string {
  const path = join(directory, name);
  if (existsSync(path)) return `  kept    ${path} (it was there)`;
  writeFileSync(path, text, { mode, flag: 'wx' });
  return `  wrote   ${path}`;
}

/** What is secret stays out of Git, also where a repository has a list of its own. */
function ignore(directory: string, names: readonly string[]): string {
  const path = join(directory, '.gitignore');
  const there = existsSync(path) ? readFileSync(path, 'utf8') : '';
  const missing = names.map((name) => `/${name}`).filter((line) => !there.split(/\r?\n/).includes(line));
  if (missing.length === 0) return `  kept    ${path} (it was there)`;
  const before = there === '' || there.endsWith('\n') ? '' : '\n';
  appendFileSync(path, `${before}# Secrets of Crossfade.\n${missing.join('\n')}\n`);
  return there === '' ? `  wrote   ${path}` : `  added   ${missing.join(', ')} to ${path}`;
}

/** Where a key is there, whatever it is called, another one would sign sooner or later. */
function writeKey(directory: string): string {
  const keys = join(directory, 'keys');
  const known = readdirSync(keys).find((name) => /^[^.].*\.(pem|jwk\.json)$/.test(name));
  return known === undefined ? write(directory, 'keys/first.pem', newKey(), 0o600) : `  kept    ${join(keys, known)} (a key is there)`;
}

function newKey(): string {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

/** The entry of `sessions`: what the format needs, and nothing that it has not. */
function sessionText({ format, cookie, subject = format === 'http' ? 'id' : 'user.id' }: InitOptions): string {
  const usual = withFormatDefaults({ format });
  const line = (text: string, ...about: string[]) => [...about.map((words) => `# ${words}`), text];
  const lines = [
    `format: ${format}`,
    `cookie: ${JSON.stringify(cookie ?? (usual.cookie || 'sid'))}`,
    ...(format === 'json'
      ? line(
          'json: { key: "session:{id}" }',
          'The Redis key; JSON in a string, unless storage: hash; expiresAt: path of a time. signature: keygrip, express or cookie-signature.',
        )
      : []),
    ...(format === 'http'
      ? line(
          'http: { url: "http://127.0.0.1:8000/whoami" }',
          'Asked with the cookie: 200 and JSON, or 401. docs/formats.md has lines for four frameworks.',
        )
      : []),
    ...(format === 'php' ? line('serializeHandler: php', 'session.serialize_handler: php or php_serialize.') : []),
    ...(format === 'json' || format === 'http'
      ? []
      : line(`keyPrefix: ${JSON.stringify(usual.keyPrefix)}`, "What stands in front of the id in the Redis key; this is the library's default.")),
    ...(usual.signedBy === 'none'
      ? []
      : line('secretsFile: ./session-secrets', 'The cookie secrets of the legacy app (app.keys, secret), one a line, newest first.')),
    ...line('principal:', 'Where in the record the person is. Nothing that is not named here gets into a token.'),
    `  subject: ${subject}`,
    ...(format === 'http'
      ? ['  # tenant: tenant', '  # roles: roles', '  # scope: scope', '  # authTime: logged_in_at']
      : ['  # tenant: user.tenant', '  # roles: user.roles', '  # scope: user.scope', '  # authTime: user.loggedInAt']),
  ];
  return ['  - name: web', ...lines.map((text) => `    ${text}`)].join('\n');
}

function configText(options: InitOptions): string {
  const { issuer, redis, basePath } = options;
  return `# yaml-language-server: $schema=./node_modules/crossfade-auth/dist/config.schema.json
# Every setting with its default: docs/configuration.md. \${VAR} takes an environment variable.

# The app's own host: its cookies go there, and it is the exact "iss" of the tokens.
issuer: ${JSON.stringify(issuer)}
# First: the default "aud" of a token. All: what the bridge itself accepts.
audience: [${JSON.stringify(issuer)}]

listen: { host: 127.0.0.1, port: 8787 }
# Health and metrics, for operators only.
admin: { host: 127.0.0.1, port: 8788, tokenFile: ./admin-token }
${basePath === undefined ? '' : `# What the bridge's own paths start with; the files for proxies have /auth.\nhttp: { basePath: ${JSON.stringify(basePath)} }\n`}
# The same on all instances. Whoever has it can make Redis tell the bridge anything.
fleetSecretFile: ./fleet-secret

# The bridge's own keys. This Redis must not evict.
redis:
  url: ${JSON.stringify(redis)}

sessions:
${sessionText(options)}

keys: { directory: ./keys, algorithm: ES256 }

rollout:
  # LaunchDarkly's own shape; or launchdarkly: { sdkKeyFile: ./launchdarkly-key }
  flags: { file: ./flags.json }
  defaultStage: session-only

clients:
  # A browser app on the app's own host. exchanges: it knows how to turn its session into a token.
  - id: web
    type: public
    origins: [${JSON.stringify(originOf(issuer))}]
    exchanges: true
${
  options.format === 'http'
    ? '    # It gets access tokens only: without its cookie the app cannot be asked about it.'
    : `    # Its refresh token travels in a cookie that no script can read; and it knows how to return to its session.
    refreshTransport: cookie
    wayBack: true`
}
    # How a request of this client is known where no Origin says it.
    match: { host: ${JSON.stringify(URL.canParse(issuer) ? new URL(issuer).host : issuer)} }
`;
}

function originOf(issuer: string): string {
  return URL.canParse(issuer) ? new URL(issuer).origin : issuer;
}

const FLAGS = `{
  "flags": {
    "auth-migration-stage": {
      "key": "auth-migration-stage",
      "version": 1,
      "on": true,
      "variations": ["session-only", "shadow", "dual", "jwt-preferred", "jwt-only", "recall"],
      "offVariation": 0,
      "fallthrough": { "variation": 0 },
      "rules": [],
      "salt": "auth-migration-stage"
    },
    "auth-migration-kill-switch": {
      "key": "auth-migration-kill-switch",
      "version": 1,
      "on": false,
      "variations": [false, true],
      "offVariation": 0,
      "fallthrough": { "variation": 1 },
      "rules": [],
      "salt": "auth-migration-kill-switch"
    }
  }
}
`;
