import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { cliArguments } from '../../scripts/lib/cli-process.js';
import { freePort } from '../../scripts/lib/free-port.js';
import { type LegacyApp, startLegacyApp } from '../../scripts/lib/legacy-app.js';
import { startTcpProxy, type TcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { type RunningCli, runCli, startCli } from '../support/cli.js';
import { remember, rememberCookie } from '../support/transcript.js';
import { sharedRedisUrl } from '../support/world.js';

const COOKIE_SECRET = 'the-cookie-secret-of-the-service';
let directory: string;
let legacy: LegacyApp;
let proxy: TcpProxy;
let service: RunningCli | undefined;
let keyPrefix: string;

beforeEach(async () => {
  remember(COOKIE_SECRET);
  directory = mkdtempSync(join(tmpdir(), 'crossfade-serve-'));
  proxy = await startTcpProxy(sharedRedisUrl());
  legacy = await startLegacyApp({ redisUrl: sharedRedisUrl(), secrets: [COOKIE_SECRET] });
  await runCli(['init', directory, '--redis', proxy.url]);
  writeFileSync(join(directory, 'session-secrets'), COOKIE_SECRET);
  for (const name of ['fleet-secret', 'admin-token']) remember(readFileSync(join(directory, name), 'utf8').trim());
  keyPrefix = `crossfade-serve-${directory.slice(-6)}:`;
  edit(/^redis:$/m, `redis:\n  keyPrefix: "${keyPrefix}"`);
  edit('port: 8787', 'port: 0');
  edit('port: 8788', 'port: 0');
});
afterEach(async () => {
  service?.process.kill('SIGKILL');
  await service?.ended();
  service = undefined;
  await proxy.close();
  await legacy.close([`${keyPrefix}v1:jwks`]);
  rmSync(directory, { recursive: true, force: true });
});

function edit(from: string | RegExp, to: string): void {
  const path = join(directory, 'crossfade.yaml');
  writeFileSync(path, readFileSync(path, 'utf8').replace(from, to));
}

async function start(): Promise<{ url: string; admin: string; running: RunningCli }> {
  const running = startCli(['serve', '--config', join(directory, 'crossfade.yaml')]);
  service = running;
  const { url, admin } = await running.logged('crossfade is listening');
  return { url: String(url), admin: String(admin), running };
}

async function login(): Promise<string> {
  const cookie = await legacy.login('alice');
  rememberCookie(cookie);
  return cookie;
}

describe('crossfade serve', () => {
  it('answers the public on one port and operators on the other', async () => {
    const { url, admin } = await start();
    const verify = await fetch(`${url}/auth/verify`, { headers: { cookie: await login() } });
    expect({ status: verify.status, subject: verify.headers.get('x-auth-subject') }).toEqual({ status: 200, subject: 'u-alice' });
    expect((await fetch(`${url}/elsewhere`)).status).toBe(404);
    expect((await fetch(`${url}/metrics`)).status).toBe(404);
    expect((await fetch(`${admin}/healthz`)).status).toBe(200);
    expect(await (await fetch(`${admin}/readyz`)).json()).toEqual({
      ready: true,
      accepting: true,
      redis: 'up',
      records: 'up',
      signing: 'healthy',
      events: 'read',
      flags: 'live',
    });
    expect((await fetch(`${admin}/readyz?for=issue`)).status).toBe(200);
    expect((await fetch(`${admin}/readyz`, { method: 'POST' })).status).toBe(405);
    expect((await fetch(`${admin}/`)).headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect((await fetch(`${admin}/elsewhere`)).status).toBe(401);
    const metrics = await (await fetch(`${admin}/metrics`)).text();
    expect(metrics).toContain('crossfade_requests_total{credential="session",outcome="authenticated",client="unknown"} 1');
    expect(metrics.split('\n').filter((line) => line !== '' && !line.startsWith('#') && !line.startsWith('crossfade_'))).toEqual([]);
  });

  it('is not ready while Redis is away, and is again when it is back; with a broken key it is ready, but not for issuing', async () => {
    writeFileSync(join(directory, 'keys', 'first.pem'), 'broken', { mode: 0o600 });
    const { url, admin } = await start();
    expect((await fetch(`${admin}/readyz`)).status).toBe(200);
    expect((await fetch(`${admin}/readyz?for=issue`)).status).toBe(503);
    const cookie = await login();
    await proxy.cut();
    await expect.poll(async () => (await fetch(`${admin}/readyz`)).status).toBe(503);
    expect((await fetch(`${url}/auth/verify`, { headers: { cookie } })).status).toBe(503);
    expect((await fetch(`${admin}/healthz`)).status).toBe(200);
    await proxy.restore();
    await expect.poll(async () => (await fetch(`${admin}/readyz`)).status).toBe(200);
    expect((await fetch(`${url}/auth/verify`, { headers: { cookie } })).status).toBe(200);
  });

  it('comes up without Redis', async () => {
    await proxy.cut();
    const { admin, url } = await start();
    expect((await fetch(`${admin}/readyz`)).status).toBe(503);
    expect((await fetch(`${url}/auth/verify`)).status).toBe(401);
    await proxy.restore();
    await expect.poll(async () => (await fetch(`${admin}/readyz?for=issue`)).status, { timeout: 10_000 }).toBe(200);
  });

  it('on SIGTERM is not ready at once, answers what comes and what is under way, then takes nothing new, and ends with 0', async () => {
    edit('listen: {', 'shutdownSeconds: 4\nlisten: {');
    const { url, admin, running } = await start();
    const cookie = await login();
    proxy.silence();
    const underWay = fetch(`${url}/auth/verify`, { headers: { cookie } });
    running.process.kill('SIGTERM');
    await running.logged('draining: not ready for new traffic; requests under way are answered');
    expect((await fetch(`${admin}/readyz`)).status).toBe(503);
    const late = await fetch(`${url}/.well-known/jwks.json`);
    expect({ status: late.status, connection: late.headers.get('connection') }).toEqual({ status: 200, connection: 'close' });
    const logout = await fetch(`${url}/auth/logout`, { method: 'POST', headers: { connection: 'keep-alive' } });
    expect([logout.status, logout.headers.get('connection'), logout.headers.getSetCookie().length]).toEqual([204, 'close', 3]);
    expect((await underWay).status).toBe(503);
    expect(await running.ended()).toBe(0);
    await expect(fetch(`${url}/auth/verify`)).rejects.toThrow();
  });

  it('SIGHUP while the program is being loaded ends nothing either', async () => {
    // As soon as the program listens for anything, one turn later: nothing else of it is loaded then.
    const early = `process.on('newListener', (name) => name === 'uncaughtException' && setImmediate(() => process.kill(process.pid, 'SIGHUP')))`;
    const env = { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(early)}` };
    service = startCli(['serve', '--config', join(directory, 'crossfade.yaml')], directory, env);
    await service.logged('crossfade is listening');
  });

  it('SIGHUP ends nothing: it reads files again at once, and names settings that differ on disk', async () => {
    const { url, running } = await start();
    const cookie = await login();
    const answers = Promise.all(Array.from({ length: 20 }, async () => (await fetch(`${url}/auth/verify`, { headers: { cookie } })).status));
    // A default that is written out is no difference.
    edit('listen: {', 'shutdownSeconds: 20\nlisten: {');
    running.process.kill('SIGHUP');
    expect(await running.logged('reading key files, flags and files with secrets again')).not.toHaveProperty('differs');
    expect(new Set(await answers)).toEqual(new Set([200]));
    edit('shutdownSeconds: 20', 'shutdownSeconds: 7');
    edit(/url: "redis:[^"]*"/, 'url: "redis://127.0.0.1:6"');
    running.process.kill('SIGHUP');
    expect(await running.logged('the configuration on disk differs from the one in force: restart to apply')).toMatchObject({
      differs: expect.arrayContaining(['shutdownSeconds', 'redis.url']),
    });
    expect((await fetch(`${url}/auth/verify`, { headers: { cookie } })).status).toBe(200);
    expect(running.process.exitCode).toBeNull();
  });

  it('keeps connections for longer than proxies do, and a second SIGTERM does not cut the drain', async () => {
    edit('listen: {', 'shutdownSeconds: 4\nlisten: {');
    const { url, running } = await start();
    const first = await fetch(`${url}/.well-known/jwks.json`);
    expect(first.headers.get('keep-alive')).toBe('timeout=75');
    const cookie = await login();
    proxy.silence();
    const underWay = fetch(`${url}/auth/verify`, { headers: { cookie } });
    running.process.kill('SIGTERM');
    await running.logged('draining: not ready for new traffic; requests under way are answered');
    running.process.kill('SIGTERM');
    expect((await underWay).status).toBe(503);
    expect(await running.ended()).toBe(0);
  });

  it('a config that is wrong, or a port that is taken, ends the start with a clear line and no stack', async () => {
    const port = await freePort();
    const taken = createServer().listen(port, '127.0.0.1');
    await once(taken, 'listening');
    edit('listen: { host: 127.0.0.1, port: 0 }', `listen: { host: 127.0.0.1, port: ${port} }`);
    const busy = await runCli(['serve', '--config', join(directory, 'crossfade.yaml')]);
    expect({ status: busy.status, stderr: busy.stderr }).toEqual({ status: 2, stderr: `listen: cannot listen on 127.0.0.1:${port} (EADDRINUSE)\n` });
    taken.close();
    edit('issuer: ', 'issuer: ftp://');
    const wrong = await runCli(['serve', '--config', join(directory, 'crossfade.yaml')]);
    expect({ status: wrong.status, stderr: wrong.stderr }).toEqual({
      status: 2,
      stderr: expect.stringMatching(/1 problem\n {2}issuer: must be an https URL/),
    });
    expect(wrong.stderr).not.toContain(' at ');
  });
});

describe('what surrounds crossfade serve', () => {
  /** Starts it as somebody else would, on ports that are known beforehand. */
  async function startIn(start: (args: readonly string[]) => ChildProcess): Promise<{ child: ChildProcess; url: string; admin: string }> {
    const [port, adminPort] = [await freePort(), await freePort()];
    edit('listen: { host: 127.0.0.1, port: 0 }', `shutdownSeconds: 1\nlisten: { host: 127.0.0.1, port: ${port} }`);
    edit('port: 0', `port: ${adminPort}`);
    const child = start(cliArguments(['serve', '--config', join(directory, 'crossfade.yaml')]));
    onTestFinished(() => void child.kill('SIGKILL'));
    const [url, admin] = [`http://127.0.0.1:${port}`, `http://127.0.0.1:${adminPort}`];
    await expect
      .poll(
        async () =>
          await fetch(`${admin}/readyz`).then(
            ({ status }) => status,
            () => 0,
          ),
        { timeout: 15_000 },
      )
      .toBe(200);
    return { child, url, admin };
  }

  async function servesAndEnds({ child, url }: { child: ChildProcess; url: string }): Promise<void> {
    const cookie = await login();
    for (let n = 0; n < 20; n++) {
      expect((await fetch(`${url}/auth/verify`, { headers: { cookie } })).status).toBe(200);
      expect(
        (await fetch(`${url}/auth/token`, { method: 'POST', body: new URLSearchParams({ grant_type: 'refresh_token', client_id: 'app' }) })).status,
      ).toBe(401);
    }
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
  }

  it('a disk that is full takes no line of its log, and stops nothing', async () => {
    const full = openSync('/dev/full', 'w');
    onTestFinished(() => closeSync(full));
    await servesAndEnds(await startIn((args) => spawn(process.execPath, args, { stdio: ['ignore', full, 'ignore'] })));
  });

  it('a full pipe that nobody reads takes no line of its log, and stops nothing', async () => {
    const path = join(directory, 'log.fifo');
    execFileSync('mkfifo', [path]);
    const pipe = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    onTestFinished(() => closeSync(pipe));
    expect(() => {
      for (;;) writeSync(pipe, 'x'.repeat(1024));
    }).toThrow('EAGAIN');
    await servesAndEnds(await startIn((args) => spawn('sh', ['-c', 'exec "$@" > "$0"', path, process.execPath, ...args], { stdio: 'ignore' })));
  });

  /** Starts the bridge on a new terminal. `typed`: what stands before the command. */
  async function startOnTerminal(typed = '') {
    const [log, pid, status] = [join(directory, 'log'), join(directory, 'pid'), join(directory, 'status')];
    const started = await startIn((args) => {
      const command = [process.execPath, ...args].map((word) => `'${word}'`).join(' ');
      // The kernel tells the group once the leader of the session has ended; this one outlives it, to say how the bridge ended.
      writeFileSync(join(directory, 'bridge.sh'), `echo $$ > '${pid}'; exec ${typed} ${command}`);
      writeFileSync(join(directory, 'group.sh'), `trap '' HUP; sh '${directory}/bridge.sh' > '${log}' 2>&1; echo $? > '${status}'`);
      return spawn('script', ['-qec', `sh '${directory}/group.sh'; true`, '/dev/null'], { stdio: ['pipe', 'ignore', 'ignore'] });
    });
    const bridge = Number(readFileSync(pid, 'utf8'));
    onTestFinished(() => {
      if (isAlive(bridge)) process.kill(bridge, 'SIGKILL');
    });
    return { ...started, bridge, logged: () => readFileSync(log, 'utf8'), status: () => (existsSync(status) ? readFileSync(status, 'utf8') : '') };
  }

  it('a terminal that hangs up ends it as SIGTERM does', async () => {
    const { child, url, logged, status } = await startOnTerminal();
    child.kill('SIGKILL');
    await expect.poll(status, { timeout: 15_000 }).toBe('0\n');
    await expect(fetch(`${url}/auth/verify`)).rejects.toThrow();
    expect(logged()).toContain('"signal":"SIGHUP","msg":"draining');
    expect(logged()).toContain('crossfade has ended');
    expect(logged()).not.toContain('Assertion');
  });

  it('under nohup a terminal that hangs up ends nothing', async () => {
    const { child, url, bridge, logged } = await startOnTerminal('nohup');
    child.kill('SIGKILL');
    await expect.poll(logged, { timeout: 15_000 }).toContain('"signal":"SIGHUP","msg":"reading key files');
    expect((await fetch(`${url}/auth/verify`)).status).toBe(401);
    expect(logged()).not.toContain('draining');
    process.kill(bridge, 'SIGTERM');
    await expect.poll(() => isAlive(bridge)).toBe(false);
  });

  it('SIGTERM while it starts ends it with 0', async () => {
    proxy.silence();
    const running = startCli(['serve', '--config', join(directory, 'crossfade.yaml')]);
    service = running;
    await expect.poll(() => proxy.sentBytes, { timeout: 15_000 }).toBeGreaterThan(0);
    running.process.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
  });

  function isAlive(pid: number): boolean {
    return existsSync(`/proc/${pid}`);
  }
});
