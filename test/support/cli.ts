import { type CliResult, type RunningCli as RunningProcess, runCli as runProcess, startCli as startProcess } from '../../scripts/lib/cli-process.js';
import { record } from './transcript.js';

/** The command line as a process of its own; what it prints is searched for secrets at the end of the run. */
export async function runCli(args: readonly string[], cwd?: string, input?: string, main?: string): Promise<CliResult> {
  const result = await runProcess(args, cwd, input, main);
  record(tells(args) ? result.stderr : result.stdout + result.stderr);
  return result;
}

/** To print somebody's subject, or a new key, is what these are for. */
function tells(args: readonly string[]): boolean {
  return args[0] === 'explain' || args.includes('--stdout');
}

export interface RunningCli extends Omit<RunningProcess, 'ended'> {
  /** Resolves with the exit status. */
  ended(): Promise<number | null>;
}

export function startCli(args: readonly string[], cwd?: string, env?: Readonly<Record<string, string>>, main?: string): RunningCli {
  const running = startProcess(args, cwd, env, main);
  const ended = running.ended().then(({ status, text }) => {
    record(text);
    return status;
  });
  return { ...running, ended: async () => await ended };
}
