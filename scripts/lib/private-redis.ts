import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { freePort } from './free-port.js';
import { install, onPath, succeeds } from './programs.js';

export interface PrivateRedis {
  readonly url: string;
  readonly port: number;
  /** Ends the server and removes what it wrote. */
  stop(): Promise<void>;
}

/** The user's own Redis by REDIS_URL, else a private one. */
export async function provideRedis(): Promise<PrivateRedis> {
  const url = process.env['REDIS_URL'];
  if (url) {
    const { hostname, port } = new URL(url);
    if (!(await pings(Number(port || 6379), hostname))) throw new Error(`REDIS_URL is set, but no Redis answers at ${hostname}:${port || 6379}.`);
    return { url, port: Number(port || 6379), stop: async () => undefined };
  }
  return await startRedis();
}

export interface StartOptions {
  /** Default: a free one. */
  readonly port?: number;
  /** More arguments for the server: `['--maxmemory-policy', 'allkeys-lru']`. */
  readonly args?: readonly string[];
  /** What the server is started by: `['taskset', '-c', '1']`. Not for one in Docker. */
  readonly by?: readonly string[];
  /** A configuration file, whose text is made for the directory and port of the server: for what cannot stand in arguments. */
  readonly file?: (directory: string, port: number) => string;
  /** Default: over a plain connection. With it the server listens for TLS only. */
  readonly ca?: string;
}

/**
 * Starts a private server without persistence. It cannot outlive this process, however that ends: a watchdog holds the
 * other end of a pipe, and ends the server when the pipe closes.
 */
export async function startRedis({ port, args = [], by = [], file, ca }: StartOptions = {}): Promise<PrivateRedis> {
  const program = findProgram();
  for (let attempt = 0; ; attempt++) {
    const chosen = port ?? (await freePort());
    const directory = mkdtempSync(join(tmpdir(), 'crossfade-redis-'));
    const config = join(directory, 'redis.conf');
    if (file) writeFileSync(config, file(directory, chosen));
    const listens = ca === undefined ? ['--port', String(chosen)] : ['--port', '0', '--tls-port', String(chosen)];
    const own = program.kind === 'docker' ? [] : [...by, program.path, ...(file ? [config] : [])];
    const watchdog = program.kind === 'docker' ? startContainer(chosen, args) : startServer([...own, ...listens], directory, args);
    const stop = async () => {
      if (watchdog.exitCode === null && watchdog.signalCode === null) {
        const gone = once(watchdog, 'exit');
        watchdog.ref();
        watchdog.stdin?.destroy();
        await gone;
      }
      rmSync(directory, { recursive: true, force: true });
    };
    if (await answers(chosen, watchdog, ca)) return { url: `${ca === undefined ? 'redis' : 'rediss'}://127.0.0.1:${chosen}/0`, port: chosen, stop };
    await stop();
    if (attempt >= 4) throw new Error(`a private Redis did not start on port ${chosen}`);
  }
}

/** Ends the server by SIGKILL once standard input closes, and ends itself once the server has ended. */
const WATCHDOG = `
dir=$1; shift
exec 3<&0
"$@" >"$dir/log" 2>&1 3<&- &
server=$!
(cat <&3 >/dev/null; kill -9 $server 2>/dev/null) &
exec 3<&-
wait $server
rm -rf "$dir"
`;

function startServer(command: readonly string[], directory: string, args: readonly string[]): ChildProcess {
  const server = [...command, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', directory, ...args];
  return startWatchdog(['-c', WATCHDOG, 'crossfade-redis', directory, ...server]);
}

function startContainer(port: number, args: readonly string[]): ChildProcess {
  const name = `crossfade-redis-${process.pid}-${port}`;
  const script = 'name=$1; shift; docker run --rm --name "$name" "$@" >/dev/null 2>&1 & cat >/dev/null; docker rm -f "$name" >/dev/null 2>&1';
  return startWatchdog([
    '-c',
    script,
    'crossfade-redis',
    name,
    '-p',
    `127.0.0.1:${port}:6379`,
    'redis:7-alpine',
    'redis-server',
    '--save',
    '',
    ...args,
  ]);
}

/** In a session of its own, so that Ctrl-C in the terminal reaches this process first and the pipe then does the rest. */
function startWatchdog(args: readonly string[]): ChildProcess {
  const child = spawn('/bin/sh', [...args], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
  child.unref();
  child.once('exit', () => child.stdin?.destroy());
  child.stdin?.on('error', () => undefined);
  if (child.stdin && 'unref' in child.stdin && typeof child.stdin.unref === 'function') child.stdin.unref();
  return child;
}

type Program = { readonly kind: 'server'; readonly path: string } | { readonly kind: 'docker' };

/** A server from PATH, else Debian's package, else Docker, else one line that says what to install. */
function findProgram(): Program {
  const path = onPath('redis-server') ?? onPath('valkey-server') ?? install('redis-server');
  if (path) return { kind: 'server', path };
  if (onPath('docker') && succeeds('docker', ['info'])) return { kind: 'docker' };
  throw new Error(
    process.platform === 'darwin'
      ? 'Redis is needed: brew install redis (or set REDIS_URL, or start Docker).'
      : 'Redis is needed: install redis-server or valkey-server with the package manager of this system (or set REDIS_URL, or start Docker).',
  );
}

/** Whether the server on `port` answers PING before it ends, within a minute (Docker may have to pull its image). */
async function answers(port: number, watchdog: ChildProcess, ca?: string): Promise<boolean> {
  for (const end = Date.now() + 60_000; Date.now() < end && watchdog.exitCode === null && watchdog.signalCode === null; ) {
    if (await pings(port, '127.0.0.1', ca)) return true;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return false;
}

async function pings(port: number, host = '127.0.0.1', ca?: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const ask = () => socket.write('PING\r\n');
    // Whether its certificate is good is what tests ask, not whether it runs.
    const socket = ca === undefined ? connect(port, host, ask) : connectTls({ port, host, ca, rejectUnauthorized: false }, ask);
    const settle = (answered: boolean) => {
      socket.destroy();
      resolve(answered);
    };
    socket.setTimeout(1000, () => settle(false));
    // One that wants a password first is up as well.
    socket.once('data', (data) => settle(/^(\+PONG|-NOAUTH)/.test(data.toString())));
    socket.once('error', () => settle(false));
    socket.once('close', () => settle(false));
  });
}
