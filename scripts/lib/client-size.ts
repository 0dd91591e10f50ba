import { argv, exit, stderr, stdout } from 'node:process';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

/** What docs/client.md promises, in bytes: minified and compressed. */
const LIMIT = 4096;

export interface ClientSize {
  readonly bytes: number;
  /** Files of the bundle that are not the client's own, and what it would import at run time: a page loads it as it is. */
  readonly foreign: readonly string[];
}

/** Bundles what a page imports. */
export async function measureClient(entry = fileURLToPath(new URL('../../src/client/index.ts', import.meta.url))): Promise<ClientSize> {
  const { outputFiles, metafile } = await build({
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    write: false,
    metafile: true,
  });
  const own = Object.keys(metafile.inputs).filter((path) => !path.includes('src/client/'));
  const imported = Object.values(metafile.outputs).flatMap(({ imports }) => imports.map(({ path }) => path));
  return { bytes: gzipSync(outputFiles[0]?.contents ?? '', { level: 9 }).length, foreign: [...own, ...imported] };
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const { bytes, foreign } = await measureClient();
  if (bytes > LIMIT) stderr.write(`The client is ${bytes} bytes, minified and compressed: ${LIMIT} is the limit.\n`);
  for (const path of foreign) stderr.write(`The client takes in ${path}: it must need nothing but itself.\n`);
  if (bytes > LIMIT || foreign.length > 0) exit(1);
  stdout.write(`Client: ${bytes} of ${LIMIT} bytes, minified and compressed.\n`);
}
