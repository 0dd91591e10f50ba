import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeServer, urlOf } from '../../scripts/lib/legacy-app.js';
import { rawRequest } from '../../scripts/lib/raw-request.js';
import type { ConfigInput } from '../../src/config/config.js';
import type { ForeignApp } from '../apps/app.js';
import { startPythonApp } from '../apps/python-app.js';
import { expectError } from '../support/expect-error.js';
import { postExchange } from '../support/tokens.js';
import { remember, rememberToken } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, type World } from '../support/world.js';

const open = useWorlds();

function asking(url: string, cookie: string, more: Partial<NonNullable<ConfigInput['sessions'][number]['http']>> = {}) {
  return (config: ConfigInput): ConfigInput => ({
    ...config,
    sessions: [
      {
        name: 'web',
        format: 'http',
        cookie,
        http: { url, ...more },
        principal: { subject: 'id', roles: 'roles', authTime: 'logged_in_at' },
      },
    ],
  });
}

describe.each([
  ['django', 'sessionid', '1', true],
  ['flask', 'session', 'u-alice', false],
] as const)('the whoami of docs/formats.md in a real %s app', (framework, cookieName, subject, isServerSide) => {
  it('opens /auth/verify and is exchanged for an access token, and nothing more; logout and login are followed', async () => {
    const files = await createWorld();
    const app: ForeignApp = await startPythonApp(framework, files.directory);
    try {
      const world = await open({ configure: asking(`${app.url}/whoami`, cookieName) });
      const cookie = await app.login('alice');
      const verified = await world.call('/auth/verify', { cookie });
      expect({ status: verified.status, subject: verified.headers.get('x-auth-subject'), roles: verified.headers.get('x-auth-roles') }).toEqual({
        status: 200,
        subject,
        roles: 'admin billing',
      });

      const exchanged = await postExchange(world, cookie);
      const tokens = await tokensOf(exchanged);
      expect(Object.keys(tokens).sort()).toEqual(['access_token', 'expires_in', 'issued_token_type', 'token_type']);
      expect((await world.call('/me', { bearer: tokens.access_token })).status).toBe(200);
      // As a browser with a refresh cookie: there is none to set.
      expect((await world.exchange(cookie)).headers.getSetCookie()).toEqual([]);

      await app.logout(cookie);
      if (isServerSide) {
        expect((await world.call('/auth/verify', { cookie })).status).toBe(401);
        expect(await (await world.call('/', { cookie })).json()).toMatchObject({ rejection: { reason: 'unknown-session' } });
        await expectError(await postExchange(world, cookie), 400, 'invalid_request');
      }
      const again = await app.login('alice', cookie);
      expect((await world.call('/auth/verify', { cookie: again })).status).toBe(200);

      const second = await tokensOf(await postExchange(world, again));
      expect((await world.post('/auth/logout', {}, { bearer: second.access_token })).status).toBe(204);
      expect((await world.call('/me', { bearer: second.access_token })).status).toBe(401);
      // The app was not logged out of, but here this login has ended.
      expect((await world.call('/auth/verify', { cookie: again })).status).toBe(401);
    } finally {
      await app.close();
      await files.close();
    }
  }, 120_000);
});

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

describe('an app that answers otherwise', () => {
  const COOKIE = 'sid=the-cookie-of-alice-4f1d';
  const alice: Handler = (_, response) => response.end(`{"id":"u-alice","logged_in_at":${Math.floor(Date.now() / 1000)}}`);
  let world: World;
  let answer: Handler;
  let asked: IncomingMessage[];
  let stop: () => Promise<void>;
  beforeEach(async () => {
    remember('the-cookie-of-alice-4f1d');
    asked = [];
    answer = alice;
    const server = createServer((request, response) => {
      asked.push(request);
      answer(request, response);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    stop = async () => await closeServer(server);
    world = await open({ configure: asking(`${urlOf(server)}/whoami?as=bridge`, 'sid', { timeoutMs: 300 }) });
  });
  afterEach(async () => await stop());

  const verify = async (cookie = COOKIE) => await world.call('/auth/verify', { cookie });

  it('is asked at the one URL, with the one cookie and nothing else of the request', async () => {
    const response = await world.call('/auth/verify', {
      method: 'POST',
      cookie: `other=secret; ${COOKIE}; sid2=x`,
      headers: { 'x-forwarded-for': '198.51.100.7', 'user-agent': 'a browser', 'x-real': 'x' },
    });
    expect(response.status).toBe(200);
    expect(asked).toHaveLength(1);
    const [{ method, url, headers } = { method: '', url: '', headers: {} }] = asked;
    expect({ method, url, cookie: headers.cookie, agent: headers['user-agent'] }).toEqual({
      method: 'GET',
      url: '/whoami?as=bridge',
      cookie: COOKIE,
      agent: 'crossfade',
    });
    expect(Object.keys(headers)).not.toEqual(expect.arrayContaining(['x-forwarded-for']));
    expect(Object.keys(headers)).not.toEqual(expect.arrayContaining(['x-real']));
  });

  it('is asked for every request: nothing is kept', async () => {
    for (let turn = 0; turn < 3; turn++) expect((await verify()).status).toBe(200);
    expect(asked).toHaveLength(3);
    answer = (_, response) => void response.writeHead(401).end();
    expect((await verify()).status).toBe(401);
    expect(await world.metrics()).toContain('crossfade_whoami_answers_total{entry="web",outcome="answered"} 3');
  });

  it.each<[string, Handler]>([
    ['401', (_, response) => response.writeHead(401).end()],
    ['403', (_, response) => response.writeHead(403).end()],
    ['204', (_, response) => response.writeHead(204).end()],
    ['null', (_, response) => response.end('null')],
    ['an object without a subject', (_, response) => response.end('{}')],
  ])('%s: nobody, 401, and the handler is not reached', async (_what, nobody) => {
    answer = nobody;
    expect((await verify()).status).toBe(401);
    const { result, handlerReached } = await world.watching(() => world.call('/me', { cookie: COOKIE }));
    await expectError(result, 401, 'missing_credential');
    expect(handlerReached).toBe(false);
    await expectError(await postExchange(world, COOKIE), 400, 'invalid_request');
  });

  it.each<[string, Handler]>([
    ['a redirect, which is not followed', (_, response) => response.writeHead(302, { location: '/elsewhere' }).end()],
    ['500', (_, response) => response.writeHead(500).end('the stack of the app')],
    ['404', (_, response) => response.writeHead(404).end()],
    ['more than 64 KiB', (_, response) => response.end(`{"id":"u-alice","x":"${'x'.repeat(65_536)}"}`)],
    ['JSON that is no object', (_, response) => response.end('["u-alice"]')],
    ['a member that would reach a prototype', (_, response) => response.end('{"id":"u-alice","__proto__":{"roles":["admin"]}}')],
    ['a page', (_, response) => response.end('<html>log in</html>')],
    ['silence', () => undefined],
    ['half an answer', (_, response) => void response.writeHead(200).write('{"id":')],
    ['a connection that breaks', (request) => request.socket.destroy()],
  ])('Law 1: %s is no answer: 503 with Retry-After, no cookie touched, and the app’s words stay inside', async (_what, none) => {
    answer = none;
    const response = await verify();
    const body = await response.text();
    expect({ status: response.status, body, cookies: response.headers.getSetCookie() }).toEqual({
      status: 503,
      body: JSON.stringify({ error: 'temporarily_unavailable', reason: 'whoami' }),
      cookies: [],
    });
    expect(Number(response.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    await expectError(await postExchange(world, COOKIE), 503, 'temporarily_unavailable');
    expect(asked.every(({ url }) => url === '/whoami?as=bridge')).toBe(true);
  });

  it('is left alone for a while once it has failed, and asked again after that; bearers do not notice', async () => {
    const tokens = await tokensOf(await postExchange(world, COOKIE));
    answer = (_, response) => response.writeHead(503).end();
    for (let turn = 0; turn < 20; turn++) expect((await verify()).status).toBe(503);
    const failed = asked.length;
    expect(failed).toBeLessThan(20);
    expect(await world.log.until((line) => String(line['msg']).includes('not asked for a while'))).toMatchObject({ entry: 'web' });
    expect((await world.call('/me', { bearer: tokens.access_token })).status).toBe(200);
    answer = alice;
    await expect.poll(async () => (await verify()).status, { timeout: 10_000 }).toBe(200);
    expect((await verify()).status).toBe(200);
  });

  it('a stranger whose cookies it answers with 500 does not take its answers from the others', async () => {
    answer = (request, response) => (request.headers.cookie === COOKIE ? alice(request, response) : response.writeHead(500).end());
    for (let turn = 0; turn < 40; turn++) expect((await verify(`sid=junk-${turn}`)).status).toBe(503);
    expect((await verify()).status).toBe(200);
  });

  it('too many at once are 503, and no reason to leave a healthy app alone', async () => {
    const { url = '' } = world.config.sessions[0]?.http ?? {};
    const patient = await open({ configure: asking(url, 'sid', { timeoutMs: 10_000 }) });
    const held: (() => void)[] = [];
    answer = (request, response) => void held.push(() => alice(request, response));
    const statuses: number[] = [];
    const many = Array.from({ length: 250 }, async (_, n) => {
      statuses.push((await patient.call('/auth/verify', { cookie: `sid=junk-${n}` })).status);
    });
    // The app holds its answers until all that is too many was refused.
    await expect.poll(() => held.length + statuses.length).toBe(250);
    expect(new Set(statuses)).toEqual(new Set([503]));
    const refused = statuses.length;
    answer = alice;
    for (const release of held) release();
    await Promise.all(many);
    expect(new Set(statuses.slice(refused))).toEqual(new Set([200]));
    expect((await patient.call('/auth/verify', { cookie: COOKIE })).status).toBe(200);
    expect(patient.log.all.some((line) => String(line['msg']).includes('not asked for a while'))).toBe(false);
  });

  it('an app that is away keeps nobody from logging out, and nobody from being ended', async () => {
    const { access_token: bearer } = await tokensOf(await postExchange(world, COOKIE));
    const other = await tokensOf(await postExchange(world, COOKIE));
    await stop();
    expect((await world.post('/auth/logout', {}, { bearer })).status).toBe(204);
    for (const token of [bearer, other.access_token]) expect((await world.call('/me', { bearer: token })).status).toBe(401);
    await expect(world.bridge.endSubject('u-alice', { why: 'test' })).resolves.toBeGreaterThanOrEqual(0);
  });

  it('a cookie is passed on as it came, whatever it looks like; of many, those that can be are asked about', async () => {
    for (const value of ['a,b', '{"id":1}', 'a\\b', 'ä', 'a b']) {
      asked = [];
      expect((await verify(`sid=${value}`)).status, value).toBe(200);
      expect(asked[0]?.headers.cookie).toBe(`sid=${value}`);
    }
    asked = [];
    expect((await rawRequest(`${world.url}/auth/verify`, { headers: { cookie: `sid=${'x'.repeat(4001)}; ${COOKIE}` } })).status).toBe(200);
    expect(asked).toHaveLength(1);
  });

  it('X11: a logout in the app while the exchange is under way leaves no token', async () => {
    answer = (request, response) => (asked.length > 1 ? response.writeHead(401).end() : alice(request, response));
    await expectError(await postExchange(world, COOKIE), 400, 'invalid_request');
    expect(asked).toHaveLength(2);
  });

  it('ends where the app says: no token lives longer', async () => {
    const until = Math.floor(Date.now() / 1000) + 100;
    answer = (_, response) => response.end(JSON.stringify({ id: 'u-alice', until }));
    const entry = world.config.sessions[0]?.http;
    const limited = await open({ configure: asking(entry?.url ?? '', 'sid', { expiresAt: 'until' }) });
    const { expires_in: life } = await tokensOf(await postExchange(limited, COOKIE));
    expect(Number(life)).toBeLessThanOrEqual(100);
    answer = (_, response) => response.end(JSON.stringify({ id: 'u-alice', until: until - 200 }));
    expect(await (await limited.call('/', { cookie: COOKIE })).json()).toMatchObject({ rejection: { reason: 'expired' } });
  });
});

/** Of an exchange that must succeed. */
async function tokensOf(response: Response): Promise<Record<string, string> & { access_token: string }> {
  const text = await response.text();
  if (response.status !== 200) throw new Error(`no tokens: ${response.status} ${text}`);
  const body: Record<string, string> & { access_token: string } = JSON.parse(text);
  rememberToken(body.access_token);
  return body;
}
