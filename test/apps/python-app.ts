import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../scripts/lib/free-port.js';
import { PEOPLE } from '../../scripts/lib/legacy-app.js';
import { provide, succeeds } from '../../scripts/lib/programs.js';
import { appOfProgram, type ForeignApp } from './app.js';

const FRAMEWORKS = {
  django: { packages: ['python3-django'], modules: 'import django' },
  flask: { packages: ['python3-flask'], modules: 'import flask' },
};

/** A Python app whose `whoami` are the lines of docs/formats.md. */
export async function startPythonApp(framework: 'django' | 'flask', directory: string): Promise<ForeignApp> {
  const { packages, modules } = FRAMEWORKS[framework];
  // Debian's own: another Python on PATH does not see Debian's packages.
  const python = '/usr/bin/python3';
  if (!succeeds(python, ['-c', modules])) provide('python3', ['python3', ...packages], () => succeeds(python, ['-c', modules]));
  const port = await freePort();
  return await appOfProgram(python, ['-u', fileURLToPath(new URL(`${framework}_app.py`, import.meta.url)), String(port)], {
    port,
    ready: /listening|Running on/,
    env: { PEOPLE: JSON.stringify(PEOPLE), DIRECTORY: directory, WHOAMI: linesOf(framework), PYTHONDONTWRITEBYTECODE: '1' },
  });
}

function linesOf(framework: string): string {
  const page = readFileSync(fileURLToPath(new URL('../../docs/formats.md', import.meta.url)), 'utf8');
  const section = page.split('\n### ').find((part) => part.toLowerCase().startsWith(`${framework}\n`)) ?? '';
  const [, lines] = /```python\n(.*?)```/s.exec(section) ?? [];
  if (lines === undefined) throw new Error(`docs/formats.md has no lines for ${framework}`);
  return lines;
}
