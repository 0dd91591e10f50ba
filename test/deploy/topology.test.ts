import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { cookieHeader } from '../../scripts/lib/legacy-app.js';
import { startLoad } from '../support/load.js';
import { readCompose, startTopology, type Topology } from '../support/topology.js';
import { remember, rememberCookie } from '../support/transcript.js';

const SERVICES = ['redis', 'bridge-1', 'bridge-2', 'legacy', 'nginx', 'prometheus'];

let topology: Topology;
beforeAll(async () => {
  topology = await startTopology({
    services: SERVICES,
    config: '\nshutdownSeconds: 2\nlimits: { exchangePerSessionPerMinute: 1000000, failuresPerAddressPerMinute: 1000000 }\n',
  });
  remember(readFileSync(topology.path('/state/fleet-secret'), 'utf8').trim(), readFileSync(topology.path('/state/session-secrets'), 'utf8').trim());
}, 180_000);
afterAll(async () => await topology.stop());

async function login(name: string): Promise<string> {
  const response = await fetch(`${topology.url}/login`, { method: 'POST', body: new URLSearchParams({ name }), redirect: 'manual' });
  const cookie = cookieHeader(response);
  rememberCookie(cookie);
  return cookie;
}

const answer = z.object({ status: z.string(), data: z.unknown() });
async function prometheus<T>(path: string, schema: z.ZodType<T>): Promise<T> {
  return schema.parse(answer.parse(await (await fetch(`${topology.at('prometheus:9090')}/api/v1/${path}`)).json()).data);
}

describe('docker-compose.yml, its services as processes', () => {
  it('a login at the legacy app opens the API through nginx; its session is exchanged; a logout there ends the token', async () => {
    const cookie = await login('alice');
    expect(await (await fetch(topology.url, { headers: { cookie } })).text()).toBe('hello, u-alice');
    expect((await fetch(`${topology.url}/api/me`)).status).toBe(401);
    expect(await (await fetch(`${topology.url}/api/me`, { headers: { cookie } })).json()).toEqual({
      subject: 'u-alice',
      via: 'session',
      ownToken: false,
    });
    const exchanged = await fetch(`${topology.url}/auth/token`, {
      method: 'POST',
      headers: { cookie, origin: topology.url },
      body: new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange', client_id: 'web' }),
    });
    const { access_token: token } = z.object({ access_token: z.string() }).parse(await exchanged.json());
    remember(token);
    const headers = { authorization: `Bearer ${token}` };
    expect(await (await fetch(`${topology.url}/api/me`, { headers })).json()).toMatchObject({ subject: 'u-alice', via: 'jwt' });
    expect(await (await fetch(`${topology.url}/orders/1`, { headers })).json()).toEqual({ subject: 'u-alice', via: 'jwt', ownToken: true });
    await fetch(`${topology.url}/logout`, { method: 'POST', headers: { cookie } });
    await expect.poll(async () => (await fetch(`${topology.url}/api/me`, { headers })).status).toBe(401);
  });

  it('the health check of Redis fails where the user is refused, and its own user may do nothing but ping', () => {
    const [, program = '', ...args] = readCompose().services['redis']?.healthcheck?.test ?? [];
    const port = new URL(topology.at('redis:6379')).port;
    const run = (...changed: string[]) => spawnSync(program, ['-p', port, ...changed], { encoding: 'utf8' });
    expect(run(...args)).toMatchObject({ status: 0, stdout: 'PONG\n' });
    expect(run(...args.filter((word) => !/^--(user|pass)$|^(health|none)$/.test(word))).status).not.toBe(0);
    expect(run(...args.map((word) => (word === 'health' ? 'bridge' : word))).status).not.toBe(0);
    expect(run(...args.slice(0, -1), 'dbsize')).toMatchObject({ status: 1, stderr: expect.stringContaining('NOPERM') });
  });

  it('the commands of docs/deployment.md answer as the page says', async () => {
    const page = readFileSync(new URL('../../docs/deployment.md', import.meta.url), 'utf8');
    const [, block = ''] =
      [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, text]) => [text, text] as const).find(([text]) => text?.includes('curl')) ?? [];
    const commands = block
      .replaceAll(/\\\n\s*/g, '')
      .split('\n')
      .flatMap((line) => (line.startsWith('curl ') ? [line.replace(/ +#.*$/, '').replaceAll('http://localhost:8080', topology.url)] : []));
    const jar = mkdtempSync(join(tmpdir(), 'crossfade-jar-'));
    const run = (command = '') =>
      execFileSync('sh', ['-c', command.replace('curl ', 'curl -sS ')], { cwd: jar, stdio: ['ignore', 'pipe', 'pipe'] }).toString();
    const [login, me, nobody, exchange] = commands;
    run(login);
    for (const line of readFileSync(join(jar, 'jar'), 'utf8').split('\n')) remember(...line.split('\t').slice(6));
    expect(JSON.parse(run(me))).toMatchObject({ subject: 'u-alice' });
    expect(run(nobody)).toMatch(/^HTTP\/1.1 401 /);
    const { access_token: token } = z.object({ access_token: z.string() }).parse(JSON.parse(run(exchange)));
    remember(token);
    expect(commands).toHaveLength(4);
    rmSync(jar, { recursive: true, force: true });
  });

  it('Prometheus reads both bridges, and understands every alert rule; none fires', async () => {
    const targets = z.object({ activeTargets: z.array(z.object({ health: z.string() })) });
    await expect
      .poll(async () => (await prometheus('targets', targets)).activeTargets.map(({ health }) => health), { timeout: 30_000 })
      .toEqual(['up', 'up']);
    const rules = z.object({ groups: z.array(z.object({ rules: z.array(z.object({ name: z.string(), health: z.string(), state: z.string() })) })) });
    const all = async () => (await prometheus('rules', rules)).groups.flatMap((group) => group.rules);
    await expect.poll(async () => (await all()).every(({ health }) => health === 'ok'), { timeout: 30_000 }).toBe(true);
    expect((await all()).length).toBeGreaterThan(15);
    expect((await all()).filter(({ state }) => state === 'firing')).toEqual([]);
  });

  it('init makes what nobody else may know, once: a second time changes nothing', async () => {
    const files = () =>
      Object.fromEntries(
        readdirSync(topology.path('/state'), { recursive: true, encoding: 'utf8' })
          .map((name) => topology.path(`/state/${name}`))
          .filter((file) => statSync(file).isFile())
          .map((file) => [file, [statSync(file).mode.toString(8), readFileSync(file, 'utf8')]]),
      );
    const before = files();
    expect(
      Object.keys(before)
        .map((file) => file.slice(topology.path('/state/').length))
        .sort(),
    ).toEqual([
      '.gitignore',
      'admin-token',
      'fleet-secret',
      'keys/first.pem',
      'redis-bridge',
      'redis-legacy',
      'redis-records',
      'session-secrets',
      'users.acl',
    ]);
    for (const [file, [mode, text]] of Object.entries(before)) {
      expect(mode, file).toBe(file.endsWith('users.acl') ? '100644' : '100600');
      if (file.endsWith('users.acl')) expect(text).not.toMatch(/>|PASSWORD/);
    }
    await topology.init();
    expect(files()).toEqual(before);
  });

  it('a bridge that hangs costs some a few seconds, and nobody the answer', async () => {
    const cookie = await login('bob');
    topology.signal('bridge-1', 'SIGSTOP');
    try {
      const ask = async () => (await fetch(`${topology.url}/api/me`, { headers: { cookie } })).status;
      const jwks = async () => (await fetch(`${topology.url}/.well-known/jwks.json`)).status;
      const exchange = async () => {
        const form = { grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange', client_id: 'android', subject_token: cookie };
        const body = new URLSearchParams({ ...form, subject_token_type: 'urn:crossfade:params:oauth:token-type:session' });
        return (await fetch(`${topology.url}/auth/token`, { method: 'POST', body })).status;
      };
      expect(await Promise.all([ask, ask, ask, jwks, jwks, exchange, exchange].map(async (one) => await one()))).toEqual(Array(7).fill(200));
    } finally {
      topology.signal('bridge-1', 'SIGCONT');
    }
  }, 40_000);

  it('traffic goes on while the two bridges are restarted one after the other, 10 times: no request of a valid credential fails', async () => {
    const cookies = await Promise.all(Array.from({ length: 12 }, async (_, n) => await login(`person-${n}`)));
    const load = await startLoad([topology.url], cookies, '/api/me');
    for (let round = 0; round < 10; round++) {
      for (const bridge of ['bridge-1', 'bridge-2']) {
        await load.served(30);
        await topology.restart(bridge);
      }
    }
    await load.served(100);
    await load.stop();
    const counts = load.take();
    process.stdout.write(`rolling restarts through nginx: ${JSON.stringify(counts)}\n`);
    expect(counts).toMatchObject({ unauthorized: 0, wrong: [], unavailable: {}, cut: 0 });
    expect(counts.requests).toBeGreaterThan(1000);
    for (const what of ['session', 'bearer', 'refresh', 'exchange'] as const) expect(counts.good[what]).toBeGreaterThan(0);
  }, 180_000);
});
