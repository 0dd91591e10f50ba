import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { argv, exit, stderr } from 'node:process';
import { fileURLToPath } from 'node:url';

/** The house from above: a folder imports from those after it, never from those before. `ground`: the files that lie in src itself. */
const ORDER = [
  'cli',
  'compose',
  'console',
  'adapters',
  'endpoints',
  'grants',
  'rollout',
  'tokens',
  'endings',
  'fleet',
  'keys',
  'sessions',
  'formats',
  'redis',
  'telemetry',
  'config',
  'ground',
];
/** Apart from the house: these import nothing of it, and it nothing of theirs. */
const APART = ['client', 'console/page'];
/** Who may speak of Koa. */
const SPEAKS_KOA = ['cli', 'compose', 'console', 'adapters'];
const KOA = /^(?:@?koa\b|@koa\/)/;
/** The public names: it takes them from wherever they are. */
const FRONT_DOOR = 'index.ts';

export interface Import {
  readonly from: string;
  /** A file of the house, or the name of a package. */
  readonly to: string;
}

/** All imports of the files in `root`, types among them. */
export function readImports(root: string): Import[] {
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'));
  return files.flatMap((from) => {
    const text = readFileSync(join(root, from), 'utf8');
    return [...text.matchAll(/^(?:import|export|\}) ?(?:[^;'"]*? from )?'([^']+)'/gm)].map(([, spec = '']) => ({
      from,
      to: spec.startsWith('.') ? normalize(join(dirname(from), spec)).replace(/\.js$/, '.ts') : spec,
    }));
  });
}

function folderOf(file: string): string {
  const apart = APART.find((place) => file.startsWith(`${place}/`));
  return apart ?? (file.includes('/') ? (file.split('/')[0] ?? '') : 'ground');
}

/** What is wrong with an import, in words; undefined: nothing. */
export function judge({ from, to }: Import): string | undefined {
  if (from === FRONT_DOOR) return undefined;
  const above = folderOf(from);
  if (!to.endsWith('.ts')) return KOA.test(to) && !SPEAKS_KOA.includes(above) ? `${from} knows of Koa (${to})` : undefined;
  const below = folderOf(to);
  if (above === below) return to === FRONT_DOOR ? `${from} imports the public names` : undefined;
  if (APART.includes(above) || APART.includes(below)) return `${from} imports ${to}: ${APART.includes(above) ? above : below} stands apart`;
  const [high, low] = [ORDER.indexOf(above), ORDER.indexOf(below)];
  if (high < 0 || low < 0) return `${high < 0 ? from : to} lies in a folder that has no place in the house`;
  return high < low ? undefined : `${from} imports ${to}: ${below} lies above ${above}`;
}

/** Files that import each other in a circle, each circle once. */
export function findCircles(imports: readonly Import[]): string[] {
  const next = new Map<string, string[]>();
  for (const { from, to } of imports) next.set(from, [...(next.get(from) ?? []), to]);
  const done = new Set<string>();
  const found: string[] = [];
  function visit(file: string, way: readonly string[]): void {
    const at = way.indexOf(file);
    if (at >= 0) found.push([...way.slice(at), file].join(' → '));
    if (at >= 0 || done.has(file)) return;
    for (const to of next.get(file) ?? []) visit(to, [...way, file]);
    done.add(file);
  }
  for (const file of next.keys()) visit(file, []);
  return found;
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const imports = readImports(fileURLToPath(new URL('../../src', import.meta.url)));
  const wrong = [...imports.flatMap((one) => judge(one) ?? []), ...findCircles(imports).map((circle) => `a circle: ${circle}`)];
  for (const line of wrong) stderr.write(`${line}\n`);
  exit(wrong.length > 0 ? 1 : 0);
}
