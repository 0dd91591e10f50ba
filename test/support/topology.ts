import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { vi } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { freePort } from '../../scripts/lib/free-port.js';
import { temporaryPaths } from '../../scripts/lib/nginx.js';
import { provide } from '../../scripts/lib/programs.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

const serviceSchema = z.object({
  build: z.union([z.string(), z.object({ context: z.string(), target: z.string() })]).optional(),
  image: z.string().optional(),
  pull_policy: z.string().optional(),
  entrypoint: z.array(z.string()).optional(),
  command: z.array(z.string()).optional(),
  environment: z.record(z.string(), z.string()).default({}),
  volumes: z.array(z.string()).default([]),
  ports: z.array(z.string()).default([]),
  depends_on: z.union([z.array(z.string()), z.record(z.string(), z.unknown())]).default([]),
  healthcheck: z.object({ test: z.array(z.string()) }).optional(),
  stop_grace_period: z.string().optional(),
  read_only: z.boolean().optional(),
});
const composeSchema = z.object({ services: z.record(z.string(), serviceSchema), volumes: z.record(z.string(), z.unknown()) });
export type ComposeService = z.output<typeof serviceSchema>;

/** docker-compose.yml as it is. */
export function readCompose(): z.output<typeof composeSchema> {
  return composeSchema.parse(parse(readFileSync(join(ROOT, 'docker-compose.yml'), 'utf8'), { merge: true }));
}

/** The list that an instruction of the Dockerfile holds: of a stage, without a name of the last one. That of `HEALTHCHECK` is its `CMD`. */
export function dockerInstruction(instruction: 'CMD' | 'ENTRYPOINT' | 'HEALTHCHECK', stage?: string): string[] {
  const stages = readFileSync(join(ROOT, 'Dockerfile'), 'utf8').split(/^FROM /m);
  const text = stage === undefined ? stages.at(-1) : stages.find((one) => one.split('\n')[0]?.endsWith(` AS ${stage}`));
  const start = instruction === 'HEALTHCHECK' ? ' +CMD' : instruction;
  const [, list = '[]'] = [...(text ?? '').matchAll(new RegExp(`^${start} (\\[.*\\])$`, 'gm'))].at(-1) ?? [];
  return z.array(z.string()).parse(JSON.parse(list));
}

/** The services of docker-compose.yml as processes of this machine: same files, same commands, same variables, other ports and paths. */
export interface Topology {
  /** What the public sees. */
  readonly url: string;
  /** Where a port of a service is, as in `bridge-1:8788`. */
  at(address: string): string;
  /** Where a path inside the containers is. */
  path(of: string): string;
  /** Runs what `init` runs, once more. */
  init(): Promise<void>;
  /** SIGTERM, the end, and a new start. */
  restart(service: string): Promise<void>;
  /** Stops a service in its tracks, and lets it go on. */
  signal(service: string, signal: 'SIGSTOP' | 'SIGCONT'): void;
  stop(): Promise<void>;
}

export interface TopologyOptions {
  readonly services: readonly string[];
  /** More lines of the bridges' configuration. */
  readonly config?: string;
}

/** What each image listens on that does not say so in docker-compose.yml. */
const PORTS: Readonly<Record<string, readonly number[]>> = {
  redis: [6379],
  legacy: [3000],
  'bridge-1': [8787, 8788],
  'bridge-2': [8787, 8788],
  nginx: [8080],
  prometheus: [9090],
};

export async function startTopology({ services, config = '' }: TopologyOptions): Promise<Topology> {
  const compose = readCompose();
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-topology-'));
  const addresses = new Map<string, number>();
  for (const [service, ports] of Object.entries(PORTS)) for (const port of ports) addresses.set(`${service}:${port}`, await freePort());
  const portOf = (address: string) => addresses.get(address) ?? 0;
  const publicPort = portOf('nginx:8080');
  writeProgram(join(directory, 'bin', 'crossfade'), `#!/bin/sh\nexec node ${ROOT}dist/cli/main.js "$@"\n`);
  const running = new Map<string, ChildProcess>();
  const said: string[] = [];

  /** Where each mount of a service is here. */
  function mountsOf(name: string): ReadonlyMap<string, string> {
    const { volumes } = serviceOf(name);
    return new Map(
      volumes.map((volume) => {
        const [source = '', target = ''] = volume.split(':');
        return [target, join(directory, source.startsWith('.') ? `${name}${target}` : source)];
      }),
    );
  }

  function serviceOf(name: string): ComposeService {
    const service = compose.services[name];
    if (!service) throw new Error(`docker-compose.yml has no service ${name}`);
    return service;
  }

  /** The same text with the paths and addresses of this machine. */
  function localise(text: string, name: string): string {
    const mounts = [...mountsOf(name)].sort(([one], [other]) => other.length - one.length);
    const withPaths = mounts.reduce(
      (done, [target, local]) => done.replaceAll(new RegExp(`(?<![\\w.-])${target}(?=[/\\s"',;)]|$)`, 'gm'), local),
      text,
    );
    return withPaths
      .replaceAll(/\b([a-z][a-z0-9-]*):(\d{4})\b/g, (whole, host: string, port: string) =>
        addresses.has(`${host}:${port}`) ? `127.0.0.1:${portOf(`${host}:${port}`)}` : whole,
      )
      .replaceAll('localhost:8080', `localhost:${publicPort}`)
      .replaceAll(/\bport: (8787|8788)\b/g, (whole, port: string) =>
        addresses.has(`${name}:${port}`) ? `port: ${portOf(`${name}:${port}`)}` : whole,
      )
      .replaceAll('listen 8080;', `listen 127.0.0.1:${publicPort};`);
  }

  function copyMounts(name: string): void {
    for (const volume of serviceOf(name).volumes) {
      const [source = '', target = ''] = volume.split(':');
      const local = mountsOf(name).get(target) ?? '';
      if (!source.startsWith('.')) mkdirSync(local, { recursive: true });
      else {
        mkdirSync(dirname(local), { recursive: true });
        cpSync(resolve(ROOT, source), local, { recursive: true });
        for (const file of filesIn(local)) {
          const more = file.endsWith('/crossfade.yaml') ? config : '';
          writeFileSync(file, localise(readFileSync(file, 'utf8'), name) + more);
        }
      }
    }
  }

  function commandOf(name: string): string[] {
    const { build, image, entrypoint, command } = serviceOf(name);
    const [program = ''] = (image ?? '').split('/').at(-1)?.split(':') ?? [];
    switch (program) {
      case 'redis':
        return [...(command ?? []), '--port', String(portOf('redis:6379')), '--bind', '127.0.0.1', '--dir', join(directory, 'redis')];
      case 'nginx':
        return ['nginx', '-p', directory, '-c', writeNginx(mountsOf(name).get('/etc/nginx/conf.d/default.conf') ?? '')];
      case 'prometheus':
        return ['prometheus', ...(command ?? []), `--web.listen-address=127.0.0.1:${portOf('prometheus:9090')}`].map((word) =>
          word.replace('=/prometheus', `=${directory}/prometheus-data`),
        );
      default: {
        const target = typeof build === 'object' ? build.target : undefined;
        return [...(entrypoint ?? dockerInstruction('ENTRYPOINT', target)), ...(command ?? dockerInstruction('CMD', target))];
      }
    }
  }

  /** The image's own nginx.conf, which includes the mounted file in `http`. */
  function writeNginx(mounted: string): string {
    const file = join(directory, 'nginx.conf');
    mkdirSync(join(directory, 'logs'), { recursive: true });
    writeFileSync(
      file,
      `daemon off; pid ${directory}/nginx.pid; error_log ${directory}/logs/error.log; events {} http { access_log off; ${temporaryPaths(directory)} include ${mounted}; }`,
    );
    return file;
  }

  function spawnService(name: string): ChildProcess {
    copyMounts(name);
    const [program = '', ...args] = commandOf(name).map((word) => localise(word, name));
    if (program !== 'sh' && program !== 'crossfade') provide(program, [program === 'redis-server' ? 'redis-server' : program]);
    const environment = Object.entries(serviceOf(name).environment).map(
      ([variable, value]) => [variable, variable === 'PORT' ? String(portOf(`${name}:${value}`)) : localise(value, name)] as const,
    );
    const child = spawn(program, args, {
      cwd: ROOT,
      env: { PATH: `${directory}/bin:${process.env['PATH'] ?? ''}`, HOME: directory, ...Object.fromEntries(environment), HOST: '127.0.0.1' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => said.push(`${name}: ${String(data)}`));
    return child;
  }

  async function init(): Promise<void> {
    const child = spawnService('init');
    const [code] = await once(child, 'exit');
    if (code !== 0) throw new Error(`init ended with ${code}: ${said.join('')}`);
  }

  const at = (address: string) => `http://127.0.0.1:${portOf(address)}`;

  async function isUp(name: string): Promise<void> {
    const child = running.get(name);
    const probe = name.startsWith('bridge') ? `${at(`${name}:8788`)}/readyz` : at(`${name}:${PORTS[name]?.[0] ?? 0}`);
    await vi.waitFor(
      async () => {
        if (child?.exitCode !== null) throw new Error(`${name} has ended: ${said.join('')}`);
        if (name === 'redis') return;
        const { ok } = await fetch(probe);
        if (!ok) throw new Error(`${name} is not ready`);
      },
      { timeout: 20_000, interval: 50 },
    );
  }

  async function start(name: string): Promise<void> {
    running.set(name, spawnService(name));
    await isUp(name);
  }

  async function end(name: string, signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null> {
    const child = running.get(name);
    if (!child || child.exitCode !== null) return null;
    const gone = once(child, 'exit');
    child.kill(signal);
    const [code] = await gone;
    return code;
  }

  async function stop(): Promise<void> {
    // nginx has to end its workers by itself.
    for (const name of [...running.keys()].reverse()) await end(name, name === 'nginx' ? 'SIGTERM' : 'SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  }

  try {
    await init();
    for (const name of services) await start(name);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url: `http://localhost:${publicPort}`,
    at,
    path: (of) => localise(of, 'init'),
    init,
    async restart(name) {
      const code = await end(name, 'SIGTERM');
      if (code !== 0) throw new Error(`${name} ended with ${code}: ${said.slice(-20).join('')}`);
      await start(name);
    },
    signal: (name, signal) => void running.get(name)?.kill(signal),
    stop,
  };
}

function writeProgram(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text, { mode: 0o755 });
}

function filesIn(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path, { recursive: true, encoding: 'utf8' })
    .map((name) => join(path, name))
    .filter((file) => statSync(file).isFile());
}
