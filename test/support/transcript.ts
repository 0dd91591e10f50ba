import { appendFileSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { inject } from 'vitest';

const run = inject('run');

/** Too short to be told from an ordinary word. */
const MIN_SECRET_LENGTH = 6;

/** Keeps what the program let out: log lines, metrics, bodies of errors. */
export function record(text: string): void {
  appendFileSync(join(run, `output-${process.pid}.txt`), `${text}\n`);
}

/** Keeps a value that nothing of the output may hold. */
export function remember(...secrets: string[]): void {
  const lines = secrets.filter((secret) => secret.length >= MIN_SECRET_LENGTH);
  if (lines.length > 0) appendFileSync(join(run, `secrets-${process.pid}.txt`), `${lines.join('\n')}\n`);
}

/** A token is remembered whole and by its parts, since any of them gives something away. */
export function rememberToken(token: string): void {
  remember(token, ...token.split('.').slice(1));
}

/** The values of a `Cookie` header. */
export function rememberCookie(header: string): void {
  for (const pair of header.split(/; */)) remember(pair.slice(pair.indexOf('=') + 1));
}

/** What the whole run let out, and the secrets that it used. */
export function readRun(): { output: string; secrets: string[] } {
  const read = (prefix: string) =>
    readdirSync(run)
      .filter((name) => name.startsWith(prefix))
      .map((name) => readFileSync(join(run, name), 'utf8'))
      .join('');
  return {
    output: read('output-'),
    secrets: [
      ...new Set(
        read('secrets-')
          .split('\n')
          .filter((line) => line !== ''),
      ),
    ],
  };
}

/** The secrets that stand somewhere in `output`. One pass: there are many of both. */
export function findLeaks(output: string, secrets: readonly string[]): string[] {
  const byStart = new Map<string, string[]>();
  for (const secret of secrets) {
    const start = secret.slice(0, MIN_SECRET_LENGTH);
    const known = byStart.get(start);
    if (known) known.push(secret);
    else byStart.set(start, [secret]);
  }
  const leaks = new Set<string>();
  for (let at = 0; at + MIN_SECRET_LENGTH <= output.length; at++) {
    for (const secret of byStart.get(output.slice(at, at + MIN_SECRET_LENGTH)) ?? []) if (output.startsWith(secret, at)) leaks.add(secret);
  }
  return [...leaks];
}
