import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import { freePort } from '../../scripts/lib/free-port.js';
import { runCli } from '../support/cli.js';
import { remember } from '../support/transcript.js';
import { sharedRedisUrl } from '../support/world.js';

const PAGE = readFileSync(new URL('../../docs/in-app.md', import.meta.url), 'utf8');
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Starts one of the page's programs as a process, with a fresh configuration. */
async function startProgram(isMeant: (program: string) => boolean) {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-docs-'));
  await runCli(['init', directory, '--redis', sharedRedisUrl()]);
  const token = readFileSync(join(directory, 'admin-token'), 'utf8').trim();
  remember(token, readFileSync(join(directory, 'fleet-secret'), 'utf8').trim(), 'the secret of the session cookie');
  writeFileSync(join(directory, 'session-secrets'), 'the secret of the session cookie\n');
  const config = join(directory, 'crossfade.yaml');
  writeFileSync(config, readFileSync(config, 'utf8').replace(/^redis:$/m, `redis:\n  keyPrefix: "${directory}:"`));
  const [port, adminPort] = [await freePort(), await freePort()];
  const program = [...PAGE.matchAll(/```js\n([\s\S]*?)```/g)].map(([, text = '']) => text).find(isMeant) ?? '';
  const child = spawn(process.execPath, ['--input-type=module'], { cwd: ROOT, stdio: ['pipe', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const ended = once(child, 'close').then(([status]: (number | null)[]) => status);
  child.stdin.end(program.replace("'crossfade.yaml'", JSON.stringify(config)).replace('3000', String(port)).replace('8788', String(adminPort)));
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await ended;
    rmSync(directory, { recursive: true, force: true });
  });
  const statusOf = async (url: string) =>
    await fetch(url).then(
      ({ status }) => status,
      () => 0,
    );
  return {
    url: `http://127.0.0.1:${port}`,
    admin: `http://127.0.0.1:${adminPort}`,
    token,
    said: () => said,
    statusOf,
    async end() {
      child.kill('SIGTERM');
      return await ended;
    },
  };
}

it('in Koa: the program of the page serves, tells health and metrics, shows the console, logs where the app does, and ends', async () => {
  const { url, admin, token, said, statusOf, end } = await startProgram((program) => program.includes("from 'koa'"));
  await expect.poll(async () => await statusOf(`${admin}/readyz`), { timeout: 20_000 }).toBe(200);
  expect(await (await fetch(`${url}/`)).json()).toEqual({ subject: null });
  expect(await statusOf(`${url}/.well-known/jwks.json`)).toBe(200);
  expect((await fetch(`${url}/metrics`)).headers.get('content-type')).toContain('json');
  expect(await (await fetch(`${admin}/metrics`)).text()).toContain('crossfade_requests_total');
  expect((await fetch(`${admin}/`)).headers.get('content-type')).toContain('text/html');
  expect(await statusOf(`${admin}/api/status`)).toBe(401);
  expect((await fetch(`${admin}/api/status`, { headers: { authorization: `Bearer ${token}` } })).status).toBe(200);
  expect(said()).toMatch(/"level":30,.*"audit":"key\.accepted"/);
  expect(await end()).toBe(0);
}, 60_000);

it('in Express: the program of the page serves, guards a route, and ends', async () => {
  const { url, statusOf, end } = await startProgram((program) => program.includes("from 'express'"));
  await expect.poll(async () => await statusOf(`${url}/.well-known/jwks.json`), { timeout: 20_000 }).toBe(200);
  expect(await (await fetch(`${url}/`)).json()).toEqual({ subject: null });
  expect([await statusOf(`${url}/orders`), await statusOf(`${url}/auth/token`)]).toEqual([401, 405]);
  expect(await end()).toBe(0);
}, 60_000);
