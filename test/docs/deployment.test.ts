import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { provide } from '../../scripts/lib/programs.js';
import { runCli } from '../support/cli.js';
import { remember } from '../support/transcript.js';

const DOCS = fileURLToPath(new URL('../../docs/', import.meta.url));
const read = (page: string) => readFileSync(join(DOCS, page), 'utf8');
const blocks = (page: string, language: string) =>
  [...read(page).matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'gm'))].map(([, block]) => block ?? '');

it('docs/deployment.md: the secrets of the Kubernetes commands are files that crossfade init makes', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-secrets-'));
  try {
    const block = blocks('deployment.md', 'sh').find((one) => one.includes('kubectl')) ?? '';
    const [line = ''] = block.split('\n').filter((one) => one.startsWith('crossfade '));
    expect(await runCli(line.split(' ').slice(1), directory)).toMatchObject({ status: 0 });
    for (const name of ['fleet-secret', 'admin-token']) remember(readFileSync(join(directory, 'secrets', name), 'utf8').trim());
    const named = [...block.matchAll(/--from-file=(?:[\w-]+=)?(\S+)/g)].map(([, file = '']) => file);
    expect(named.length).toBeGreaterThan(4);
    // Those two hold passwords that only the operator knows.
    for (const file of named.filter((one) => !one.endsWith('-url'))) expect(existsSync(join(directory, file)), file).toBe(true);
    expect(existsSync(join(DOCS, '..', /apply -f (\S+)/.exec(block)?.[1] ?? 'nowhere'))).toBe(true);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

it.each([
  ['forward-auth.md', 0],
  ['forward-auth.md', 1],
])('docs/%s: block %i is a configuration that the real nginx takes', (page, at) => {
  const nginx = provide('nginx');
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-nginx-page-'));
  try {
    const block = blocks(page, 'nginx')[at] ?? '';
    const http = block.startsWith('http {')
      ? block.replace('server {', 'upstream app { server 127.0.0.1:3000; } upstream orders { server 127.0.0.1:3001; } server {')
      : `http { upstream crossfade { server 127.0.0.1:8787; } upstream app { server 127.0.0.1:3000; } include crossfade-http.conf; server { include crossfade.conf; ${block} } }`;
    const text = http.replaceAll(/include (\S+);/g, `include ${DOCS}deploy/nginx/$1;`);
    writeFileSync(join(directory, 'nginx.conf'), `pid ${directory}/pid; error_log ${directory}/error.log; events {} ${text}`);
    execFileSync(nginx, ['-t', '-q', '-p', directory, '-c', join(directory, 'nginx.conf')], { stdio: 'pipe' });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
