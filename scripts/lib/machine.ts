import { execFileSync } from 'node:child_process';
import { cpus, release, totalmem } from 'node:os';

/** What something was run on, and which revision it was. */
export interface Machine {
  readonly node: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGib: number;
  readonly system: string;
  readonly revision: string;
  readonly date: string;
}

export function readMachine(): Machine {
  return {
    node: process.version,
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    system: `${process.platform} ${release()}`,
    revision: revision(),
    date: new Date().toISOString().slice(0, 10),
  };
}

/** In one line, for people. */
export function describeMachine({ node, cpu, cores, memoryGib, system, revision: at, date }: Machine): string {
  return `Node ${node}, ${cores} cores (${cpu}), ${memoryGib} GiB, ${system}; ${date}, ${at}`;
}

function revision(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return 'unknown';
  }
}
