import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SignJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { closeServer, urlOf } from '../../scripts/lib/legacy-app.js';
import { createCookieApp, createLibraryApp, createOauthApp } from '../../scripts/rehearsal/apps.js';
import { Ledger, totalOf } from '../../scripts/rehearsal/ledger.js';
import { createRandom } from '../../scripts/rehearsal/random.js';
import { toHtml, verdictOf } from '../../scripts/rehearsal/report.js';
import { createVisitor, type VisitorOptions } from '../../scripts/rehearsal/visitor.js';
import { createWorld, type World } from '../support/world.js';

const DRILL = fileURLToPath(new URL('../../scripts/drill', import.meta.url));

async function run(...args: string[]): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const child = spawn(DRILL, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, CROSSFADE_BUILT: '1' } });
  const said = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk) => {
    said.stdout += String(chunk);
  });
  child.stderr.on('data', (chunk) => {
    said.stderr += String(chunk);
  });
  const [status]: (number | null)[] = await once(child, 'close');
  return { status: status ?? null, ...said };
}

describe('scripts/drill against a staging of one’s own', () => {
  let world: World;
  let directory: string;
  beforeAll(async () => {
    world = await createWorld({ stage: 'jwt-preferred' });
    directory = mkdtempSync(join(tmpdir(), 'crossfade-staging-'));
  });
  afterAll(async () => {
    await world.close();
    rmSync(directory, { recursive: true, force: true });
  });

  it('sends clients with the sessions of a file, moves them to tokens, and breaks nothing', async () => {
    const cookies = await Promise.all([0, 1, 2].map(async (n) => await world.login(`person-${n}`)));
    writeFileSync(join(directory, 'cookies'), `${cookies.join('\n')}\n`);
    writeFileSync(join(directory, 'staging.yaml'), `url: ${world.url}\nclientId: android\ncookiesFile: cookies\n`);
    const drill = run('--no-faults', '--config', join(directory, 'staging.yaml'), '--seconds', '8', '--out', directory);
    const { status, stdout } = await drill;
    expect(stdout).toMatch(/Passed, seed \d+: nobody of \d+ requests was locked out/);
    expect(status).toBe(0);
    const report = JSON.parse(readFileSync(join(directory, 'drill.json'), 'utf8'));
    expect(report).toMatchObject({ passed: true, clients: 3, steps: [expect.objectContaining({ title: 'load', lockouts: 0 })] });
    expect(world.log.audits('exchange.granted').length).toBeGreaterThan(0);
  }, 60_000);

  it('says what is wrong with its file or its options, and ends with 2', async () => {
    writeFileSync(join(directory, 'wrong.yaml'), 'url: ftp://x\nclientId: ""\n');
    for (const [args, told] of [
      [['--no-faults', '--config', join(directory, 'wrong.yaml')], /wrong\.yaml: url: .*; clientId: .*; cookiesFile: /],
      [['--no-faults', '--config', join(directory, 'none.yaml')], /none\.yaml: cannot be read/],
      [['--no-faults'], /--no-faults --config FILE/],
      [['--config', join(directory, 'wrong.yaml')], /--no-faults --config FILE/],
    ] as const) {
      const { status, stderr } = await run(...args);
      expect([status, stderr]).toEqual([2, expect.stringMatching(told)]);
      expect(stderr).not.toMatch(/at .*\.ts:\d+/);
    }
  }, 60_000);
});

it('broken off, the drill leaves its report and the logs of the bridges, says where, and no process', async () => {
  const out = mkdtempSync(join(tmpdir(), 'crossfade-drill-out-'));
  const child = spawn(DRILL, ['--short', '--keep', '--out', out], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, CROSSFADE_BUILT: '1' },
    detached: true,
  });
  let said = '';
  let interrupted = false;
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (interrupted || !said.includes('the console, while it runs: http://')) return;
      interrupted = true;
      // Ctrl-C goes to all processes of the terminal.
      process.kill(-(child.pid ?? 0), 'SIGINT');
    });
  const [status]: (number | null)[] = await once(child, 'close');
  try {
    expect([status, said]).toEqual([1, expect.stringContaining('Broken off: that proves nothing.')]);
    expect(readdirSync(out).sort()).toEqual(['bridge-a.log', 'bridge-b.log', 'bridge-c.log', 'drill.html', 'drill.json']);
    expect(said).toContain(join(out, 'bridge-a.log'));
    expect(readFileSync(join(out, 'bridge-a.log'), 'utf8')).toContain('crossfade is listening');
    // Nobody of the group is left.
    expect(() => process.kill(-(child.pid ?? 0), 0)).toThrow('ESRCH');
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}, 90_000);

/** A product that breaks a law: what no real one should be, and the drill must notice. */
async function visitProduct(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
  {
    create = createCookieApp,
    visits = 3,
    isEnough = (asked) => asked >= visits,
    ...options
  }: Partial<VisitorOptions> & {
    visits?: number;
    isEnough?: (asked: number) => boolean;
  } = {},
): Promise<Ledger> {
  let asked = 0;
  let enough: () => void = () => undefined;
  const done = new Promise<void>((resolve) => {
    enough = resolve;
  });
  const server = createServer((request, response) => {
    answer(request, response);
    asked += 1;
    if (isEnough(asked)) enough();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const ledger = new Ledger();
  ledger.begin('a product', false);
  const visitor = createVisitor({
    name: 'person-1',
    subject: 'u-person-1',
    url: urlOf(server),
    version: '1.0',
    create,
    thinkMs: 5,
    logoutRate: () => 0,
    legacyMayLogOut: () => false,
    legacy: {
      login: async () => ({ cookie: 'koa.sess=a; koa.sess.sig=b', endsAt: Date.now() + 3_600_000 }),
      logout: async () => undefined,
      hasRecord: async () => true,
    },
    calm: async () => undefined,
    accessSeconds: 0,
    random: createRandom(1),
    ledger,
    ...options,
  });
  await done;
  visitor.stop();
  await visitor.done;
  await closeServer(server);
  return ledger;
}

const say = (response: ServerResponse, status: number, body: object, headers: Record<string, string> = {}) =>
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
const asPerson = { subject: 'u-person-1', via: 'session' };

describe('what the drill calls wrong', () => {
  it('nothing of a product that answers everybody as who they are', async () => {
    const ledger = await visitProduct((_, response) => say(response, 200, asPerson));
    expect(totalOf(ledger.steps)).toMatchObject({ lockouts: 0, wrongPrincipals: 0, staleLogins: 0, serverErrors: 0 });
  });

  it('401 to the cookie of a session that is there: a lockout', async () => {
    const ledger = await visitProduct((_, response) => say(response, 401, {}));
    expect(totalOf(ledger.steps).lockouts).toBeGreaterThan(0);
  });

  it('not 401 to a session whose record is gone, to one that has run out, or where it must be exchanged first', async () => {
    const legacy = {
      login: async () => ({ cookie: 'koa.sess=a', endsAt: Date.now() + 3_600_000 }),
      logout: async () => undefined,
      hasRecord: async () => false,
    };
    const gone = await visitProduct((_, response) => say(response, 401, {}), { legacy });
    const over = { ...legacy, login: async () => ({ cookie: 'koa.sess=a', endsAt: Date.now() }), hasRecord: async () => true };
    const runOut = await visitProduct((_, response) => say(response, 401, {}), { legacy: over });
    for (const { steps } of [gone, runOut]) expect(totalOf(steps).lockouts).toBe(0);
  });

  it('401 to a token that is good for another while: a lockout, whether or not the app makes up for it', async () => {
    const token = await new SignJWT({ exp: Math.floor(Date.now() / 1000) + 600 }).setProtectedHeader({ alg: 'HS256' }).sign(new Uint8Array(32));
    const ledger = await visitProduct(
      (request, response) => {
        if (request.url === '/auth/token') say(response, 200, { access_token: token, refresh_token: 'r', expires_in: 600 });
        else if (request.headers.authorization) say(response, 401, {}, { 'www-authenticate': 'Bearer error="invalid_token"' });
        else say(response, 200, asPerson, { 'auth-migration': 'stage=jwt-preferred, exchange="/auth/token"' });
      },
      { create: createLibraryApp, visits: 12 },
    );
    expect(totalOf(ledger.steps)).toMatchObject({ lockouts: expect.any(Number), wrongPrincipals: 0 });
    expect(totalOf(ledger.steps).lockouts).toBeGreaterThan(0);
  });

  it('not 503 to a refresh: an app with an OAuth library waits, and does not fall back to the cookie of a session that is lost', async () => {
    const token = await new SignJWT({ exp: Math.floor(Date.now() / 1000) + 600 }).setProtectedHeader({ alg: 'HS256' }).sign(new Uint8Array(32));
    const given = {
      access_token: token,
      refresh_token: 'r',
      token_type: 'Bearer',
      issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    };
    let refreshes = 0;
    const ledger = await visitProduct(
      async (request, response) => {
        if (request.url !== '/auth/token') return request.headers.authorization ? say(response, 200, asPerson) : say(response, 401, {});
        const form = new URLSearchParams((await request.toArray()).join(''));
        if (form.get('grant_type') !== 'refresh_token') return say(response, 200, { ...given, expires_in: 1 });
        refreshes += 1;
        return refreshes === 1 ? say(response, 503, { error: 'temporarily_unavailable' }) : say(response, 200, { ...given, expires_in: 600 });
      },
      { create: createOauthApp, isEnough: () => refreshes === 2 },
    );
    expect(refreshes).toBe(2);
    expect(totalOf(ledger.steps)).toMatchObject({ lockouts: 0, serverErrors: 1 });
  });

  it('an answer as nobody or as somebody else: a wrong principal', async () => {
    for (const subject of ['', 'u-person-2']) {
      const ledger = await visitProduct((_, response) => say(response, 200, { subject }));
      expect(totalOf(ledger.steps).wrongPrincipals).toBeGreaterThan(0);
    }
  });

  it('a cookie that is good after a logout: a stale login', async () => {
    const ledger = await visitProduct(
      (request, response) => (request.url === '/auth/logout' ? response.writeHead(204).end() : say(response, 200, asPerson)),
      {
        logoutRate: () => 1,
      },
    );
    expect(totalOf(ledger.steps).staleLogins).toBeGreaterThan(0);
  });

  it('503 is told, with the time until it was over, and is no lockout', async () => {
    let asked = 0;
    const ledger = await visitProduct((_, response) => {
      asked += 1;
      if (asked === 1) say(response, 503, {}, { 'retry-after': '1' });
      else say(response, 200, asPerson);
    });
    expect(totalOf(ledger.steps)).toMatchObject({ lockouts: 0, serverErrors: 1 });
    expect(totalOf(ledger.steps).worstRecoveryMs).toBeGreaterThan(0);
  });
});

describe('the report', () => {
  it('is one file that loads nothing, names what went wrong, and reads none of it as HTML', () => {
    const ledger = new Ledger();
    ledger.begin('a <fault>', true);
    ledger.answered(200, 'jwt');
    ledger.violated('lockouts', 'person-1: <script>');
    const report = {
      seed: 7,
      clients: 1,
      machine: 'here',
      seconds: 1,
      passed: false,
      steps: ledger.steps,
      perSecond: ledger.seconds,
      violations: ledger.notes,
    };
    const html = toHtml(report);
    expect(html).not.toMatch(/<script|src=|href=|url\(/);
    expect(html).toContain('a &lt;fault&gt;');
    expect(verdictOf(report)).toContain('FAILED, seed 7: 1 lockouts');
  });

  it('a seed gives the same numbers each time, another seed others', () => {
    const drawn = (seed: number) => {
      const random = createRandom(seed);
      return Array.from({ length: 5 }, () => random.fork().next());
    };
    expect(drawn(1)).toEqual(drawn(1));
    expect(drawn(1)).not.toEqual(drawn(2));
    expect(new Set(drawn(1)).size).toBe(5);
  });
});
