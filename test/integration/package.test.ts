import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

let app: string;
beforeAll(async () => {
  await run('npm', ['run', '--silent', 'build'], { cwd: ROOT });
  app = mkdtempSync(join(tmpdir(), 'crossfade-app-'));
  mkdirSync(join(app, 'node_modules'));
  symlinkSync(ROOT, join(app, 'node_modules', 'crossfade'));
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
    properties: { issuer: {}, sessions: { items: { properties: { cookie: { default: 'koa.sess' } } } } },
    required: ['issuer', 'audience', 'fleetSecretFile', 'redis', 'sessions'],
  });
});

it('brings a command line', async () => {
  expect((await run('node', [join(ROOT, 'dist/cli/main.js'), '--version'])).stdout).toBe('0.1.0\n');
  expect((await run('node', [join(ROOT, 'dist/cli/main.js'), '--help'])).stdout).toContain('serve');
});
