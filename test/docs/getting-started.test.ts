import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { freePort } from '../../scripts/lib/free-port.js';
import { startLegacyApp } from '../../scripts/lib/legacy-app.js';
import { type RunningCli, startCli } from '../support/cli.js';
import { remember } from '../support/transcript.js';
import { sharedRedisUrl } from '../support/world.js';

const PAGE = readFileSync(new URL('../../docs/getting-started.md', import.meta.url), 'utf8');
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

let directory: string;
let service: RunningCli | undefined;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'crossfade-docs-'));
});
afterEach(async () => {
  service?.process.kill('SIGTERM');
  await service?.ended();
  rmSync(directory, { recursive: true, force: true });
});

/** Runs one block of the page under sh, with `crossfade` on the PATH. */
async function run(script: string): Promise<{ status: number | null; output: string }> {
  const child = spawn('sh', ['-e', '-c', script], { cwd: directory, env: { ...process.env, PATH: `${directory}/bin:${process.env['PATH']}` } });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const [status]: (number | null)[] = await once(child, 'close');
  return { status: status ?? null, output };
}

it('getting started: its commands work in their order, on a Redis with real sessions', async () => {
  const legacy = await startLegacyApp({ redisUrl: sharedRedisUrl(), secrets: ['the-secret-in-app.keys'], storePrefix: `${directory}:` });
  await legacy.login('alice');
  const [port, adminPort] = [await freePort(), await freePort()];
  const { mkdirSync } = await import('node:fs');
  mkdirSync(join(directory, 'bin'));
  writeFileSync(join(directory, 'bin', 'crossfade'), `#!/bin/sh\nexec node ${ROOT}dist/cli/main.js "$@"\n`);
  chmodSync(join(directory, 'bin', 'crossfade'), 0o755);

  const blocks = [...PAGE.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, text = '']) =>
    text.replaceAll('redis://127.0.0.1:6379/0', sharedRedisUrl()).replaceAll('8787', String(port)).replaceAll('8788', String(adminPort)),
  );
  try {
    const curls: string[] = [];
    for (const block of blocks) {
      if (block.startsWith('curl')) curls.push(...block.trim().split('\n'));
      else if (block.startsWith('crossfade serve')) {
        const path = join(directory, 'crossfade.yaml');
        const keyPrefix = `${directory}-bridge:`;
        writeFileSync(
          path,
          readFileSync(path, 'utf8')
            .replace('port: 8787', `port: ${port}`)
            .replace('port: 8788', `port: ${adminPort}`)
            .replace(/^redis:$/m, `redis:\n  keyPrefix: "${keyPrefix}"`),
        );
        for (const name of ['fleet-secret', 'admin-token', 'session-secrets']) remember(readFileSync(join(directory, name), 'utf8').trim());
        service = startCli(['serve'], directory);
        await service.logged('crossfade is listening');
      } else {
        const sampled = block.includes('--sample') ? block.replace('--cookie', `--key-prefix ${directory}: --cookie`) : block;
        const { status, output } = await run(sampled);
        expect({ block, status, output }).toEqual({ block, status: 0, output: expect.any(String) });
        if (block.includes('--sample')) expect(output).toContain('1 of 1 map.');
      }
    }
    expect(curls.length).toBeGreaterThan(3);
    for (const line of curls) {
      const [, url = '', status] = /curl (?:-i )?(\S+)\s+# (\d+)/.exec(line) ?? [];
      expect({ line, status: (await fetch(url)).status }).toEqual({ line, status: Number(status) });
    }
  } finally {
    await legacy.close([`${directory}-bridge:v1:jwks`]);
  }
});
