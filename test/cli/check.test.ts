import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { closeServer, startLegacyApp, urlOf } from '../../scripts/lib/legacy-app.js';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { runCli } from '../support/cli.js';
import { remember } from '../support/transcript.js';
import { createWorld, sharedRedisUrl } from '../support/world.js';

const COOKIE_SECRET = 'the-cookie-secret-of-the-check';
const redis = new Redis(sharedRedisUrl());
let directory: string;
beforeEach(async () => {
  remember(COOKIE_SECRET);
  directory = mkdtempSync(join(tmpdir(), 'crossfade-cli-'));
  const { status } = await runCli(['init', directory, '--redis', sharedRedisUrl()]);
  expect(status).toBe(0);
  for (const name of ['fleet-secret', 'admin-token']) remember(readFileSync(join(directory, name), 'utf8').trim());
  writeFileSync(join(directory, 'session-secrets'), `${COOKIE_SECRET}\n`);
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));
afterAll(() => redis.disconnect());

const check = async (...args: string[]) => await runCli(['check', '--config', join(directory, 'crossfade.yaml'), ...args]);
const edit = (from: string | RegExp, to: string) => {
  const path = join(directory, 'crossfade.yaml');
  writeFileSync(path, readFileSync(path, 'utf8').replace(from, to));
};

describe('crossfade init', () => {
  it('writes what a first start needs, secrets for the owner only, and overwrites nothing', async () => {
    expect(readdirSync(directory).sort()).toEqual([
      '.gitignore',
      'admin-token',
      'crossfade.yaml',
      'flags.json',
      'fleet-secret',
      'keys',
      'session-secrets',
    ]);
    for (const name of ['admin-token', 'fleet-secret', 'session-secrets', 'keys/first.pem'])
      expect(statSync(join(directory, name)).mode & 0o777).toBe(0o600);
    const before = readFileSync(join(directory, 'fleet-secret'), 'utf8');
    const again = await runCli(['init', directory]);
    expect(again.stdout).toContain('fleet-secret (it was there)');
    expect(readFileSync(join(directory, 'fleet-secret'), 'utf8')).toBe(before);
    expect(readFileSync(join(directory, '.gitignore'), 'utf8').split('\n')).toEqual(
      expect.arrayContaining(['/keys/', '/fleet-secret', '/admin-token', '/session-secrets']),
    );
  });

  it('adds what is secret to the .gitignore of a repository, once, and keeps the rest', async () => {
    const at = join(directory, 'repository');
    mkdirSync(at);
    writeFileSync(join(at, '.gitignore'), 'node_modules');
    for (let turn = 0; turn < 2; turn++) await runCli(['init', at]);
    for (const name of ['fleet-secret', 'admin-token']) remember(readFileSync(join(at, name), 'utf8').trim());
    expect(readFileSync(join(at, '.gitignore'), 'utf8')).toBe(
      'node_modules\n# Secrets of Crossfade.\n/keys/\n/fleet-secret\n/admin-token\n/session-secrets\n',
    );
  });

  it('makes no second key where one is there under another name', async () => {
    renameSync(join(directory, 'keys', 'first.pem'), join(directory, 'keys', '20260101T000000Z-next.pem'));
    const again = await runCli(['init', directory]);
    expect(again.stdout).toContain('a key is there');
    expect(readdirSync(join(directory, 'keys'))).toEqual(['20260101T000000Z-next.pem']);
  });

  it('--base-path goes into the file, for an app that has /auth/logout itself; what is no path is refused', async () => {
    const at = join(directory, 'elsewhere');
    await runCli(['init', at, '--base-path', '/crossfade']);
    expect(readFileSync(join(at, 'crossfade.yaml'), 'utf8')).toMatch(/^http: \{ basePath: "\/crossfade" \}$/m);
    expect(await runCli(['init', at, '--base-path', 'crossfade/'])).toMatchObject({ status: 1, stderr: expect.stringContaining('a path such as') });
  });

  it('--format http maps the id that the docs let the app answer, and leaves out what that format cannot do', async () => {
    const at = join(directory, 'asks');
    await runCli(['init', at, '--format', 'http']);
    const text = readFileSync(join(at, 'crossfade.yaml'), 'utf8');
    expect(text).toMatch(/^ {6}subject: id$/m);
    expect(text).not.toMatch(/wayBack|refreshTransport/);
  });

  it('--client makes a secret, shows it once, and keeps its hash', async () => {
    const made = await runCli(['init', directory, '--client', 'orders-api']);
    const secret = /^ {2}([\w-]{43})$/m.exec(made.stdout)?.[1] ?? '';
    const { createHash } = await import('node:crypto');
    expect(readFileSync(join(directory, 'orders-api.sha256'), 'utf8').trim()).toBe(createHash('sha256').update(secret).digest('hex'));
    const again = await runCli(['init', directory, '--client', 'orders-api']);
    expect({ status: again.status, stderr: again.stderr }).toEqual({ status: 2, stderr: expect.stringContaining('is there already') });
    expect((await runCli(['init', directory, '--client', '../x'])).status).toBe(2);
  });
});

describe('crossfade init --format', () => {
  const made = async (format: string) => {
    const at = join(directory, format);
    const { status, stdout } = await runCli(['init', at, '--format', format, '--redis', sharedRedisUrl()]);
    for (const name of ['fleet-secret', 'admin-token']) remember(readFileSync(join(at, name), 'utf8').trim());
    if (readdirSync(at).includes('session-secrets')) writeFileSync(join(at, 'session-secrets'), `${COOKIE_SECRET}\n`);
    return { at, status, stdout };
  };

  it.each(['koa-generic-session', 'express-session', 'php', 'json'])(
    '%s: check finds no fault with it, once secrets are in where the cookie is signed',
    async (format) => {
      const { at, status, stdout } = await made(format);
      expect(status).toBe(0);
      expect(stdout.includes('session-secrets')).toBe(format !== 'php');
      const checked = await runCli(['check', '--config', join(at, 'crossfade.yaml'), '--json']);
      expect({ status: checked.status, ...JSON.parse(checked.stdout) }).toMatchObject({ status: 0, findings: [] });
      const notes = JSON.stringify(JSON.parse(checked.stdout).notes);
      expect(notes.includes('may give the same id to the next login')).toBe(format === 'php' || format === 'json');
    },
  );

  it('http: check asks the app once, without a cookie: it must be there, and name nobody', async () => {
    const { at } = await made('http');
    const file = join(at, 'crossfade.yaml');
    const findings = async () =>
      z
        .object({ findings: z.array(z.object({ path: z.string(), message: z.string() })) })
        .parse(JSON.parse((await runCli(['check', '--config', file, '--json'])).stdout)).findings;
    let answer = '{"id":"u-alice"}';
    const server = createServer((_, response) => response.end(answer)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    writeFileSync(file, readFileSync(file, 'utf8').replace('http://127.0.0.1:8000/whoami', `${urlOf(server)}/whoami`));
    expect(await findings()).toEqual([{ path: 'sessions[0].http.url', message: 'names somebody for a request without a cookie' }]);
    answer = 'null';
    expect(await findings()).toEqual([]);
    answer = '{"user":{"id":null,"name":null}}';
    expect(await findings()).toEqual([{ path: 'sessions[0].principal.subject', message: 'the app answers without id; there is user' }]);
    answer = '<html>';
    expect(await findings()).toEqual([{ path: 'sessions[0].http.url', message: expect.stringContaining('without a JSON object') }]);
    await closeServer(server);
    expect(await findings()).toEqual([{ path: 'sessions[0].http.url', message: 'does not answer (ECONNREFUSED)' }]);
  });

  it('refuses a format that there is not, and names those that there are', async () => {
    expect((await runCli(['init', directory, '--format', 'pickle'])).stderr).toContain(
      'koa-session, koa-generic-session, express-session, php, json, http',
    );
  });
});

describe('crossfade check', () => {
  it('finds no fault with what init wrote, once the cookie secrets are in', async () => {
    expect(await check()).toMatchObject({ status: 0, stdout: expect.stringContaining('nothing to find fault with') });
    writeFileSync(join(directory, 'session-secrets'), '');
    expect(await check()).toMatchObject({ status: 1, stdout: expect.stringContaining('sessions[0].secretsFile') });
  });

  it('tells an unreadable config from findings by its exit status', async () => {
    expect((await runCli(['check', '--config', join(directory, 'nowhere.yaml')])).status).toBe(2);
    edit('issuer: ', 'issuer: ftp://');
    expect(await check('--json')).toMatchObject({ status: 1 });
  });

  it('names keys, flags, cookies and paths that would not work, for people and for programs', async () => {
    chmodSync(join(directory, 'keys', 'first.pem'), 0o644);
    writeFileSync(join(directory, 'flags.json'), '{"flagValues":{"auth-migration-stage":"jwt-mostly"}}');
    edit('keyPrefix: ""', 'keyPrefix: "crossfade:sess:"\n    cookieOptions: { domain: other.example, sameSite: none, secure: false, path: /app }');
    const { status, stdout } = await check('--json');
    const { findings }: { findings: { path: string; message: string }[] } = JSON.parse(stdout);
    expect(status).toBe(1);
    expect(findings.map(({ path, message }) => `${path}: ${message}`)).toEqual([
      expect.stringMatching(/cookieOptions\.domain: a cookie for other\.example does not reach/),
      expect.stringMatching(/cookieOptions: browsers refuse sameSite: none/),
      expect.stringMatching(/clients\.web\.origins: .* the cookie koa\.sess may not be sent from there/),
      expect.stringMatching(/keyPrefix: starts with redis\.keyPrefix/),
      expect.stringMatching(/cookieOptions\.path: a cookie for \/app is not sent to \/auth/),
      'keys.directory: first.pem is readable by everybody: chmod 600',
      expect.stringMatching(/keys\.directory: .* has no usable signing key/),
      'rollout.stageFlag: auth-migration-stage can become "jwt-mostly", which is no stage',
    ]);
    expect((await check()).stdout).toContain('8 findings');
  });

  it.each([
    [
      'a route of its own',
      (path: string, method: string) => (path === '/auth/logout' && method === 'GET' ? 302 : 404),
      ['/auth/logout (GET is answered 302)'],
    ],
    [
      'one that only a POST reaches',
      (path: string, method: string) => (path === '/auth/token' && method === 'OPTIONS' ? 204 : 404),
      ['/auth/token (OPTIONS is answered 204)'],
    ],
    ['metadata of its own', (path: string) => (path.startsWith('/.well-known/jwks') ? 200 : 404), ['/.well-known/jwks.json (GET is answered 200)']],
    ['a slash that belongs behind', (path: string) => (path === '/auth/token' ? 301 : 404), []],
    ['too many questions for whatever is asked', (path: string) => (path === '/auth/token' ? 429 : 404), []],
    ['a page for whatever is asked', () => 200, []],
    ['a login for whatever is asked', () => 302, []],
    ['another path under /auth', (path: string) => (path === '/auth/google' ? 302 : 404), []],
  ] as const)('names where the app has %s under a path of the bridge', async (_what, statusOf, clashes) => {
    const app = createServer((request, response) => {
      const status = statusOf(request.url ?? '', request.method ?? '');
      response.writeHead(status, { location: status === 301 ? `${request.url}/` : '/login' }).end('the app');
    }).listen(0, '127.0.0.1');
    await once(app, 'listening');
    edit(/^issuer: .*$/m, `issuer: ${urlOf(app)}`);
    const { stdout } = await check('--json');
    await closeServer(app);
    const { findings }: { findings: { path: string; message: string }[] } = JSON.parse(stdout);
    expect(findings.filter(({ path }) => path === 'http.basePath').map(({ message }) => message)).toEqual(
      clashes.map((clash) => expect.stringContaining(`the app has a route ${clash}`)),
    );
  });

  it('names a route of its own in an app that has a page for whatever is asked', async () => {
    const app = createServer((request, response) => {
      const isOwn = request.url === '/auth/logout';
      if (request.method === 'OPTIONS') response.setHeader('allow', isOwn ? 'POST' : 'GET, HEAD');
      response.end(request.url === '/auth/session' ? 'a page of its own' : 'the one page');
    }).listen(0, '127.0.0.1');
    await once(app, 'listening');
    edit(/^issuer: .*$/m, `issuer: ${urlOf(app)}`);
    const { findings }: { findings: { path: string; message: string }[] } = JSON.parse((await check('--json')).stdout);
    await closeServer(app);
    expect(findings.filter(({ path }) => path === 'http.basePath').map(({ message }) => message.split(' (')[0])).toEqual([
      'the app has a route /auth/session',
      'the app has a route /auth/logout',
    ]);
  });

  it('takes its own endpoints for no clash', async () => {
    const world = await createWorld();
    try {
      edit(/^issuer: .*$/m, `issuer: ${world.url}`);
      expect(JSON.parse((await check('--json')).stdout).findings.filter(({ path }: { path: string }) => path === 'http.basePath')).toEqual([]);
    } finally {
      await world.close();
    }
  });

  it('says what a login without a time costs', async () => {
    expect((await check()).stdout).toMatch(/note: sessions\[0\]\.principal\.authTime: is not mapped: .*crossfade end/);
    edit('# authTime: user.loggedInAt', 'authTime: user.loggedInAt');
    expect((await check()).stdout).not.toContain('authTime');
  });

  it('says that Redis does not answer, and that it would evict', async () => {
    const evicting = await startRedis({ args: ['--maxmemory', '50mb', '--maxmemory-policy', 'allkeys-lru'] });
    try {
      edit(sharedRedisUrl(), evicting.url);
      expect((await check()).stdout).toContain('redis: maxmemory-policy is allkeys-lru');
    } finally {
      await evicting.stop();
    }
    expect(await check()).toMatchObject({
      status: 1,
      stdout: expect.stringMatching(/redis: Redis does not answer \(127\.0\.0\.1:\d+: nothing listens there \(ECONNREFUSED\)\)/),
    });
  });

  it('says that Redis takes no writes, and what a failover would lose', async () => {
    const primary = await startRedis();
    const replica = await startRedis({ args: ['--replicaof', '127.0.0.1', String(primary.port)] });
    const admin = new Redis(primary.url);
    try {
      await expect.poll(async () => await admin.info('replication')).toContain('state=online');
      edit(sharedRedisUrl(), primary.url);
      const noted = await check();
      expect(noted.stdout).toMatch(/note: redis: it replicates, and min-replicas-to-write is 0/);
      edit(primary.url, replica.url);
      expect(await check()).toMatchObject({
        status: 1,
        stdout: expect.stringContaining("redis: it is a replica, which takes no writes: use the primary's endpoint\n"),
      });
      edit(replica.url, primary.url);
      await admin.config('SET', 'min-replicas-to-write', '3');
      const refused = await check();
      expect(refused).toMatchObject({ status: 1, stdout: expect.stringMatching(/redis: .*NOREPLICAS/) });
      expect(refused.stdout).not.toContain('min-replicas-to-write is 0');
    } finally {
      admin.disconnect();
      await replica.stop();
      await primary.stop();
    }
  });

  it('names a wrong password, a kill switch that is no boolean, and a key whose time is to come', async () => {
    const locked = await startRedis({ args: ['--requirepass', 'the-password-of-redis'] });
    remember('the-password-of-redis');
    try {
      edit(sharedRedisUrl(), locked.url);
      writeFileSync(join(directory, 'flags.json'), '{"flagValues":{"auth-migration-stage":"dual","auth-migration-kill-switch":"off"}}');
      renameSync(join(directory, 'keys', 'first.pem'), join(directory, 'keys', '29990101T000000Z-first.pem'));
      const { stdout } = await check();
      expect(stdout).toMatch(/redis: Redis (does not answer|refuses).*NOAUTH/);
      expect(stdout).toContain('rollout.killSwitchFlag: auth-migration-kill-switch can become "off"');
      expect(stdout).toContain('no key signs yet');
    } finally {
      await locked.stop();
    }
  });
});

describe('crossfade check --sample', () => {
  it('says how many real sessions map and why the others do not, without a config, and writes nothing', async () => {
    const prefix = `sample-${randomUUID()}:`;
    const legacy = await startLegacyApp({ redisUrl: sharedRedisUrl(), secrets: [COOKIE_SECRET], storePrefix: prefix });
    try {
      for (const name of ['alice', 'bob', 'carol']) await legacy.login(name);
      await legacy.visit();
      await redis.set(`${prefix}cart`, 'not a session', 'EX', 60);
      await redis.set(`${prefix}odd`, '{"_expire":99999999999999,"user":{"id":{"a":1}}}', 'EX', 60);
      await redis.hset(`${prefix}hash`, 'a', 'b');
      const ttls = await Promise.all(legacy.keys.map((key) => redis.get(key)));
      const args = [
        'check',
        '--redis',
        sharedRedisUrl(),
        '--key-prefix',
        prefix,
        '--subject',
        'user.id',
        '--tenant',
        'user.tenant',
        '--roles',
        'user.roles',
      ];
      const told = await runCli(args);
      expect(told.stdout).toContain('5 sessions among');
      expect(told.stdout).toMatch(/3 of 5 map; .*1 has no user\.id \(there is .*\)/);
      expect(told.stdout).toMatch(/1 where user\.id is not a string with visible characters, or a whole number/);
      expect(told.stdout).toContain('3 of 3 have tenant.');
      expect(told.stdout).toContain('2 of 3 have roles.');
      expect(told.status).toBe(1);
      expect(await Promise.all(legacy.keys.map((key) => redis.get(key)))).toEqual(ttls);
      await redis.del(`${prefix}odd`);
      const limited = await runCli([...args, '--sample', '2', '--json']);
      expect({ status: limited.status, ...JSON.parse(limited.stdout).reports[0] }).toMatchObject({ status: 0, sessions: 2 });
      edit('keyPrefix: ""', `keyPrefix: "${prefix}"`);
      expect(await check('--sample', '100')).toMatchObject({ status: 0, stdout: expect.stringMatching(/3 of 4 map; 1 has no user\.id/) });
    } finally {
      await redis.del(`${prefix}cart`, `${prefix}odd`, `${prefix}hash`);
      await legacy.close();
    }
  });

  it('names what it cannot read: a lock of phpredis, MessagePack, igbinary, pickle', async () => {
    const prefix = `PHPREDIS_SESSION:${randomUUID()}`;
    const records = new Map<string, Buffer>([
      ['a_LOCK', Buffer.from('host-1234')],
      ['packed by bytes', Buffer.from('82c40475736572a5616c696365a3636e740a', 'hex')],
      ['packed', Buffer.from('82a475736572a5616c696365a3636e740a', 'hex')],
      ['igbinary', Buffer.from('00000002140111047573657211', 'hex')],
      ['pickled', Buffer.from('80049516000000', 'hex')],
    ]);
    try {
      for (const [name, bytes] of records) await redis.set(`${prefix}${name}`, bytes, 'EX', 60);
      const told = await runCli(['check', '--redis', sharedRedisUrl(), '--key-prefix', prefix]);
      for (const name of ['lock of phpredis (no session)', 'MessagePack', 'igbinary (PHP)', 'pickle (Python)']) expect(told.stdout).toContain(name);
      expect(told.status).toBe(1);
      expect(told.stdout).toMatch(/2 MessagePack/);
      await redis.set(`myapp-${prefix}abc_LOCK`, 'host-1234', 'EX', 60);
      expect((await runCli(['check', '--redis', sharedRedisUrl(), '--key-prefix', `myapp-${prefix}`])).stdout).toContain('lock of phpredis');
    } finally {
      await redis.del(`myapp-${prefix}abc_LOCK`, ...[...records.keys()].map((name) => `${prefix}${name}`));
    }
  });

  it('--format http has nothing to sample: a real cookie is asked about instead, as the bridge would', async () => {
    const at = join(directory, 'asks');
    await runCli(['init', at, '--format', 'http', '--cookie', 'sid']);
    for (const name of ['fleet-secret', 'admin-token']) remember(readFileSync(join(at, name), 'utf8').trim());
    const file = join(at, 'crossfade.yaml');
    const sampled = await runCli(['check', '--config', file, '--sample', '10']);
    expect([sampled.status, sampled.stderr]).toEqual([2, expect.stringContaining('--cookie-value-file FILE')]);
    const seen: (string | undefined)[] = [];
    let answer = '{"user":{"id":"u-1"}}';
    const app = createServer((request, response) => {
      seen.push(request.headers.cookie);
      response.end(request.headers.cookie === undefined ? 'null' : answer);
    }).listen(0, '127.0.0.1');
    await once(app, 'listening');
    writeFileSync(file, readFileSync(file, 'utf8').replace('http://127.0.0.1:8000/whoami', `${urlOf(app)}/whoami`));
    writeFileSync(join(at, 'cookie'), 'Cookie: other=1; sid=the-cookie-of-somebody\n');
    remember('the-cookie-of-somebody');
    const asked = async () => await runCli(['check', '--config', file, '--cookie-value-file', join(at, 'cookie')]);
    expect(await asked()).toMatchObject({ status: 1, stdout: 'web: the app answers, and its answer maps to nobody: no id; there is user.\n' });
    expect(seen.at(-1)).toBe('sid=the-cookie-of-somebody');
    answer = '{"id":"u-1"}';
    expect(await asked()).toMatchObject({ status: 0, stdout: expect.stringContaining('maps to a principal') });
    answer = 'null';
    expect(await asked()).toMatchObject({ status: 1, stdout: expect.stringContaining('is nobody') });
    await closeServer(app);
    expect(await asked()).toMatchObject({ status: 1, stdout: expect.stringContaining('does not answer (ECONNREFUSED)') });
  });

  it('says when nothing was found, and refuses what is no number', async () => {
    const none = await runCli(['check', '--redis', sharedRedisUrl(), '--key-prefix', randomUUID()]);
    expect({ status: none.status, stdout: none.stdout }).toEqual({ status: 1, stdout: expect.stringContaining('No session record was found') });
    expect((await runCli(['check', '--sample', 'many'])).stderr).toContain('a whole number from 1 on');
    expect(await runCli(['check', '--redis', 'redis://127.0.0.1:1/0'])).toMatchObject({
      status: 2,
      stderr: 'redis: Redis does not answer (127.0.0.1:1: nothing listens there (ECONNREFUSED))\n',
    });
  });
});
