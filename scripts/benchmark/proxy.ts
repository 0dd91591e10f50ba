import { spawn } from 'node:child_process';
import { createPublicKey } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '../lib/free-port.js';
import { provide } from '../lib/programs.js';
import type { RunningApp } from './app.js';
import { BODY } from './apps.js';
import { pinned } from './cores.js';
import type { Fixture } from './fixture.js';

/** HAProxy that verifies RS256 by itself and answers by itself. @throws where it is not to be had. */
export async function startHaproxy(fixture: Fixture): Promise<RunningApp> {
  const program = provide('haproxy');
  const directory = mkdtempSync(join(fixture.directory, 'haproxy-'));
  const port = await freePort();
  const key = createPublicKey(readFileSync(join(fixture.directory, 'RS256', 'bench.pem'))).export({ type: 'spki', format: 'pem' });
  writeFileSync(join(directory, 'key.pem'), key);
  writeFileSync(join(directory, 'body'), BODY);
  const file = join(directory, 'haproxy.cfg');
  writeFileSync(
    file,
    `global
  nbthread 1
defaults
  mode http
  timeout client 10s
  timeout connect 10s
  timeout server 10s
frontend bench
  bind 127.0.0.1:${port}
  http-request set-var(txn.alg) http_auth_bearer,jwt_header_query('$.alg')
  http-request set-var(txn.iss) http_auth_bearer,jwt_payload_query('$.iss')
  http-request deny deny_status 401 unless { var(txn.alg) -m str RS256 }
  http-request deny deny_status 401 unless { var(txn.iss) -m str ${fixture.issuer} }
  http-request deny deny_status 401 unless { http_auth_bearer,jwt_verify(txn.alg,"${directory}/key.pem") 1 }
  http-request return status 200 content-type application/json file ${directory}/body
`,
  );
  return await run(program, ['-f', file], port);
}

/** nginx that asks a bridge by auth_request, with what of the shipped files matters here, and answers by itself. */
export async function startNginx(fixture: Fixture, bridgePort: number): Promise<RunningApp> {
  const program = provide('nginx');
  const directory = mkdtempSync(join(fixture.directory, 'nginx-'));
  for (const name of ['logs', 'html']) mkdirSync(join(directory, name));
  writeFileSync(join(directory, 'html', 'body'), BODY);
  const port = await freePort();
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${directory}/${kind};`).join(' ');
  const file = join(directory, 'nginx.conf');
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${directory}/pid; error_log ${directory}/logs/error.log;
     events {}
     http {
       access_log off; ${temporary} keepalive_requests 1000000000;
       upstream bridge { server 127.0.0.1:${bridgePort}; keepalive 64; keepalive_requests 1000000000; }
       server {
         listen 127.0.0.1:${port};
         root ${directory}/html;
         location = / { auth_request /_bridge; try_files /body =404; }
         location = /_bridge {
           internal; proxy_pass http://bridge/auth/verify; proxy_pass_request_body off;
           proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Content-Length "";
         }
       }
     }`,
  );
  return await run(program, ['-p', directory, '-c', file], port);
}

const TICK_MICROS = 10_000;

async function run(program: string, programArgs: readonly string[], port: number): Promise<RunningApp> {
  const { command, args } = pinned('measured', program, programArgs);
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let complaints = '';
  child.stderr?.on('data', (data: Buffer) => {
    complaints += data.toString();
  });
  const started = performance.now();
  while (!(await answers(port))) {
    if (child.exitCode !== null || performance.now() - started > 10_000) throw new Error(`${program} did not start: ${complaints.trim()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const usage = async () => {
    const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return { cpuMicros: (Number(fields[11]) + Number(fields[12])) * TICK_MICROS, heapBytes: 0, rssBytes: Number(fields[21]) * 4096 };
  };
  return {
    port,
    startMs: performance.now() - started,
    usage,
    memory: usage,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    },
  };
}

async function answers(port: number): Promise<boolean> {
  return await fetch(`http://127.0.0.1:${port}/`).then(
    () => true,
    () => false,
  );
}
