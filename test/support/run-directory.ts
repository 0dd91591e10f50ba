import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';

declare module 'vitest' {
  export interface ProvidedContext {
    /** Directory that keeps what the run prints and which secrets it uses. */
    run: string;
  }
}

let directory: string | undefined;

/** One directory for the whole run: the search of law 8 reads at its end what all other tests have left. */
export default function setup(project: TestProject): () => void {
  process.env['CROSSFADE_TEST_RUN'] ??= mkdtempSync(join(tmpdir(), 'crossfade-test-'));
  directory = process.env['CROSSFADE_TEST_RUN'];
  project.provide('run', directory);
  return () => {
    if (directory) rmSync(directory, { recursive: true, force: true });
  };
}
