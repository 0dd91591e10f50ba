import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const PACKED = fileURLToPath(new URL('../fixtures/crossfade-0.1.0.tgz', import.meta.url));
/** Inside of it Node.js finds the dependencies, which are the same. */
const MODULES = fileURLToPath(new URL('../../node_modules', import.meta.url));

export interface LastRelease {
  /** Its command line. */
  readonly main: string;
  remove(): void;
}

/** Unpacks release 0.1.0, as npm would have packed it, but without types and docs. */
export function unpackLastRelease(): LastRelease {
  const directory = mkdtempSync(join(MODULES, '.last-release-'));
  execFileSync('tar', ['-xzf', PACKED, '-C', directory]);
  return { main: join(directory, 'package/dist/cli/main.js'), remove: () => rmSync(directory, { recursive: true, force: true }) };
}
