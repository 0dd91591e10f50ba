import { type ExecFileOptions, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../../scripts/lib/free-port.js';
import { closeServer, urlOf } from '../../scripts/lib/legacy-app.js';
import { sharedRedisUrl } from '../support/world.js';
import { startChromium } from './chromium.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

/** An empty folder with the packed package, as a user installs it. */
let app: string;
let packageRoot: string;
/** Paths inside the package. */
let packed: string[];
const keyPrefix = `crossfade-package-${process.pid}:`;

const inApp = async (command: string, args: readonly string[], options: ExecFileOptions = {}) =>
  await run(command, [...args], { cwd: app, encoding: 'utf8', ...options });

beforeAll(async () => {
  app = mkdtempSync(join(tmpdir(), 'crossfade-app-'));
  // Other tests run the build at the same time, so packing must not make it again.
  const { stdout } = await run('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', app], { cwd: ROOT });
  writeFileSync(join(app, 'package.json'), '{ "private": true }');
  const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', '--engine-strict', `./${stdout.trim()}`];
  await inApp('npm', install);
  packageRoot = join(app, 'node_modules/crossfade-auth');
  packed = readdirSync(packageRoot, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(packageRoot.length + 1))
    .sort();
  // The app's own, which the package does not bring.
  symlinkSync(join(ROOT, 'node_modules/koa-session'), join(app, 'node_modules/koa-session'));
}, 180_000);
afterAll(async () => {
  rmSync(app, { recursive: true, force: true });
  const redis = new Redis(sharedRedisUrl());
  const keys = await redis.keys(`${keyPrefix}*`);
  if (keys.length > 0) await redis.del(...keys);
  redis.disconnect();
});

describe('the tarball', () => {
  it('holds the build of every source, the pages, and nothing else', () => {
    const built = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' }).flatMap((name) => {
      if (name.endsWith('.d.ts') || name.endsWith('tsconfig.json') || extname(name) === '') return [];
      return name.endsWith('.ts') ? [name.replace(/\.ts$/, '.js'), name.replace(/\.ts$/, '.d.ts')] : [name];
    });
    expect(packed.filter((path) => path.startsWith('dist/'))).toEqual([...built, 'config.schema.json'].map((path) => `dist/${path}`).sort());
    expect(packed.filter((path) => !path.startsWith('dist/'))).toMatchSnapshot();
  });

  it('has no link that leads out of it', () => {
    const links = packed
      .filter((path) => path.endsWith('.md'))
      .flatMap((page) =>
        [...readFileSync(join(packageRoot, page), 'utf8').matchAll(/\]\((?![a-z]+:)([^)#\s]+)/g)].map(([, target = '']) => ({ page, target })),
      );
    const leadsNowhere = ({ page, target }: (typeof links)[number]) => {
      const path = normalize(join(dirname(page), target)).replace(/\/$/, '');
      return !packed.some((one) => one === path || one.startsWith(`${path}/`));
    };
    expect(links.length).toBeGreaterThan(100);
    expect(links.filter(leadsNowhere)).toEqual([]);
  });
});

describe('installed in an empty folder', () => {
  it('is usable from require, without a warning', async () => {
    writeFileSync(
      join(app, 'app.cjs'),
      "const { createBridge, loadConfig } = require('crossfade-auth'); console.log(typeof createBridge, typeof loadConfig);",
    );
    expect(await inApp('node', ['app.cjs'])).toEqual({ stdout: 'function function\n', stderr: '' });
  });

  it('is usable from import, with its names and no others', async () => {
    writeFileSync(join(app, 'app.mjs'), "console.log(Object.keys(await import('crossfade-auth')).sort().join(' '));");
    expect((await inApp('node', ['app.mjs'])).stdout).toBe('ConfigError CrossfadeError createBridge loadConfig\n');
  });

  it('brings a JSON Schema for editors', () => {
    const schema: unknown = JSON.parse(readFileSync(join(packageRoot, 'dist/config.schema.json'), 'utf8'));
    expect(schema).toMatchObject({
      properties: { issuer: {}, sessions: { items: { properties: { format: { default: 'koa-session' }, keyPrefix: { type: 'string' } } } } },
      required: ['issuer', 'audience', 'fleetSecretFile', 'redis', 'sessions'],
    });
  });

  it('brings a command that writes a configuration, checks it and serves it', async () => {
    const [port, adminPort] = [await freePort(), await freePort()];
    const issuer = `http://127.0.0.1:${port}`;
    expect((await inApp('npx', ['crossfade', '--version'])).stdout).toBe('0.2.0\n');
    const { stdout } = await inApp('npx', ['crossfade', 'init', '.', '--issuer', issuer, '--redis', sharedRedisUrl(), '--subject', 'user.id']);
    expect(stdout).toContain('crossfade.yaml');
    const written = readFileSync(join(app, 'crossfade.yaml'), 'utf8');
    const [, schema = ''] = /\$schema=(\S+)/.exec(written) ?? [];
    expect(JSON.parse(readFileSync(join(app, schema), 'utf8'))).toHaveProperty('$schema');
    const changed = written
      .replace(/^redis:$/m, `redis:\n  keyPrefix: "${keyPrefix}"`)
      .replace('8787', String(port))
      .replace('8788', String(adminPort));
    writeFileSync(join(app, 'crossfade.yaml'), changed);
    writeFileSync(join(app, 'session-secrets'), 'the-cookie-secret-of-the-readme');
    expect((await inApp('npx', ['crossfade', 'check'])).stdout).toContain('nothing to find fault with');
    const server = spawn('node', [join(app, 'node_modules/.bin/crossfade'), 'serve'], { cwd: app, stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      for await (const chunk of server.stdout) if (String(chunk).includes('crossfade is listening')) break;
      expect((await fetch(`${issuer}/auth/verify`)).status).toBe(401);
      expect((await fetch(`http://127.0.0.1:${adminPort}/readyz`)).status).toBe(200);
      expect(await (await fetch(`http://127.0.0.1:${adminPort}/`)).text()).toContain('<title>');
    } finally {
      const ended = once(server, 'exit');
      server.kill('SIGTERM');
      await ended;
    }
  }, 60_000);

  it("README's lines mount it in a Koa app", async () => {
    const [, lines = ''] = /In the Koa app[\s\S]*?```js\n([\s\S]*?)```/.exec(readFileSync(join(packageRoot, 'README.md'), 'utf8')) ?? [];
    writeFileSync(
      join(app, 'readme.mjs'),
      `import Koa from 'koa';
    import Router from '@koa/router';
    import session from 'koa-session';
    import { createBridge, loadConfig } from 'crossfade-auth';
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
    expect((await inApp('node', ['readme.mjs'])).stderr).toBe('401 {"error":"missing_credential"}\n');
  });

  it('brings a client that a page imports as it is', async () => {
    const files = join(packageRoot, 'dist/client');
    const server = createServer((request, response) => {
      const { pathname } = new URL(request.url ?? '/', 'http://page');
      const file = /^\/client\/([\w-]+\.js)$/.exec(pathname)?.[1];
      if (file) response.setHeader('content-type', 'text/javascript').end(readFileSync(join(files, file)));
      else if (pathname === '/orders') response.end('an order');
      else response.setHeader('content-type', 'text/html').end('<title>a page</title>');
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const browser = await startChromium();
    try {
      const page = await browser.context.newPage();
      await page.goto(urlOf(server));
      const seen = await page.evaluate(`(async () => {
        const { createClient } = await import('/client/index.js');
        const client = createClient({ baseUrl: '/' });
        return [client.state, await (await client.fetch('/orders')).text()];
      })()`);
      expect(seen).toEqual(['session', 'an order']);
    } finally {
      await browser.close();
      await closeServer(server);
    }
  });
});
