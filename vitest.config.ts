import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    // Tests wait for servers more than they compute.
    maxWorkers: Math.max(3, availableParallelism() - 1),
    testTimeout: 60_000,
    hookTimeout: 60_000,
    expect: { poll: { timeout: 20_000 } },
    projects: [
      {
        extends: true,
        test: {
          name: 'crossfade',
          include: ['test/**/*.test.ts'],
          exclude: ['test/law-8.test.ts'],
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
