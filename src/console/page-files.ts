import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** A file of the console as it is sent. */
export interface PageFile {
  readonly type: string;
  readonly etag: string;
  readonly body: Buffer;
}

const OWN = {
  '/': ['index.html', 'text/html'],
  '/console.css': ['console.css', 'text/css'],
  '/console.js': ['console.js', 'text/javascript'],
  '/api.js': ['api.js', 'text/javascript'],
  '/elements.js': ['elements.js', 'text/javascript'],
  '/chart.js': ['chart.js', 'text/javascript'],
  '/sections.js': ['sections.js', 'text/javascript'],
  '/stages.js': ['stages.js', 'text/javascript'],
  '/clamps.js': ['clamps.js', 'text/javascript'],
  '/icon.svg': ['icon.svg', 'image/svg+xml'],
} as const;

const OF_UPLOT = {
  '/uplot.js': ['uPlot.esm.js', 'text/javascript'],
  '/uplot.css': ['uPlot.min.css', 'text/css'],
} as const;

/** The files of the console by the path that each is at: read once, sent as they are. */
export function readPageFiles(): ReadonlyMap<string, PageFile> {
  const uplot = dirname(createRequire(import.meta.url).resolve('uplot'));
  const files = new Map<string, PageFile>();
  for (const [path, [name, type]] of Object.entries(OWN)) files.set(path, read(new URL(`./page/${name}`, import.meta.url), type));
  for (const [path, [name, type]] of Object.entries(OF_UPLOT)) files.set(path, read(join(uplot, name), type));
  return files;
}

function read(path: string | URL, type: string): PageFile {
  const body = readFileSync(path);
  return { type: `${type}; charset=utf-8`, etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`, body };
}
