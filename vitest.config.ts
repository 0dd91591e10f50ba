import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import { mayInstall, missingNeeds } from './test/support/needs.js';

/** What cannot run here, where nothing may be installed. */
const skipped = mayInstall ? [] : missingNeeds();
if (skipped.length > 0 && process.env['CI']) throw new Error(`CI runs every test, but ${skipped.map(({ name }) => name).join(', ')} is missing`);
// This file is read once for each project.
if (skipped.length > 0 && !process.env['CROSSFADE_SKIPS_SAID']) {
  process.env['CROSSFADE_SKIPS_SAID'] = '1';
  for (const { name, packages, tests } of skipped)
    process.stderr.write(`Skipped, because ${name} is missing (${packages.join(', ')}): ${tests.join(', ')}\n`);
}

export default defineConfig({
  test: {
    // Tests wait for servers more than they compute.
    maxWorkers: Math.max(3, availableParallelism() - 1),
    testTimeout: 60_000,
    hookTimeout: 60_000,
    expect: { poll: { timeout: 20_000 } },
    projects: [
      {
        // Needs nothing but Node.js: no Redis, no other program, no build.
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.unit.test.ts'],
          globalSetup: ['test/support/run-directory.ts'],
          setupFiles: ['test/support/record-answers.ts'],
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'servers',
          include: ['test/**/!(*.unit).test.ts'],
          exclude: ['test/law-8.test.ts', ...skipped.flatMap(({ tests }) => tests)],
          globalSetup: ['test/support/installed.ts', 'test/support/built.ts', 'test/support/run-directory.ts', 'test/support/run-redis.ts'],
          setupFiles: ['test/support/record-answers.ts'],
          sequence: { groupOrder: 0 },
        },
      },
      {
        // Last: it searches what all the others have printed.
        extends: true,
        test: { name: 'law 8', include: ['test/law-8.test.ts'], globalSetup: ['test/support/run-directory.ts'], sequence: { groupOrder: 1 } },
      },
    ],
  },
});
