import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import type { AppSettings } from './apps.js';
import { pinned } from './cores.js';

const started = z.object({ port: z.number(), startMs: z.number() });
const usage = z.object({ cpuMicros: z.number(), heapBytes: z.number(), rssBytes: z.number() });
export type Usage = z.output<typeof usage>;

/** An app that runs in a process of its own. */
export interface RunningApp {
  readonly port: number;
  /** From the first line of its process to listening. */
  readonly startMs: number;
  usage(): Promise<Usage>;
  /** The same after a garbage collection. */
  memory(): Promise<Usage>;
  stop(): Promise<void>;
}

const SCRIPT = fileURLToPath(new URL('app-process.ts', import.meta.url));

/** @throws where it does not come up. */
export async function startApp(settings: AppSettings, nodeOptions: readonly string[] = []): Promise<RunningApp> {
  const { command, args } = pinned('measured', process.execPath, [
    '--expose-gc',
    ...nodeOptions,
    '--import',
    'tsx',
    SCRIPT,
    JSON.stringify(settings),
  ]);
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  let complaints = '';
  child.stderr?.on('data', (data: Buffer) => {
    complaints += data.toString();
  });
  const first = await Promise.race([next(child), once(child, 'exit').then(() => undefined)]);
  if (first === undefined) throw new Error(`${settings.app} did not start: ${complaints.trim()}`);
  const { port, startMs } = started.parse(first);

  async function ask(question: 'usage' | 'memory'): Promise<Usage> {
    const answer = next(child);
    child.send(question);
    return usage.parse(await answer);
  }

  return {
    port,
    startMs,
    usage: async () => await ask('usage'),
    memory: async () => await ask('memory'),
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.disconnect();
      await gone;
    },
  };
}

async function next(child: ChildProcess): Promise<unknown> {
  const [message] = await once(child, 'message');
  return message;
}
