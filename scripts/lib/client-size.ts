import { exit, stderr, stdout } from 'node:process';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

/** What docs/client.md promises, in bytes: minified and compressed. */
const LIMIT = 4096;

// What a page imports. It loads the client as it is: nothing but its own files may be in it, and nothing is imported at run time.
const { outputFiles, metafile } = await build({
  entryPoints: [fileURLToPath(new URL('../../src/client/index.ts', import.meta.url))],
  bundle: true,
  minify: true,
  format: 'esm',
  platform: 'browser',
  write: false,
  metafile: true,
});
const bytes = gzipSync(outputFiles[0]?.contents ?? '', { level: 9 }).length;
const foreign = [
  ...Object.keys(metafile.inputs).filter((path) => !path.includes('src/client/')),
  ...Object.values(metafile.outputs).flatMap(({ imports }) => imports.map(({ path }) => path)),
];
if (bytes > LIMIT) stderr.write(`The client is ${bytes} bytes, minified and compressed: ${LIMIT} is the limit.\n`);
for (const path of foreign) stderr.write(`The client takes in ${path}: it must need nothing but itself.\n`);
if (bytes > LIMIT || foreign.length > 0) exit(1);
stdout.write(`Client: ${bytes} of ${LIMIT} bytes, minified and compressed.\n`);
