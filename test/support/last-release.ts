import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PACKED = fileURLToPath(new URL('../fixtures/crossfade-0.1.0.tgz', import.meta.url));
/** Inside of it Node.js finds the dependencies. Those that only the last release has are devDependencies. */
const MODULES = fileURLToPath(new URL('../../node_modules', import.meta.url));

export interface PackedRelease {
  /** Its command line. */
  readonly main: string;
  remove(): void;
}

/** Unpacks release 0.1.0, as npm would have packed it, but without types and docs. */
export function unpackLastRelease(): PackedRelease {
  return unpack(PACKED);
}

/** Packs this release as it is built, and unpacks it. */
export function packThisRelease(): PackedRelease {
  const directory = mkdtempSync(join(MODULES, '.this-release-'));
  try {
    const name = execFileSync('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', directory], {
      cwd: ROOT,
      encoding: 'utf8',
    }).trim();
    return unpack(join(directory, name));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function unpack(tarball: string): PackedRelease {
  const directory = mkdtempSync(join(MODULES, '.release-'));
  execFileSync('tar', ['-xzf', tarball, '-C', directory]);
  return { main: join(directory, 'package/dist/cli/main.js'), remove: () => rmSync(directory, { recursive: true, force: true }) };
}
