import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { freePort } from '../../scripts/lib/free-port.js';
import { init } from '../../src/cli/init.js';
import { dockerInstruction } from '../support/topology.js';
import { remember } from '../support/transcript.js';
import { sharedRedisUrl } from '../support/world.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const NOBODY = 65534;
/** Whoever runs this without being root is a user without rights already. */
const isRoot = process.getuid?.() === 0;

interface Stage {
  readonly name: string;
  readonly from: string;
  readonly lines: readonly string[];
}

/**
 * Where no Docker engine runs, the Dockerfile is carried out here: each stage in a directory of its own, with its COPY and RUN lines as they
 * stand, out of a build context that holds what .dockerignore lets in and nothing else.
 */
function readStages(): Stage[] {
  const text = readFileSync(join(ROOT, 'Dockerfile'), 'utf8').replaceAll(/\\\n\s*/g, '');
  return text
    .split(/^FROM /m)
    .slice(1)
    .map((stage) => {
      const [head = '', ...lines] = stage.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
      const [from = '', name = ''] = head.split(' AS ');
      return { name, from, lines };
    });
}

let directory: string;
let context: string;
const stages = readStages();

function rootOf(stage: string): string {
  return join(directory, stage);
}

function build({ name, from, lines }: Stage): void {
  const root = rootOf(name);
  if (stages.some((stage) => stage.name === from)) cpSync(rootOf(from), root, { recursive: true, verbatimSymlinks: true });
  else mkdirSync(root);
  let workdir = stages.some((stage) => stage.name === from) ? '/src' : '/';
  for (const line of lines) {
    const [instruction = ''] = line.split(' ');
    const rest = line.slice(instruction.length + 1);
    if (instruction === 'WORKDIR') {
      workdir = rest;
      mkdirSync(join(root, workdir), { recursive: true });
    } else if (instruction === 'COPY') copy(rest, root, workdir);
    else if (instruction === 'RUN') {
      mkdirSync(join(root, 'usr/local/bin'), { recursive: true });
      const command = rest.replaceAll(/(?<=\s)\/(?=usr\/|state)/g, `${root}/`).replace('-o node -g node ', '');
      execFileSync('sh', ['-ec', command.replace('ln -s /app/', `ln -s ${root}/app/`)], { cwd: join(root, workdir), stdio: 'pipe' });
    }
  }
}

function copy(rest: string, root: string, workdir: string): void {
  const [, stage] = /^--from=(\w+) /.exec(rest) ?? [];
  const [target = '', ...sources] = rest
    .replace(/^--from=\w+ /, '')
    .split(' ')
    .reverse();
  for (const source of sources) {
    const path = join(stage === undefined ? context : rootOf(stage), source);
    const into = join(root, workdir, target);
    cpSync(path, target.endsWith('/') && stage === undefined ? join(into, source.split('/').at(-1) ?? '') : into, { recursive: true });
  }
}

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'crossfade-docker-'));
  context = join(directory, 'context');
  mkdirSync(context);
  for (const line of readFileSync(join(ROOT, '.dockerignore'), 'utf8')
    .split('\n')
    .filter((one) => one.startsWith('!')))
    cpSync(join(ROOT, line.slice(1)), join(context, line.slice(1)), { recursive: true });
  for (const stage of stages) build(stage);
}, 300_000);
afterAll(() => {
  makeWritable(directory);
  rmSync(directory, { recursive: true, force: true });
});

function makeWritable(path: string): void {
  if (existsSync(path)) execFileSync('chmod', ['-R', 'u+w', path]);
}

it('what the Dockerfile builds serves as a user without rights, on files that nobody may write, and its health check tells', async () => {
  const image = rootOf('bridge');
  expect(readdirSync(join(image, 'app')).sort()).toEqual(['dist', 'node_modules', 'package-lock.json', 'package.json']);
  expect(existsSync(join(image, 'app/node_modules/vitest'))).toBe(false);

  const port = await freePort();
  const adminPort = await freePort();
  const etc = join(directory, 'etc');
  init(etc, { issuer: `http://127.0.0.1:${port}`, redis: sharedRedisUrl(), format: 'php', subject: 'user.id' });
  remember(readFileSync(join(etc, 'fleet-secret'), 'utf8').trim());
  const file = join(etc, 'crossfade.yaml');
  const prefix = `crossfade-docker-${process.pid}:`;
  writeFileSync(
    file,
    readFileSync(file, 'utf8')
      .replace('8787 }', `${port} }`)
      .replace('8788,', `${adminPort},`)
      .replace(/^redis:$/m, `redis:\n  keyPrefix: "${prefix}"`),
  );
  if (isRoot) execFileSync('chown', ['-R', `${NOBODY}:${NOBODY}`, etc]);
  execFileSync('chmod', ['-R', 'a-w', image, etc]);
  chmodSync(directory, 0o755);

  const [entry = ''] = dockerInstruction('ENTRYPOINT');
  const args = dockerInstruction('CMD').map((word) => (word.startsWith('/etc/') ? file : word));
  const child = spawn(join(image, 'usr/local/bin', entry), args, {
    ...(isRoot ? { uid: NOBODY, gid: NOBODY } : {}),
    cwd: join(image, 'app'),
    stdio: 'ignore',
  });
  try {
    const health = dockerInstruction('HEALTHCHECK').map((word) => word.replace('8788', String(adminPort)));
    const [program = '', ...words] = health;
    const isHealthy = () => {
      execFileSync(program, words, { stdio: 'ignore' });
    };
    await vi.waitFor(isHealthy, { timeout: 20_000 });
    expect((await fetch(`http://127.0.0.1:${adminPort}/readyz?for=issue`)).status).toBe(200);
    expect((await fetch(`http://127.0.0.1:${port}/auth/verify`)).status).toBe(401);
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await gone).toEqual([0, null]);
    expect(isHealthy).toThrow();
    expect(statSync(join(image, 'app')).mode & 0o222).toBe(0);
  } finally {
    child.kill('SIGKILL');
  }
}, 60_000);
