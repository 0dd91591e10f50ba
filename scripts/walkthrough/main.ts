import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import type Koa from 'koa';
import { init } from '../../src/cli/init.js';
import { freePort } from '../lib/free-port.js';
import { legacySessions } from '../lib/legacy-app.js';
import { provideRedis } from '../lib/private-redis.js';
import { rawRequest } from '../lib/raw-request.js';
import { startApi } from './api.js';
import { openBrowser, says, textOf } from './browser.js';
import { walkThroughLife } from './life.js';
import { eventually, Steps } from './steps.js';

const serve = process.argv.includes('--serve');
const steps = new Steps();
const started = Date.now();
const server = await provideRedis().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : 'Redis could not be started.'}\n`);
  process.exit(1);
});
const directory = mkdtempSync(join(tmpdir(), 'crossfade-demo-'));
/** Ctrl-C at any moment ends the walk, and everything is put away. */
const interrupted = new Promise<void>((resolve) => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
});
const redis = new Redis(server.url);
const sessionKeys: string[] = [];
const port = await freePort();
const origin = `http://127.0.0.1:${port}`;
const keyPrefix = `crossfade-demo-${process.pid}:`;
const browser = openBrowser(origin);
const { ask, exchange, login } = browser;
const clients = Array.from({ length: 1000 }, (_, n) => `person-${n}`);

const FLAG = { key: 'auth-migration-stage', on: true, variations: ['session-only', 'dual', 'jwt-only'], offVariation: 0, salt: 'demo', rules: [] };
let version = 1;

/** Replaces the flags file as a deployment would: by rename. */
function writeFlags(fallthrough: object, { killSwitch = false, rules = [] as object[] } = {}): void {
  version += 1;
  const kill = {
    key: 'auth-migration-kill-switch',
    version,
    on: killSwitch,
    variations: [false, true],
    offVariation: 0,
    fallthrough: { variation: 1 },
    salt: 'demo',
    rules: [],
  };
  writeFileSync(
    join(directory, 'flags.json.new'),
    JSON.stringify({ flags: { [FLAG.key]: { ...FLAG, version, fallthrough, rules }, [kill.key]: kill } }),
  );
  renameSync(join(directory, 'flags.json.new'), join(directory, 'flags.json'));
}

/** Writes the flags and waits until they are in force. */
async function moveFlags(...flags: Parameters<typeof writeFlags>): Promise<void> {
  const before = api.flagChanges();
  writeFlags(...flags);
  await eventually(() => (api.flagChanges() > before ? true : undefined));
}

/** A share of users at `dual`. session-only stays first: who was in stays in when the share grows. */
function share(percent: number): object {
  return {
    rollout: {
      contextKind: 'user',
      variations: [
        { variation: 0, weight: (100 - percent) * 1000 },
        { variation: 1, weight: percent * 1000 },
      ],
    },
  };
}

function sessions(app: Koa): Koa.Middleware {
  app.keys = [cookieSecret];
  return legacySessions(app, redis, sessionKeys, { session: { secure: false } });
}

/** Which of the thousand people may exchange right now: asked of the endpoint itself, with a session each. */
async function peopleIn(cookies: readonly string[]): Promise<ReadonlySet<number>> {
  const inside = new Set<number>();
  for (let at = 0; at < cookies.length; at += 50) {
    const answers = await Promise.all(cookies.slice(at, at + 50).map(exchange));
    answers.forEach(({ status }, n) => {
      if (status === 200) inside.add(at + n);
    });
  }
  return inside;
}

const cookieSecret = randomBytes(24).toString('base64url');
const configPath = join(directory, 'crossfade.yaml');

/** What `crossfade init` writes, with the legacy app's secret and a key prefix of this run's own. */
function writeConfig(): void {
  init(directory, { issuer: origin, redis: server.url, format: 'koa-session', subject: 'user.id' });
  writeFileSync(join(directory, 'session-secrets'), `${cookieSecret}\n`);
  const text = readFileSync(configPath, 'utf8')
    .replace(/ {6}# (tenant|roles|scope): /g, '      $1: ')
    .replace(/^redis:$/m, `redis:\n  keyPrefix: "${keyPrefix}"`);
  writeFileSync(configPath, text);
}

process.stdout.write(`Crossfade: a migration in small. Real Redis at ${server.url}, a real koa-session app, real HTTP.\n`);
writeConfig();
writeFlags({ variation: 0 });
let api = await startApi({ configPath, port, sessions });
try {
  const ended = await Promise.race([walk().then(() => true), interrupted.then(() => false)]);
  const { count, failures } = steps;
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  if (!ended) process.stdout.write(`\nInterrupted after ${count} steps.\n`);
  else if (failures > 0) process.stdout.write(`\n${failures} of ${count} steps went otherwise than expected.\n`);
  else process.stdout.write(`\n${count} steps, all as expected, in ${seconds} s.\n`);
  process.exitCode = ended ? (failures === 0 ? 0 : 1) : 130;
  if (serve && ended) await keepServing();
} finally {
  await api.close();
  const left = await redis.keys(`${keyPrefix}*`);
  await Promise.all([...sessionKeys, ...left].map((key) => redis.del(key)));
  redis.disconnect();
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
}
// A walk that was interrupted may still wait for an answer that nobody gives any more.
process.exit();

async function walk(): Promise<void> {
  steps.chapter('Both credentials, nobody moved yet (session-only)');
  const cookie = await login('alice');
  steps.step('POST /login as alice, on the legacy app', cookie ? 'a session cookie' : 'no cookie', cookie !== '');
  const first = await ask('/orders', { cookie });
  steps.step(
    'GET /orders with the cookie',
    `${first.status} for ${first.body['for']} via ${first.body['via']}`,
    first.status === 200 && first.body['via'] === 'session',
  );
  const nobody = await ask('/orders');
  steps.step('GET /orders with nothing', says(nobody), nobody.status === 401);
  const stale = await ask('/login', { cookie: 'koa.sess=00000000-0000-4000-8000-000000000000; koa.sess.sig=stale' });
  steps.step('GET /login with a stale cookie', `${stale.status}, the login page`, stale.status === 200 && stale.text.includes('<form'));
  const early = await exchange(cookie);
  steps.step('POST /auth/token with the cookie', says(early), early.status === 400 && early.body['error'] === 'unauthorized_client');

  steps.chapter('The flags file moves a cohort: tenant acme to dual');
  writeFlags(
    { variation: 0 },
    { rules: [{ id: 'acme', variation: 1, clauses: [{ contextKind: 'tenant', attribute: 'key', op: 'in', values: ['acme'], negate: false }] }] },
  );
  const moved = await eventually(async () => ((await exchange(cookie)).status === 200 ? true : undefined));
  steps.step('POST /auth/token as alice of acme', moved ? '200, a token' : 'still refused', moved === true);
  const carol = await exchange(await login('carol'));
  steps.step('POST /auth/token as carol of globex', says(carol), carol.status === 400);

  steps.chapter('Then by percentage: 1,000 people, each with a session');
  const cookies = await Promise.all(clients.map(login));
  let before: ReadonlySet<number> = new Set();
  for (const percent of [1, 10, 50, 100]) {
    await moveFlags(share(percent));
    const inside = await peopleIn(cookies);
    const fellOut = [...before].filter((n) => !inside.has(n)).length;
    const near = Math.abs(inside.size - percent * 10) <= 60;
    steps.step(`${percent} % at dual`, `${inside.size} of 1,000 are in; ${fellOut} who were in fell out`, near && fellOut === 0);
    before = inside;
  }

  steps.chapter('The token');
  const granted = await exchange(cookie);
  const token = textOf(granted.body['access_token']);
  steps.step(
    'POST /auth/token with the cookie',
    `${granted.status}, a token for ${granted.body['expires_in']} s`,
    granted.status === 200 && token !== '',
  );
  await stillOpen(cookie, token);

  steps.chapter('A bad key is offered beside the good one');
  writeFileSync(join(directory, 'keys', 'second.pem'), '-----BEGIN PRIVATE KEY-----\nhalf of a k', { mode: 0o600 });
  const degraded = await eventually(() => (api.bridge.signing().state === 'degraded' ? api.bridge.signing() : undefined));
  steps.step('keys/second.pem, half-written', `signing is ${degraded?.state ?? 'unchanged'}: ${degraded?.problems[0] ?? ''}`, degraded !== undefined);
  await stillOpen(cookie, token);
  const again = await exchange(cookie);
  steps.step('POST /auth/token with the cookie', `${again.status}, the good key still signs`, again.status === 200);

  steps.chapter('Restart with every key broken');
  const goodKey = readFileSync(join(directory, 'keys', 'first.pem'), 'utf8');
  for (const name of readdirSync(join(directory, 'keys'))) writeFileSync(join(directory, 'keys', name), 'not a key');
  await api.close();
  api = await startApi({ configPath, port, sessions });
  const broken = await exchange(cookie);
  steps.step('POST /auth/token with the cookie', `${says(broken)}, Retry-After: ${broken.headers.get('retry-after')}`, broken.status === 503);
  await stillOpen(cookie, token);
  const shown = (await ask('/metrics')).text.split('\n').find((line) => line === 'crossfade_signing_health{state="broken"} 1');
  steps.step('GET /metrics', shown ?? 'says nothing of it', shown !== undefined);

  steps.chapter('The key is repaired; no restart');
  writeFileSync(join(directory, 'keys', 'first.pem'), goodKey, { mode: 0o600 });
  rmSync(join(directory, 'keys', 'second.pem'));
  const repaired = await eventually(async () => {
    const answer = await exchange(cookie);
    return answer.status === 200 ? answer : undefined;
  });
  steps.step('POST /auth/token with the cookie', repaired ? '200, a token' : 'still 503', repaired !== undefined);

  steps.chapter('Kill switch');
  writeFlags(share(100), { killSwitch: true });
  const killed = await eventually(async () => {
    const answer = await exchange(cookie);
    return answer.status === 400 ? answer : undefined;
  });
  steps.step('POST /auth/token with the cookie', killed ? says(killed) : 'still open', killed?.body['reason'] === 'kill-switch');
  await stillOpen(cookie, token);

  steps.chapter('jwt-only');
  writeFlags({ variation: 2 });
  const refused = await eventually(async () => {
    const answer = await ask('/orders', { cookie });
    return answer.status === 401 ? answer : undefined;
  });
  steps.step(
    'GET /orders with the cookie',
    refused ? `${says(refused)} → ${refused.body['exchange_uri']}` : 'still accepted',
    refused?.body['exchange_uri'] === `${origin}/auth/token`,
  );
  const page = await rawRequest(`${origin}/`, { headers: { cookie, 'sec-fetch-mode': 'navigate' } });
  steps.step(
    'GET / with the cookie, as a page',
    `${page.status}, ${page.text.includes('logged in') ? 'logged in' : 'not logged in'}`,
    page.status === 200 && page.text.includes('logged in'),
  );
  const bearer = await ask('/orders', { bearer: token });
  steps.step('GET /orders with the token', `${bearer.status} via ${bearer.body['via']}`, bearer.status === 200);

  await moveFlags(share(100));
  await walkThroughLife(browser, steps, async () => await startApi({ configPath, sessions }));
}

async function stillOpen(cookie: string, token: string): Promise<void> {
  const byToken = await ask('/orders', { bearer: token });
  steps.step(
    'GET /orders with the token',
    `${byToken.status} for ${byToken.body['for']} via ${byToken.body['via']}`,
    byToken.status === 200 && byToken.body['via'] === 'jwt',
  );
  const byCookie = await ask('/orders', { cookie });
  steps.step(
    'GET /orders with the cookie',
    `${byCookie.status} for ${byCookie.body['for']} via ${byCookie.body['via']}`,
    byCookie.status === 200 && byCookie.body['via'] === 'session',
  );
}

async function keepServing(): Promise<void> {
  writeFlags(share(100));
  process.stdout.write(`
Everything stays up until Ctrl-C, at dual for everybody. To try:

  ${origin}/login                      the legacy app's login form (alice, bob, carol)
  ${origin}/metrics
  ${directory}/flags.json              edit it: it is watched

  curl -si -c jar -d name=alice ${origin}/login
  curl -s  -b jar ${origin}/orders
  curl -s  -b jar -c jar -H 'Origin: ${origin}' -d client_id=web -d grant_type=urn:ietf:params:oauth:grant-type:token-exchange ${origin}/auth/token
  curl -s  -H 'Authorization: Bearer …' ${origin}/orders
  curl -si -b jar -c jar -H 'Origin: ${origin}' -d client_id=web -d grant_type=refresh_token ${origin}/auth/token
  curl -si -b jar -c jar -H 'Origin: ${origin}' -X POST ${origin}/auth/logout
  curl -si -b jar ${origin}/auth/verify
  curl -s  ${origin}/.well-known/jwks.json
`);
  await interrupted;
}
