import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';

/** A product of one's own, for clients without faults. */
export interface Staging {
  /** The issuer, and where `/me` is: a path that needs somebody. */
  readonly url: string;
  readonly clientId: string;
  /** By which it knows this client, where that is not by its id: a `User-Agent`. */
  readonly headers: Readonly<Record<string, string>>;
  /** As in a `Cookie` header, one for each client. */
  readonly cookies: readonly string[];
}

const schema = z.strictObject({
  url: z.url({ protocol: /^https?$/ }),
  clientId: z.string().min(1),
  headers: z.record(z.string(), z.string()).default({}),
  cookiesFile: z.string().min(1),
});

/** @throws {Error} in words for whoever wrote the file. */
export function loadStaging(path: string): Staging {
  const parsed = schema.safeParse(parse(read(path)));
  if (!parsed.success) throw new Error(`${path}: ${parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')}`);
  const { url, clientId, headers, cookiesFile } = parsed.data;
  const file = resolve(dirname(path), cookiesFile);
  const cookies = read(file)
    .split('\n')
    .filter((line) => line.trim() !== '');
  if (cookies.length === 0) throw new Error(`${file}: has no cookies, one a line`);
  return { url: url.replace(/\/$/, ''), clientId, headers, cookies };
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    throw new Error(`${path}: cannot be read`);
  }
}
