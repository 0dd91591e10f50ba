import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface CliResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The command line as a process of its own; `input` is what stands on its standard input. `main`: the program of another release. */
export async function runCli(args: readonly string[], cwd = ROOT, input = '', main = MAIN): Promise<CliResult> {
  const child = start(args, cwd, {}, main);
  child.stdin?.end(input);
  const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
  const [status]: (number | null)[] = await once(child, 'close');
  return { status: status ?? null, stdout: stdout(), stderr: stderr() };
}

export interface RunningCli {
  readonly process: ChildProcess;
  /** Resolves with the first log line that has this message, from line `from` on. */
  logged(message: string, from?: number): Promise<Record<string, unknown>>;
  /** All log lines so far. */
  readonly lines: readonly Record<string, unknown>[];
  /** All that it has printed so far. */
  text(): string;
  /** Resolves with the exit status, and with all that it has printed. */
  ended(): Promise<{ readonly status: number | null; readonly text: string }>;
}

/** `main`: the program, where it is not this release's own. */
export function startCli(args: readonly string[], cwd = ROOT, env: Readonly<Record<string, string>> = {}, main = MAIN): RunningCli {
  const child = start(args, cwd, env, main);
  child.stdin?.end();
  const stderr = collect(child.stderr);
  const lines: Record<string, unknown>[] = [];
  const waiting = new Set<() => void>();
  let unfinished = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    const [last = '', ...whole] = (unfinished + chunk.toString()).split('\n').reverse();
    unfinished = last;
    for (const line of whole.reverse()) if (line.startsWith('{')) lines.push(JSON.parse(line));
    for (const look of waiting) look();
  });
  const ended = once(child, 'close').then(([status]: (number | null)[]) => {
    for (const look of waiting) look();
    return { status: status ?? null, text: text() };
  });
  const text = () => lines.map((line) => JSON.stringify(line)).join('\n') + unfinished + stderr();
  return {
    process: child,
    lines,
    text,
    logged: async (message, from = 0) =>
      await new Promise((resolve, reject) => {
        let at = from;
        const look = () => {
          for (; at < lines.length; at++) {
            const line = lines[at];
            if (line?.['msg'] !== message) continue;
            waiting.delete(look);
            resolve(line);
            return;
          }
          if (child.exitCode !== null || child.signalCode !== null) reject(new Error(`ended without saying: ${message}\n${stderr()}`));
        };
        waiting.add(look);
        look();
      }),
    ended: async () => await ended,
  };
}

/** What Node.js is started with, so that it is the command line with these arguments. */
export function cliArguments(args: readonly string[], main = MAIN): readonly string[] {
  return [main, ...args];
}

function start(args: readonly string[], cwd: string, env: Readonly<Record<string, string>> = {}, main = MAIN): ChildProcess {
  return spawn(process.execPath, cliArguments(args, main), { cwd, env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'] });
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  let text = '';
  stream?.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  return () => text;
}
