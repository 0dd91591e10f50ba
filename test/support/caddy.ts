import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../scripts/lib/free-port.js';
import { type RunningProxy, runProxy } from '../../scripts/lib/nginx.js';
import { provide } from '../../scripts/lib/programs.js';

const SHIPPED = fileURLToPath(new URL('../../docs/deploy/caddy/Caddyfile', import.meta.url));

/** The real Caddy with the shipped file as it is, but for its three addresses, and `routes` of the test's own. */
export async function startCaddy({ bridge, app, routes }: { bridge: string; app: string; routes: string }): Promise<RunningProxy> {
  const caddy = provide('caddy');
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-caddy-'));
  const port = await freePort();
  const file = join(directory, 'Caddyfile');
  const text = readFileSync(SHIPPED, 'utf8')
    .replace('\t\t# Needs somebody.\n', `${routes}\n\t\t# Needs somebody.\n`)
    .replaceAll('127.0.0.1:8787', new URL(bridge).host)
    .replaceAll('127.0.0.1:3000', new URL(app).host)
    .replace('http://localhost:8080', `http://127.0.0.1:${port}`);
  writeFileSync(file, `{\n\tadmin off\n\tauto_https off\n}\n${text}`);
  return await runProxy(caddy, ['run', '--config', file, '--adapter', 'caddyfile'], { directory, port });
}
