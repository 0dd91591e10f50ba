import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { record } from './transcript.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

export interface CliResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The command line as a process of its own. */
export async function runCli(args: readonly string[], cwd = ROOT): Promise<CliResult> {
  const child = start(args, cwd);
  const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
  const [status]: (number | null)[] = await once(child, 'close');
  record(stdout() + stderr());
  return { status: status ?? null, stdout: stdout(), stderr: stderr() };
}

export interface RunningCli {
  readonly process: ChildProcess;
  /** Resolves with the first log line that has this message. */
  logged(message: string): Promise<Record<string, unknown>>;
  /** Resolves with the exit status. */
  ended(): Promise<number | null>;
}

export function startCli(args: readonly string[], cwd = ROOT): RunningCli {
  const child = start(args, cwd);
  const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
  const ended = once(child, 'close').then(([status]: (number | null)[]) => {
    record(stdout() + stderr());
    return status ?? null;
  });
  const find = (message: string): Record<string, unknown> | undefined =>
    stdout()
      .split('\n')
      .flatMap((line): Record<string, unknown>[] => (line.startsWith('{') && line.endsWith('}') ? [JSON.parse(line)] : []))
      .find((line) => line['msg'] === message);
  return {
    process: child,
    async logged(message) {
      for (;;) {
        const found = find(message);
        if (found) return found;
        if (child.exitCode !== null) throw new Error(`ended without saying: ${message}`);
        await Promise.race([child.stdout && once(child.stdout, 'data'), ended]);
      }
    },
    ended: async () => await ended,
  };
}

function start(args: readonly string[], cwd: string): ChildProcess {
  const tsx = import.meta.resolve('tsx');
  return spawn(process.execPath, ['--import', tsx, MAIN, ...args], { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  let text = '';
  stream?.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  return () => text;
}
