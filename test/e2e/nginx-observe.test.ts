import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { freePort } from '../../scripts/lib/private-redis.js';
import { provide } from '../../scripts/lib/programs.js';
import { type Service, startService } from '../support/serve.js';
import { createWorld, type World } from '../support/world.js';

const SHIPPED = fileURLToPath(new URL('../../docs/deploy/nginx/', import.meta.url));

let world: World;
let service: Service;
let url: string;
let stopNginx: () => Promise<void>;

beforeAll(async () => {
  world = await createWorld();
  service = await startService(world, (config) => ({ ...config, mode: 'observe' }));
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  stopNginx = await startNginx(port, world.legacy.url);
}, 120_000);
afterAll(async () => {
  await stopNginx();
  await service.stop();
  await world.close();
});

/** The shipped files as they are, but for where the bridge is. */
async function startNginx(port: number, app: string): Promise<() => Promise<void>> {
  const nginx = provide('nginx');
  const directory = join(world.directory, 'nginx');
  mkdirSync(join(directory, 'logs'), { recursive: true });
  const shared = readFileSync(join(SHIPPED, 'crossfade.conf'), 'utf8').replaceAll('http://127.0.0.1:8787', service.url);
  writeFileSync(join(directory, 'crossfade.conf'), shared);
  copyFileSync(join(SHIPPED, 'crossfade-observe.conf'), join(directory, 'crossfade-observe.conf'));
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${directory}/${kind};`).join(' ');
  writeFileSync(
    join(directory, 'nginx.conf'),
    `daemon off; pid ${directory}/pid; error_log ${directory}/logs/error.log;
     events {}
     http { access_log off; ${temp}
       server { listen 127.0.0.1:${port}; include ${directory}/crossfade.conf;
         location / { include ${directory}/crossfade-observe.conf; proxy_pass ${app}; proxy_set_header Host $http_host; } } }`,
  );
  const child = spawn(nginx, ['-p', directory, '-c', join(directory, 'nginx.conf')], { stdio: 'ignore' });
  await vi.waitFor(async () => await fetch(`http://127.0.0.1:${port}/`), { timeout: 10_000 });
  return async () => {
    child.kill('SIGTERM');
    await once(child, 'exit');
  };
}

async function observed(outcome: string): Promise<number> {
  const metrics = await (await fetch(`${service.admin}/metrics`)).text();
  return Number(new RegExp(`crossfade_observed_total\\{client="unknown",outcome="${outcome}"\\} (\\d+)`).exec(metrics)?.[1] ?? 0);
}

it('nginx mirrors every request to a bridge that observes: the app answers as ever, and the bridge counts whom it would have found', async () => {
  const cookie = await world.login('alice');
  const before = await observed('session');
  const response = await fetch(url, { headers: { cookie } });
  expect([response.status, await response.text()]).toEqual([200, 'hello, u-alice']);
  await expect.poll(async () => await observed('session')).toBe(before + 1);
  await fetch(url, { headers: { cookie: cookie.replace(/sig=.{4}/, 'sig=AAAA') } });
  await expect.poll(async () => await observed('bad-signature')).toBe(1);
});

it('Law 1: a bridge that is away costs the app nothing', async () => {
  const cookie = await world.login('alice');
  await service.stop();
  const response = await fetch(url, { headers: { cookie } });
  expect([response.status, await response.text()]).toEqual([200, 'hello, u-alice']);
});
