import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ConfigError, type ConfigInput } from '../../src/config/config.js';
import { loadConfig, resolveConfig } from '../../src/config/load.js';
import { deriveKey, Secret } from '../../src/config/secret.js';
import { remember } from '../support/transcript.js';

const FLEET_SECRET = Buffer.alloc(32, 3).toString('base64url');

let directory: string;
beforeEach(() => {
  remember(FLEET_SECRET, 'cookie-secret-one', 'cookie-secret-two');
  directory = mkdtempSync(join(tmpdir(), 'crossfade-config-'));
  writeFileSync(join(directory, 'fleet-secret'), `${FLEET_SECRET}\n`);
  writeFileSync(join(directory, 'session-secrets'), 'cookie-secret-one\ncookie-secret-two\n');
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const minimal: ConfigInput = {
  issuer: 'https://app.example.com',
  audience: ['https://api.example.com'],
  fleetSecretFile: './fleet-secret',
  redis: { url: 'redis://127.0.0.1:6379/0' },
  sessions: [{ secretsFile: './session-secrets', principal: { subject: 'user.id' } }],
};

function problemsOf(input: unknown, env: Record<string, string> = {}): string[] {
  try {
    resolveConfig(input, { baseDir: directory, env });
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
}

describe('the configuration', () => {
  it('needs five settings; the rest has the defaults of the design', () => {
    const config = resolveConfig(minimal, { baseDir: directory });
    expect(JSON.parse(JSON.stringify(config))).toMatchObject({
      mode: 'enforce',
      listen: { host: '127.0.0.1', port: 8787 },
      admin: { host: '127.0.0.1', port: 8788 },
      http: { basePath: '/auth', trustProxy: ['127.0.0.1/32'] },
      redis: { keyPrefix: 'crossfade:', commandTimeoutMs: 250 },
      sessions: [
        {
          name: 'web',
          format: 'koa-session',
          cookie: 'koa.sess',
          keyPrefix: '',
          signedBy: 'keygrip',
          rolling: false,
          absoluteTtlSeconds: 7_776_000,
          cookieOptions: { path: '/', secure: true, httpOnly: true, sameSite: 'lax' },
        },
      ],
      tokens: {
        accessTtlSeconds: 600,
        refreshIdleSeconds: 1_209_600,
        refreshAbsoluteSeconds: 7_776_000,
        reuseGraceSeconds: 30,
        lateRetry: 'allow',
        familiesPerSession: 10,
        clockSkewSeconds: 30,
        expiryJitter: 0.05,
        resurrectionSeconds: 120,
      },
      bearer: { foreign: 'pass' },
      keys: {
        directory: join(directory, 'keys'),
        algorithm: 'ES256',
        use: 'sign',
        selfTestSeconds: 30,
        publishSeconds: 900,
        jwksMaxAgeSeconds: 300,
        allowGroupRead: false,
      },
      rollout: {
        stageFlag: 'auth-migration-stage',
        killSwitchFlag: 'auth-migration-kill-switch',
        defaultStage: 'session-only',
        nudgesPerSecond: 200,
        shadowSampleRate: 0.01,
        subjectKey: 'hmac',
        guardrail: { windowSeconds: 30, failureRate: 0.05, minRequests: 20, minSubjects: 10 },
      },
      limits: { exchangePerSessionPerMinute: 30, failuresPerAddressPerMinute: 60 },
      verify: { anonymous: 'deny' },
      shutdownSeconds: 20,
    });
  });

  it('reports all problems at once, each with its path', () => {
    const problems = problemsOf({
      issuer: 'http://app.example.com',
      audience: [],
      fleetSecretFile: './nowhere',
      redis: { url: 'http://x', cluster: [{ host: 'a' }] },
      sessions: [{ principal: { subject: 'user..id' }, secretsFile: './nowhere-either', cookie: 'a b' }],
      clients: [{ id: 'has space' }, { id: 'unknown' }, { id: 'c', type: 'confidential' }, { id: 'd', origins: ['https://a.example/path'] }],
      tokens: { accessTtlSeconds: 5 },
      colour: 'blue',
    });
    expect(problems).toEqual([
      expect.stringMatching(/^issuer: must be an https URL/),
      expect.stringMatching(/^audience: /),
      expect.stringMatching(/^redis\.url: must start with redis:\/\//),
      'redis: give exactly one of url, urlFile, cluster, sentinels',
      expect.stringMatching(/^sessions\[0\]\.cookie: must be a cookie name/),
      expect.stringMatching(/^sessions\[0\]\.principal\.subject: must be a path/),
      expect.stringMatching(/^tokens\.accessTtlSeconds: /),
      expect.stringMatching(/^clients\[0\]\.id: letters, digits/),
      expect.stringMatching(/^clients\[1\]\.id: unknown is/),
      expect.stringMatching(/^clients\[2\]\.secretHashFile: a confidential client needs one/),
      expect.stringMatching(/^clients\[3\]\.origins\[0\]: must be an origin/),
      'colour: there is no such setting',
      'fleetSecretFile: the file that it names cannot be read (ENOENT)',
      'sessions[0].secretsFile: the file that it names cannot be read (ENOENT)',
    ]);
  });

  it('reports what the schema refuses and what only the whole can show in one round', () => {
    const ports = { listen: { port: 9000 }, admin: { port: 9000 } };
    const problems = problemsOf({ ...minimal, ...ports, colour: 'blue', tokens: { accessTtlSeconds: 5 }, fleetSecretFile: 'nowhere' });
    expect(problems).toEqual([
      expect.stringMatching(/^tokens\.accessTtlSeconds: /),
      'colour: there is no such setting',
      'admin.port: is the same as listen.port; operators need a port of their own',
      'fleetSecretFile: the file that it names cannot be read (ENOENT)',
    ]);
  });

  it('has the defaults of each format’s library', () => {
    const principal = { subject: 'id' };
    const { sessions } = resolveConfig(
      {
        ...minimal,
        sessions: [
          { name: 'a', format: 'koa-generic-session', secretsFile: 'session-secrets', principal },
          { name: 'b', format: 'express-session', secretsFile: 'session-secrets', principal },
          { name: 'c', format: 'php', principal },
          { name: 'd', format: 'json', cookie: 'sid', secretsFile: 'session-secrets', json: { key: 's:{id}' }, principal },
          { name: 'e', format: 'http', cookie: 'sid', http: { url: 'http://127.0.0.1:1/' }, principal },
        ],
      },
      { baseDir: directory },
    );
    expect(sessions.map(({ cookie, keyPrefix, signedBy, rolling }) => [cookie, keyPrefix, signedBy, rolling])).toEqual([
      ['koa.sid', 'koa:sess:', 'keygrip', false],
      ['connect.sid', 'sess:', 'express', false],
      ['PHPSESSID', 'PHPREDIS_SESSION:', 'none', true],
      ['sid', '', 'keygrip', false],
      ['sid', '', 'none', false],
    ]);
  });

  it('reports of each format what it needs and what is not for it', () => {
    const principal = { subject: 'id' };
    const problems = problemsOf({
      ...minimal,
      sessions: [
        { name: 'a', format: 'php', signed: true, json: { key: 's:{id}' }, principal },
        { name: 'b', format: 'express-session', signed: false, serializeHandler: 'php', principal },
        { name: 'c', format: 'json', principal },
        { name: 'd', format: 'http', cookie: 'x', redis: { url: 'redis://127.0.0.1' }, principal },
        { name: 'e', format: 'json', cookie: 'y', signed: false, json: { key: '{id}' }, keyPrefix: 'z', principal },
        { name: 'g', format: 'koa-generic-session', signed: false, keyPrefix: '', principal },
        { name: 'h', format: 'http', cookie: 'z', http: { url: 'http://a' }, idPattern: 'x', secretsFile: 'session-secrets', principal },
        { name: 'f', format: 'json', cookie: 'y', signed: false, json: { key: 's:{id}', signature: 'express' }, principal },
      ],
    });
    expect(problems).toEqual([
      'sessions[0].json: is for format json only',
      'sessions[0].signed: is not for php: nothing signs its cookie that could be checked here',
      'sessions[1].serializeHandler: is for format php only',
      'sessions[1].signed: express-session always signs its cookie',
      'sessions[2].cookie: say its name: there is no usual one for json',
      'sessions[2].json: say where the records are, for example { key: "app:{id}:session" }',
      "sessions[2].secretsFile: a signed cookie needs the app's cookie secrets; or say signed: false",
      'sessions[3].http: say whom to ask, for example { url: http://127.0.0.1:8000/whoami }',
      'sessions[4].json.key: must start with at least two characters of its own before {id}: an unsigned cookie could name any key',
      'sessions[4].keyPrefix: is not for json: json.key says it',
      'sessions[5].keyPrefix: must not be empty: an unsigned cookie could name any key',
      'sessions[6].secretsFile: is not for http: nothing signs its cookie that could be checked here',
      'sessions[6].idPattern: is not for http: the app itself knows its cookies',
      'sessions[7].json.signature: and signed: false contradict each other',
    ]);
    expect(problemsOf({ ...minimal, sessions: [{ format: 'json', cookie: 'a', json: { key: 's:{id}:{id}' }, principal }] })).toEqual([
      'sessions[0].json.key: must hold {id} once',
    ]);
  });

  it('reports what only the whole can show', () => {
    const [session] = minimal.sessions;
    const problems = problemsOf({
      ...minimal,
      sessions: [session, session],
      clients: [{ id: 'web' }, { id: 'web' }],
      rollout: { cohorts: [{ name: 'web', client: 'web' }] },
      listen: { port: 9000 },
      admin: { port: 9000 },
    });
    expect(problems).toEqual([
      'rollout.cohorts[0].name: web is the id of a client: choose another name',
      'sessions: two entries are named web',
      'sessions: two entries read the same cookie from the same place',
      'clients: two clients have the id web',
      'admin.port: is the same as listen.port; operators need a port of their own',
    ]);
  });

  it.each(['https://a.example', 'https://a.example/', 'http://localhost:8787', 'http://127.0.0.1', 'http://[::1]:1', 'http://app.localhost'])(
    'takes %s for an issuer',
    (issuer) => {
      expect(problemsOf({ ...minimal, issuer })).toEqual([]);
    },
  );

  it.each([
    'https://a.example/path',
    'https://a.example?x',
    'https://a.example#',
    'https://u@a.example',
    'a.example',
    'http://localhost.evil.example',
    'http://10.0.0.1',
  ])('refuses %s for an issuer', (issuer) => {
    expect(problemsOf({ ...minimal, issuer })).toHaveLength(1);
  });

  it('a key must be published for long enough that the other instances have read it', () => {
    expect(problemsOf({ ...minimal, keys: { publishSeconds: 59 } })).toEqual([
      expect.stringMatching(/^keys\.publishSeconds: must be 0, for a single instance, or at least twice/),
    ]);
    expect(problemsOf({ ...minimal, keys: { publishSeconds: 0 } })).toEqual([]);
  });

  it('takes environment variables by ${VAR}, numbers included, and names the one that is missing', () => {
    const env = { HOST: 'app.example.com', PORT: '9001' };
    const config = resolveConfig({ ...minimal, issuer: 'https://${HOST}', listen: { port: '${PORT}' } }, { baseDir: directory, env });
    expect({ issuer: config.issuer, port: config.listen.port }).toEqual({ issuer: 'https://app.example.com', port: 9001 });
    expect(problemsOf({ ...minimal, audience: ['${NOWHERE}'] })).toContain('audience[0]: the environment variable NOWHERE is not set');
  });

  it('keeps secrets in a wrapper that prints as [secret], and freezes the rest', () => {
    const config = resolveConfig(minimal, { baseDir: directory });
    expect(config.sessions[0]?.secrets?.current.map((secret) => secret.reveal())).toEqual(['cookie-secret-one', 'cookie-secret-two']);
    const printed = `${JSON.stringify(config)} ${inspect(config, { depth: 9 })} ${String(config.fleetSecret)} ${config.fleetSecret}`;
    for (const secret of [FLEET_SECRET, 'cookie-secret-one', '127.0.0.1:6379']) expect(printed).not.toContain(secret);
    expect(printed).toContain('[secret]');
    expect(() => Object.assign(config.tokens, { accessTtlSeconds: 1 })).toThrow(TypeError);
  });

  it.each([
    ['fleet-secret', 'too-short', 'fleetSecretFile: the file must hold base64url of 32 random bytes'],
    ['fleet-secret', 'pseudonyms=abc', 'the file holds no secret'],
    ['fleet-secret', `${FLEET_SECRET}\n${FLEET_SECRET}`, 'the same secret twice'],
    ['fleet-secret', `${FLEET_SECRET}\n${'A'.repeat(43)}`, 'several secrets and no line pseudonyms='],
    ['fleet-secret', `${FLEET_SECRET}\npseudonyms=abc`, 'not one that crossfade secrets add has written'],
    ['session-secrets', '\n\n', 'the file that it names is empty: put the app'],
    ['session-secrets', 'a\n b\n', 'starts or ends with white space'],
  ])('a %s of %j is a problem, and the message does not show it', (name, text, message) => {
    writeFileSync(join(directory, name), text);
    const problems = problemsOf(minimal).join('\n');
    expect(problems).toContain(message);
    expect(problems).not.toContain('too-short');
  });

  it('a secret that was put where a path belongs is not shown', () => {
    remember('the-secret-itself-instead-of-a-path');
    const problems = problemsOf({ ...minimal, fleetSecretFile: '${FLEET}' }, { FLEET: 'the-secret-itself-instead-of-a-path' });
    expect(problems).toEqual(['fleetSecretFile: the file that it names cannot be read (ENOENT)']);
  });

  it('a function may stand in for the mapping: the paths are not asked for when the file is read', () => {
    expect(problemsOf({ ...minimal, sessions: [{ secretsFile: './session-secrets' }] })).toEqual([]);
  });
});

describe('the file', () => {
  it('is YAML or JSON, with paths relative to itself', async () => {
    writeFileSync(join(directory, 'crossfade.json'), JSON.stringify(minimal));
    expect((await loadConfig(join(directory, 'crossfade.json'))).keys.directory).toBe(join(directory, 'keys'));
  });

  it('that does not parse is told by line and column alone: what stands there may hold a password', async () => {
    const path = join(directory, 'broken.yaml');
    writeFileSync(path, 'listen: } {\nredis: { url: "redis://:hunter2@127.0.0.1:6379" \nclients: [\n');
    const error: unknown = await loadConfig(path).catch((cause: unknown) => cause);
    expect(error).toMatchObject({
      code: 'config_unreadable',
      problems: [{ message: expect.stringMatching(/^line \d+, column \d+: this is not YAML/) }],
    });
    expect(String(error)).not.toContain('hunter2');
  });

  it('that is not there, or does not parse, is unreadable', async () => {
    await expect(loadConfig(join(directory, 'nowhere.yaml'))).rejects.toMatchObject({
      code: 'config_unreadable',
      message: expect.stringContaining('cannot be read (ENOENT)'),
    });
    writeFileSync(join(directory, 'alias.yaml'), 'issuer: *nowhere');
    await expect(loadConfig(join(directory, 'alias.yaml'))).rejects.toMatchObject({
      code: 'config_unreadable',
      message: expect.stringContaining('alias.yaml'),
    });
    writeFileSync(join(directory, 'broken.yaml'), 'issuer: [a\nx: y: z');
    await expect(loadConfig(join(directory, 'broken.yaml'))).rejects.toMatchObject({
      code: 'config_unreadable',
      message: expect.stringContaining('broken.yaml'),
    });
  });
});

it('keys for different purposes have nothing to do with each other', () => {
  const secret = new Secret(FLEET_SECRET);
  expect(deriveKey(secret, 'mac').equals(deriveKey(secret, 'subject'))).toBe(false);
  expect(deriveKey(secret, 'mac').equals(deriveKey(secret, 'mac'))).toBe(true);
});
