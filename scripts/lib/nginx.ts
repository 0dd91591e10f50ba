import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from './free-port.js';
import { provide } from './programs.js';

const SHIPPED = fileURLToPath(new URL('../../docs/deploy/nginx/', import.meta.url));

export interface RunningProxy {
  readonly url: string;
  stop(): Promise<void>;
}

/**
 * The real nginx with the shipped files as they are; `server` is what stands in its `server`, `at` its port: by default a free one. `http`:
 * what stands in its `http`, made for a directory that it may write.
 */
export async function startNginx(
  bridges: readonly string[],
  server: string,
  at?: number,
  http: (directory: string) => string = () => '',
): Promise<RunningProxy> {
  const nginx = provide('nginx');
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-nginx-'));
  mkdirSync(join(directory, 'logs'));
  for (const name of readdirSync(SHIPPED)) copyFileSync(join(SHIPPED, name), join(directory, name));
  const port = at ?? (await freePort());
  const servers = bridges.map((bridge) => `server ${new URL(bridge).host} max_fails=0;`).join(' ');
  writeFileSync(
    join(directory, 'nginx.conf'),
    `${process.getuid?.() === 0 ? 'user root;' : ''} daemon off; pid ${directory}/pid; error_log ${directory}/logs/error.log; worker_processes 1;
     events { worker_connections 4096; }
     http { access_log off; ${temporaryPaths(directory)} ${http(directory)} include crossfade-http.conf; upstream crossfade { ${servers} keepalive 32; } server { listen 127.0.0.1:${port}; include crossfade.conf; ${server} } }`,
  );
  return await runProxy(nginx, ['-p', directory, '-c', join(directory, 'nginx.conf')], { directory, port });
}

/** Lines of `http` that keep what nginx writes in a directory. */
export function temporaryPaths(directory: string): string {
  return ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${directory}/${kind};`).join(' ');
}

/** Runs a proxy whose files are in a directory of its own, which goes with it. @throws where it ends instead of answering, with what it said. */
export async function runProxy(
  program: string,
  args: readonly string[],
  { directory, port }: { readonly directory: string; readonly port: number },
): Promise<RunningProxy> {
  const env = { ...process.env, XDG_CONFIG_HOME: directory, XDG_DATA_HOME: directory, HOME: directory };
  const child = spawn(program, [...args], { stdio: ['ignore', 'ignore', 'pipe'], env });
  const said: string[] = [];
  child.stderr.on('data', (text) => said.push(String(text)));
  const gone = once(child, 'exit');
  const url = `http://127.0.0.1:${port}`;
  const ended = gone.then(() => Promise.reject(new Error(`${program} has ended: ${said.join('')}`)));
  await Promise.race([ended, answers(url)]);
  ended.catch(() => undefined);
  return {
    url,
    async stop() {
      child.kill('SIGTERM');
      await gone;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** @throws where it does not within 20 seconds. */
async function answers(url: string): Promise<void> {
  for (const end = Date.now() + 20_000; ; ) {
    try {
      await fetch(url);
      return;
    } catch (error) {
      if (Date.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
