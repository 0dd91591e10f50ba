import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { init } from '../../src/cli/init.js';
import { sharedRedisUrl } from '../support/world.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

let app: string;
beforeAll(async () => {
  app = mkdtempSync(join(tmpdir(), 'crossfade-app-'));
  mkdirSync(join(app, 'node_modules'));
  symlinkSync(ROOT, join(app, 'node_modules', 'crossfade'));
  mkdirSync(join(app, 'node_modules', '@koa'));
  for (const name of ['koa', 'koa-session', '@koa/router']) symlinkSync(join(ROOT, 'node_modules', name), join(app, 'node_modules', name));
});
afterAll(() => rmSync(app, { recursive: true, force: true }));

it('is usable from require, without a warning', async () => {
  writeFileSync(
    join(app, 'app.cjs'),
    "const { createBridge, loadConfig } = require('crossfade'); console.log(typeof createBridge, typeof loadConfig);",
  );
  expect(await run('node', ['app.cjs'], { cwd: app })).toEqual({ stdout: 'function function\n', stderr: '' });
});

it('is usable from import, with its names and no others', async () => {
  writeFileSync(join(app, 'app.mjs'), "console.log(Object.keys(await import('crossfade')).sort().join(' '));");
  expect((await run('node', ['app.mjs'], { cwd: app })).stdout).toBe('ConfigError CrossfadeError createBridge loadConfig\n');
});

it('brings a JSON Schema for editors', async () => {
  const schema: unknown = JSON.parse(readFileSync(join(app, 'node_modules/crossfade/dist/config.schema.json'), 'utf8'));
  expect(schema).toMatchObject({
    properties: { issuer: {}, sessions: { items: { properties: { format: { default: 'koa-session' }, keyPrefix: { type: 'string' } } } } },
    required: ['issuer', 'audience', 'fleetSecretFile', 'redis', 'sessions'],
  });
});

it('brings a command line', async () => {
  expect((await run('node', [join(ROOT, 'dist/cli/main.js'), '--version'])).stdout).toBe('0.2.0\n');
  expect((await run('node', [join(ROOT, 'dist/cli/main.js'), '--help'])).stdout).toContain('serve');
});

it("README's lines mount it in a Koa app", async () => {
  const [, lines = ''] = /In the Koa app[\s\S]*?```js\n([\s\S]*?)```/.exec(readFileSync(join(ROOT, 'README.md'), 'utf8')) ?? [];
  const keyPrefix = `crossfade-readme-${process.pid}:`;
  init(app, { issuer: 'http://localhost:8787', redis: sharedRedisUrl(), format: 'koa-session', cookie: 'koa.sess', subject: 'user.id' });
  writeFileSync(join(app, 'session-secrets'), 'the-cookie-secret-of-the-readme');
  const config = readFileSync(join(app, 'crossfade.yaml'), 'utf8').replace(/^redis:$/m, `redis:\n  keyPrefix: "${keyPrefix}"`);
  writeFileSync(join(app, 'crossfade.yaml'), config);
  writeFileSync(
    join(app, 'readme.mjs'),
    `import Koa from 'koa';
    import Router from '@koa/router';
    import session from 'koa-session';
    import { createBridge, loadConfig } from 'crossfade';
    const app = new Koa();
    app.keys = ['the-cookie-secret-of-the-readme'];
    const router = new Router();
    const listOrders = (ctx) => { ctx.body = 'reached'; };
    ${lines}
    app.use(router.routes());
    const server = app.listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const answer = await fetch('http://127.0.0.1:' + server.address().port + '/orders');
    console.error(answer.status, await answer.text());
    server.close();
    await bridge.close();`,
  );
  try {
    expect((await run('node', ['readme.mjs'], { cwd: app })).stderr).toBe('401 {"error":"missing_credential"}\n');
  } finally {
    const redis = new Redis(sharedRedisUrl());
    await redis.del(`${keyPrefix}v1:jwks`);
    redis.disconnect();
  }
});
