import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../scripts/lib/free-port.js';
import { startNginx } from '../../scripts/lib/nginx.js';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { STAGES, type Stage } from '../../src/stages.js';
import { remember } from '../support/transcript.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PAGE = readFileSync(new URL('../../docs/getting-started.md', import.meta.url), 'utf8');
/** The app's own secret, as the page calls it. */
const SECRET = 'the-secret-in-app.keys';

/** An app as its framework's own guide writes it, and what it takes to adopt the bridge. */
export interface AdoptedApp {
  readonly name: string;
  /** What runs it, before the file. */
  readonly program: (redisPort: number) => readonly [program: string, ...args: string[]];
  readonly before: string;
  readonly after: string;
  /** What `crossfade init` is told beside issuer and Redis. */
  readonly init: readonly string[];
  /** What `crossfade check --sample` is told; undefined: it keeps no records. */
  readonly sample?: readonly string[];
  /** Whether the bridge is middleware of the app; else it stands beside it, behind nginx. */
  readonly isInApp?: boolean;
}

export interface Adoption {
  /** Where the app's people go. */
  readonly url: string;
  /** Puts the app with the bridge in the place of the app without. */
  adopt(): Promise<void>;
  /** A command of the page, as the operator types it. */
  run(script: string): Promise<{ readonly status: number | null; readonly output: string }>;
  /** What the page's commands printed, by how they begin. */
  readonly printed: ReadonlyMap<string, string>;
  /** Edits the flags file as the page says. */
  setStage(stage: Stage): void;
  /** Keys that the app's Redis has beside the bridge's. */
  records(): Promise<number>;
  close(): Promise<void>;
}

/** Starts the app alone. `publicUrl`: where browsers find it, if something stands before it. */
export async function startAdoption(app: AdoptedApp, publicUrl?: string): Promise<Adoption> {
  remember(SECRET);
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-adoption-'));
  const redis = await startRedis();
  const [appPort, edgePort, port, adminPort] = [await freePort(), await freePort(), await freePort(), await freePort()];
  const url = `http://127.0.0.1:${app.isInApp ? appPort : edgePort}`;
  const issuer = publicUrl ?? url;
  const printed = new Map<string, string>();
  const running: ChildProcess[] = [];
  let nginx: Awaited<ReturnType<typeof startNginx>> | undefined;
  mkdirSync(join(directory, 'bin'));
  writeFileSync(join(directory, 'bin', 'crossfade'), `#!/bin/sh\nexec node ${ROOT}dist/cli/main.js "$@"\n`);
  chmodSync(join(directory, 'bin', 'crossfade'), 0o755);

  /** Resolves once something answers at `at`. */
  async function start(program: string, args: readonly string[], env: Record<string, string>, at: number, cwd = ROOT): Promise<ChildProcess> {
    const child = spawn(program, [...args], { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
    running.push(child);
    for (const end = Date.now() + 30_000; ; ) {
      if (child.exitCode !== null || Date.now() > end) throw new Error(`${program} ended with ${child.exitCode}, or does not answer:\n${said}`);
      const answers = await fetch(`http://127.0.0.1:${at}/`, { redirect: 'manual' }).then(
        () => true,
        () => false,
      );
      if (answers) return child;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async function stop(child: ChildProcess | undefined): Promise<void> {
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    await gone;
  }

  const startApp = async (file: string) => {
    const [program, ...args] = app.program(redis.port);
    const env = {
      REDIS_URL: redis.url,
      SESSION_SECRET: SECRET,
      PORT: String(appPort),
      CROSSFADE_CONFIG: join(directory, 'crossfade.yaml'),
      PYTHONDONTWRITEBYTECODE: '1',
    };
    const filled = args.map((arg) => arg.replace('PORT', String(appPort)));
    return await start(program, [...filled, fileURLToPath(new URL(file, import.meta.url))], env, appPort);
  };

  async function run(script: string): Promise<{ status: number | null; output: string }> {
    const child = spawn('sh', ['-e', '-c', script], {
      cwd: directory,
      env: { ...process.env, PATH: `${directory}/bin:${process.env['PATH']}` },
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const [status]: (number | null)[] = await once(child, 'close');
    return { status: status ?? null, output };
  }

  /** The commands of the page up to the start, for this app's own Redis, format and URL. */
  async function followPage(): Promise<void> {
    const blocks = [...PAGE.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, text = '']) => text.replaceAll('redis://127.0.0.1:6379/0', redis.url));
    for (const block of blocks) {
      if (block.startsWith('curl')) break;
      if (block.startsWith('crossfade serve')) continue;
      if (block.startsWith('crossfade check --sample') && !app.sample) continue;
      const script = block
        .replace('--cookie koa.sess --subject user.id --tenant user.tenant', (app.sample ?? []).join(' '))
        .replace('--cookie koa.sess --subject user.id', app.init.join(' '))
        .replace('http://localhost:8787', issuer);
      // An app that signs no cookie has no secrets of cookies.
      if (script.startsWith('echo') && !printed.get('crossfade init')?.includes('session-secrets')) continue;
      const { status, output } = await run(script);
      if (status !== 0) throw new Error(`${script} ended with ${status}:\n${output}`);
      printed.set(script.split(' ').slice(0, 2).join(' '), output);
      if (script.startsWith('crossfade init')) {
        const path = join(directory, 'crossfade.yaml');
        const text = readFileSync(path, 'utf8').replace('port: 8787', `port: ${port}`).replace('port: 8788', `port: ${adminPort}`);
        writeFileSync(path, text.replace('http://127.0.0.1:8000/whoami', `http://127.0.0.1:${appPort}/whoami`));
        for (const name of ['fleet-secret', 'admin-token']) remember(readFileSync(join(directory, name), 'utf8').trim());
      }
    }
  }

  const edge = async (locations: string) => {
    await nginx?.stop();
    nginx = await startNginx([`http://127.0.0.1:${port}`], locations, edgePort);
  };
  const open = `include crossfade-open.conf; proxy_pass http://127.0.0.1:${appPort};`;
  let current = await startApp(app.before);
  if (!app.isInApp) await edge(`location / { ${open} }`);

  return {
    url,
    printed,
    run,
    async adopt() {
      if (app.sample) await followPage();
      await stop(current);
      // An app that is asked must be there for `check`.
      if (!app.isInApp || !app.sample) current = await startApp(app.after);
      if (!app.sample) await followPage();
      if (app.isInApp) {
        current = await startApp(app.after);
        return;
      }
      await start(join(directory, 'bin', 'crossfade'), ['serve'], {}, port, directory);
      await edge(
        `location /api/ { include crossfade-guard.conf; proxy_pass http://127.0.0.1:${appPort}; }
         location = /whoami { return 404; }
         location / { ${open} }`,
      );
    },
    setStage(stage) {
      const path = join(directory, 'flags.json');
      const flags: { flags: Record<string, { version: number; fallthrough: object }> } = JSON.parse(readFileSync(path, 'utf8'));
      const flag = flags.flags['auth-migration-stage'];
      const order = ['session-only', 'shadow', 'dual', 'jwt-preferred', 'jwt-only', 'recall'];
      if (!flag || !STAGES.includes(stage)) throw new Error('the flags file is not what init writes');
      flag.fallthrough = { variation: order.indexOf(stage) };
      writeFileSync(path, JSON.stringify(flags));
    },
    async records() {
      const { output } = await run(`redis-cli -p ${redis.port} --scan | grep -vc '^crossfade:' || true`);
      return Number(output.trim());
    },
    async close() {
      await nginx?.stop();
      for (const child of running) await stop(child);
      await redis.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** Lines that are new in `after`, without those that are empty. */
export function linesChanged({ before, after }: Pick<AdoptedApp, 'before' | 'after'>): string[] {
  const read = (file: string) =>
    readFileSync(new URL(file, import.meta.url), 'utf8')
      .split('\n')
      .filter((line) => line.trim() !== '');
  const left = read(before);
  return read(after).filter((line) => {
    const at = left.indexOf(line);
    if (at < 0) return true;
    left.splice(at, 1);
    return false;
  });
}
