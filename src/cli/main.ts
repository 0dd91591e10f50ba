#!/usr/bin/env node
import { print } from './print.js';

// Before it has read anything there is nothing to read again: `serve` listens for that itself once it is loaded.
if (process.argv[2] === 'serve') process.on('SIGHUP', () => undefined);

// The rest is loaded below, so that what fails while it is loaded is said in words as well.

/** Of an error that comes from the system itself, what it means and what to do. */
const SYSTEM: Readonly<Record<string, string>> = {
  EMFILE: 'this process may not open more files: raise its limit (ulimit -n, LimitNOFILE), 1024 is enough for a start',
  ERR_MODULE_NOT_FOUND: 'a part of the program cannot be loaded: is it installed whole, and may it open enough files (ulimit -n)?',
  ENFILE: 'this machine has no more files to open: look what holds them',
  ENOSPC: 'no space is left, on the disk or for watches (fs.inotify.max_user_watches)',
  EACCES: 'this user may not do that: look at the permissions',
};

function describe(error: unknown): string {
  if (!(error instanceof Error)) return 'something failed';
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  const meaning = SYSTEM[code];
  return meaning === undefined ? error.message : `${meaning} (${code})`;
}

process.on('uncaughtException', (error) => {
  const isOfSystem = 'code' in error && typeof error.code === 'string' && error.code in SYSTEM;
  print.error(isOfSystem ? describe(error) : (error.stack ?? error.message));
  process.exit(2);
});

await import('./program.js').catch((error: unknown) => {
  print.error(describe(error));
  // What was opened before it failed would keep the process.
  process.exit(2);
});
