import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { freePort } from '../../scripts/lib/free-port.js';
import { runCli } from '../support/cli.js';
import { remember } from '../support/transcript.js';
import { sharedRedisUrl } from '../support/world.js';

const PAGE = readFileSync(new URL('../../docs/in-app.md', import.meta.url), 'utf8');
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

it('in Koa: the program of the page serves, tells health and metrics, shows the console, logs where the app does, and ends', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-docs-'));
  await runCli(['init', directory, '--redis', sharedRedisUrl()]);
  const token = readFileSync(join(directory, 'admin-token'), 'utf8').trim();
  remember(token, readFileSync(join(directory, 'fleet-secret'), 'utf8').trim(), 'the secret of the session cookie');
  writeFileSync(join(directory, 'session-secrets'), 'the secret of the session cookie\n');
  const config = join(directory, 'crossfade.yaml');
  writeFileSync(config, readFileSync(config, 'utf8').replace(/^redis:$/m, `redis:\n  keyPrefix: "${directory}:"`));
  const [port, adminPort] = [await freePort(), await freePort()];
  const [, program = ''] = /```js\n([\s\S]*?)```/.exec(PAGE) ?? [];
  const child = spawn(process.execPath, ['--input-type=module'], { cwd: ROOT, stdio: ['pipe', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const ended = once(child, 'close');
  child.stdin.end(program.replace("'crossfade.yaml'", JSON.stringify(config)).replace('3000', String(port)).replace('8788', String(adminPort)));
  const [url, admin] = [`http://127.0.0.1:${port}`, `http://127.0.0.1:${adminPort}`];
  const get = async (at: string, headers: Record<string, string> = {}) => await fetch(at, { headers });
  try {
    await expect.poll(async () => (await get(`${admin}/readyz`)).status, { timeout: 20_000 }).toBe(200);
    expect(await (await get(`${url}/`)).json()).toEqual({ subject: null });
    expect((await get(`${url}/.well-known/jwks.json`)).status).toBe(200);
    expect((await get(`${url}/metrics`)).headers.get('content-type')).toContain('json');
    expect(await (await get(`${admin}/metrics`)).text()).toContain('crossfade_requests_total');
    expect((await get(`${admin}/`)).headers.get('content-type')).toContain('text/html');
    expect((await get(`${admin}/api/status`)).status).toBe(401);
    expect((await get(`${admin}/api/status`, { authorization: `Bearer ${token}` })).status).toBe(200);
    expect(said).toMatch(/"level":30,.*"audit":"key\.accepted"/);
    child.kill('SIGTERM');
    const [status]: (number | null)[] = await ended;
    expect(status).toBe(0);
  } finally {
    child.kill('SIGKILL');
    await ended;
    rmSync(directory, { recursive: true, force: true });
  }
}, 60_000);

it('in Express: the program of the page serves, guards a route, and ends', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-docs-'));
  await runCli(['init', directory, '--redis', sharedRedisUrl()]);
  remember(readFileSync(join(directory, 'fleet-secret'), 'utf8').trim());
  writeFileSync(join(directory, 'session-secrets'), 'the secret of the session cookie\n');
  const config = join(directory, 'crossfade.yaml');
  writeFileSync(config, readFileSync(config, 'utf8').replace(/^redis:$/m, `redis:\n  keyPrefix: "${directory}:"`));
  const port = await freePort();
  const program = [...PAGE.matchAll(/```js\n([\s\S]*?)```/g)].map(([, text = '']) => text).find((text) => text.includes("from 'express'")) ?? '';
  const child = spawn(process.execPath, ['--input-type=module'], { cwd: ROOT, stdio: ['pipe', 'ignore', 'inherit'] });
  const ended = once(child, 'close');
  child.stdin.end(program.replace("'crossfade.yaml'", JSON.stringify(config)).replace('3000', String(port)));
  const statusOf = async (path: string) =>
    await fetch(`http://127.0.0.1:${port}${path}`).then(
      ({ status }) => status,
      () => 0,
    );
  try {
    await expect.poll(async () => await statusOf('/.well-known/jwks.json'), { timeout: 20_000 }).toBe(200);
    expect(await (await fetch(`http://127.0.0.1:${port}/`)).json()).toEqual({ subject: null });
    expect([await statusOf('/orders'), await statusOf('/auth/token')]).toEqual([401, 405]);
    child.kill('SIGTERM');
    const [status]: (number | null)[] = await ended;
    expect(status).toBe(0);
  } finally {
    child.kill('SIGKILL');
    await ended;
    rmSync(directory, { recursive: true, force: true });
  }
}, 60_000);
