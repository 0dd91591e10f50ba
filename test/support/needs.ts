import { onPath, succeeds } from '../../scripts/lib/programs.js';

/** A program that tests run beside Node.js. */
export interface Need {
  readonly name: string;
  /** Debian's packages for it. */
  readonly packages: readonly string[];
  isThere(): boolean;
  /** The tests that fail without it. */
  readonly tests: readonly string[];
}

const NEEDS: readonly Need[] = [
  {
    name: 'Redis',
    packages: ['redis-server'],
    isThere: () =>
      process.env['REDIS_URL'] !== undefined ||
      (onPath('redis-server') ?? onPath('valkey-server')) !== undefined ||
      (onPath('docker') !== undefined && succeeds('docker', ['info'])),
    tests: ['test/**/!(*.unit).test.ts'],
  },
  {
    name: 'nginx',
    packages: ['nginx'],
    isThere: () => onPath('nginx') !== undefined,
    tests: [
      'test/adoption/**',
      'test/deploy/**',
      'test/docs/deployment.test.ts',
      'test/e2e/nginx-observe.test.ts',
      'test/integration/what-if.test.ts',
      'test/scripts/bench.test.ts',
    ],
  },
  {
    name: 'Caddy',
    packages: ['caddy'],
    isThere: () => onPath('caddy') !== undefined,
    tests: ['test/deploy/manifests.test.ts', 'test/deploy/proxies.test.ts', 'test/http/verify.test.ts'],
  },
  {
    name: 'Chromium',
    packages: ['chromium', 'fonts-dejavu-core'],
    isThere: () => (onPath('chromium') ?? onPath('google-chrome')) !== undefined,
    tests: ['test/adoption/**', 'test/e2e/**'],
  },
  { name: 'wrk', packages: ['wrk'], isThere: () => onPath('wrk') !== undefined, tests: ['test/scripts/bench.test.ts'] },
  {
    name: 'Prometheus',
    packages: ['prometheus'],
    isThere: () => onPath('promtool') !== undefined,
    tests: ['test/deploy/**'],
  },
  {
    name: 'PHP with its Redis extension',
    packages: ['php-cli', 'php-redis'],
    isThere: () => succeeds('php', ['--ri', 'redis']),
    tests: ['test/adoption/**', 'test/e2e/returned.test.ts', 'test/formats/**', 'test/http/legacy-session.test.ts'],
  },
  {
    name: 'Django and Flask',
    packages: ['python3', 'python3-django', 'python3-flask'],
    isThere: () => succeeds('/usr/bin/python3', ['-c', 'import django, flask']),
    tests: ['test/adoption/**', 'test/formats/http.test.ts'],
  },
];

/** `scripts/test --no-install`. */
export const mayInstall = process.env['CROSSFADE_NO_INSTALL'] === undefined;

export function missingNeeds(): readonly Need[] {
  return NEEDS.filter((need) => !need.isThere());
}
