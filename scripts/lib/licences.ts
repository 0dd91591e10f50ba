import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { stdout } from 'node:process';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

const lockSchema = z.object({
  packages: z.record(z.string(), z.object({ version: z.string().optional(), license: z.string().optional(), dev: z.boolean().optional() })),
});

// Every package that a user installs, with its licence as the package itself brings it.
const { packages } = lockSchema.parse(JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')));
const shipped = Object.entries(packages).filter(([path, { dev }]) => path !== '' && !dev);

function licenceOf(path: string): string {
  const directory = join(ROOT, path);
  const files = readdirSync(directory).filter((name) => /^(licen[cs]e|copying|notice)/i.test(name));
  return files.map((name) => readFileSync(join(directory, name), 'utf8').trim()).join('\n\n');
}

for (const [path, { version = '', license = 'no licence named' }] of shipped) {
  const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
  stdout.write(`${'='.repeat(79)}\n${name} ${version}: ${license}\n\n${licenceOf(path)}\n\n`);
}
