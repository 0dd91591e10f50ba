import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { APP_SPECS, type Measure } from './rows.js';

const DIRECTORY = fileURLToPath(new URL('../bench-peers', import.meta.url));
const OWN = /^(bare|throw|bridge|koa-session|haproxy|nginx)/;

/** Installs the packages of the peers, where any is measured and they are not there. One that cannot be had is skipped by its name later. */
export async function installPeers(measures: readonly Measure[], say: (what: string) => void): Promise<void> {
  const needed = measures.some(({ app }) => !OWN.test(APP_SPECS[app].app));
  if (!needed || existsSync(`${DIRECTORY}/node_modules/.package-lock.json`)) return;
  say('installing the peers (npm ci in scripts/bench-peers)');
  try {
    execFileSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: DIRECTORY, stdio: ['ignore', 'ignore', 'inherit'] });
  } catch {
    say('they could not be installed');
  }
}
