import { install } from '../../scripts/lib/programs.js';
import { mayInstall, missingNeeds } from './needs.js';

/**
 * Installs what tests need, at once and before any of them, where this process may: no test is to time out over it. Where it may not, the
 * tests that need something fail, and say what.
 */
export default function setup(): void {
  const missing = missingNeeds();
  if (missing.length === 0 || !mayInstall) return;
  const names = missing.map(({ name }) => name).join(', ');
  process.stderr.write(`The tests run ${names}, which this machine lacks: installing them. scripts/test --no-install skips those tests instead.\n`);
  const packages = missing.flatMap((need) => need.packages);
  install(packages[0] ?? '', packages);
}
