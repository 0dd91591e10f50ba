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

/**
 * A program that is there and `works`, else out of Debian's packages, where this process may install them.
 * @throws where it is not to be had, with what to install.
 */
export function provide(program: string, packages: readonly string[] = [program], works: (path: string) => boolean = () => true): string {
  const isThere = (path: string | undefined): path is string => path !== undefined && works(path);
  const path = onPath(program);
  if (isThere(path)) return path;
  const installed = install(program, packages);
  if (isThere(installed)) return installed;
  throw new Error(`${program} is needed: install ${packages.join(' and ')} with the package manager of this system.`);
}

/** A program of Debian's packages. `policy-rc.d` keeps them from starting a service of their own. */
export function install(program: string, packages: readonly string[] = [program]): string | undefined {
  if (!onPath('apt-get') || process.getuid?.() !== 0) return undefined;
  process.stderr.write(`Installing ${packages.join(', ')} with apt-get …\n`);
  const policy = '/usr/sbin/policy-rc.d';
  const holdServices = !existsSync(policy);
  if (holdServices) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    const command = ['install', '-y', '-qq', '--no-install-recommends', ...packages];
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
