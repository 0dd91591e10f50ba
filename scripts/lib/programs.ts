import { execFileSync } from 'node:child_process';
import { accessSync, constants, existsSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Where a program is on PATH; undefined: nowhere. */
export function onPath(program: string): string | undefined {
  return (process.env['PATH'] ?? '')
    .split(delimiter)
    .map((directory) => join(directory, program))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** A program of Debian's package, where this process may install it. `policy-rc.d` keeps the package from starting a service of its own. */
export function install(program: string): string | undefined {
  if (!onPath('apt-get') || process.getuid?.() !== 0) return undefined;
  process.stderr.write(`Installing ${program} with apt-get …\n`);
  const policy = '/usr/sbin/policy-rc.d';
  const holdServices = !existsSync(policy);
  if (holdServices) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    const command = ['install', '-y', '-qq', '--no-install-recommends', program];
    if (!succeeds('apt-get', command) && !(succeeds('apt-get', ['update', '-qq']) && succeeds('apt-get', command))) return undefined;
  } finally {
    if (holdServices) rmSync(policy, { force: true });
  }
  return onPath(program);
}

export function succeeds(program: string, args: readonly string[]): boolean {
  try {
    execFileSync(program, [...args], { stdio: 'ignore', env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } });
    return true;
  } catch {
    return false;
  }
}
