import { cpus } from 'node:os';
import { onPath } from '../lib/programs.js';

/** Whether there are two cores, and a program that gives each process one of them. */
export const canPin = cpus().length > 1 && onPath('taskset') !== undefined;

/** What binds a command to one core, where that can be done: what is measured has one of its own, all else shares the other. */
export function onCore(core: 'measured' | 'others'): readonly string[] {
  return canPin ? ['taskset', '-c', core === 'measured' ? '0' : '1'] : [];
}

/** A command, bound to a core. */
export function pinned(core: 'measured' | 'others', program: string, args: readonly string[]): { readonly command: string; readonly args: string[] } {
  const [command = program, ...rest] = [...onCore(core), program, ...args];
  return { command, args: rest };
}
