import { install, onPath, succeeds } from '../../scripts/lib/programs.js';

/** What tests need beside Node.js and Redis, with Debian's packages for it. */
const NEEDED: readonly (readonly [isThere: () => boolean, ...packages: string[]])[] = [
  [() => onPath('nginx') !== undefined, 'nginx'],
  [() => onPath('caddy') !== undefined, 'caddy'],
  [() => onPath('chromium') !== undefined, 'chromium', 'fonts-dejavu-core'],
  [() => onPath('wrk') !== undefined, 'wrk'],
  [() => onPath('promtool') !== undefined, 'prometheus'],
  [() => succeeds('php', ['--ri', 'redis']), 'php-cli', 'php-redis'],
  [() => succeeds('/usr/bin/python3', ['-c', 'import django, flask']), 'python3', 'python3-django', 'python3-flask'],
];

/**
 * Installs it at once, before any test, where this process may: no test is to time out over it. Where it may not, those tests that need
 * something fail by themselves, and say what.
 */
export default function setup(): void {
  const missing = NEEDED.flatMap(([isThere, ...packages]) => (isThere() ? [] : packages));
  const [first] = missing;
  if (first !== undefined) install(first, missing);
}
