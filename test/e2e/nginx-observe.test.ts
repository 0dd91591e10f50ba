import { afterAll, beforeAll, expect, it } from 'vitest';
import { type RunningProxy, startNginx } from '../../scripts/lib/nginx.js';
import { type Service, startService } from '../support/serve.js';
import { createWorld, type World } from '../support/world.js';

let world: World;
let service: Service;
let nginx: RunningProxy;

beforeAll(async () => {
  world = await createWorld();
  service = await startService(world, (config) => ({ ...config, mode: 'observe' }));
  const app = `proxy_pass ${world.legacy.url}; proxy_set_header Host $http_host;`;
  nginx = await startNginx([service.url], `location / { include crossfade-observe.conf; ${app} }`);
}, 120_000);
afterAll(async () => {
  await nginx.stop();
  await service.stop();
  await world.close();
});

async function observed(outcome: string): Promise<number> {
  const metrics = await (await fetch(`${service.admin}/metrics`)).text();
  return Number(new RegExp(`crossfade_observed_total\\{client="unknown",outcome="${outcome}"\\} (\\d+)`).exec(metrics)?.[1] ?? 0);
}

it('nginx mirrors every request to a bridge that observes: the app answers as ever, and the bridge counts whom it would have found', async () => {
  const cookie = await world.login('alice');
  const before = await observed('session');
  const response = await fetch(nginx.url, { headers: { cookie } });
  expect([response.status, await response.text()]).toEqual([200, 'hello, u-alice']);
  await expect.poll(async () => await observed('session')).toBe(before + 1);
  await fetch(nginx.url, { headers: { cookie: cookie.replace(/sig=.{4}/, 'sig=AAAA') } });
  await expect.poll(async () => await observed('bad-signature')).toBe(1);
});

it('Law 1: a bridge that is away costs the app nothing', async () => {
  const cookie = await world.login('alice');
  await service.stop();
  const response = await fetch(nginx.url, { headers: { cookie } });
  expect([response.status, await response.text()]).toEqual([200, 'hello, u-alice']);
});
