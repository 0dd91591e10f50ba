import { randomBytes } from 'node:crypto';
import type { Config, ConfigProblem as Finding } from '../config/config.js';
import { POST_PATHS } from '../http/own-paths.js';
import { JWKS_PATH, METADATA_PATH } from '../http/well-known.js';

const TIMEOUT_MS = 3000;

/**
 * Whether the app has routes of its own under the bridge's paths: the bridge would take them over. Asks the issuer, without a credential,
 * by GET and OPTIONS. What cannot be reached is no finding: `check` often runs where the issuer is not.
 */
export async function checkPaths({ issuer, http: { basePath } }: Config): Promise<Finding[]> {
  const at = (path: string) => new URL(issuer).origin + path;
  const somewhere = `${basePath}/${randomBytes(12).toString('hex')}`;
  const usual = new Map([
    ['GET', await ask('GET', at(somewhere))],
    ['OPTIONS', await ask('OPTIONS', at(somewhere))],
  ]);
  if (usual.get('GET') === undefined) return [];
  const found = [...POST_PATHS.map((name) => `${basePath}/${name}`), JWKS_PATH, METADATA_PATH].map(async (path): Promise<Finding[]> => {
    for (const [method, elsewhere] of usual) {
      const answer = await ask(method, at(path));
      if (answer === undefined || answer.isBridge) return [];
      if (answer.status === 404 || answer.status >= 500 || answer.status === elsewhere?.status) continue;
      const instead = path.startsWith(basePath) ? ': choose another http.basePath, or let the app use another path' : '';
      return [{ path: 'http.basePath', message: `the app has a route ${path} (${method} is answered ${answer.status})${instead}` }];
    }
    return [];
  });
  return (await Promise.all(found)).flat();
}

interface Answer {
  readonly status: number;
  /** Whether it is the bridge that has answered. */
  readonly isBridge: boolean;
}

/** Undefined: nobody has answered. */
async function ask(method: string, url: string): Promise<Answer | undefined> {
  try {
    const response = await fetch(url, {
      method,
      redirect: 'manual',
      signal: AbortSignal.timeout(TIMEOUT_MS),
      headers: { 'user-agent': 'crossfade' },
    });
    const text = await response.text();
    const isRefused = response.status === 405 && text.includes('"method_not_allowed"');
    const isDocument = response.status === 200 && /"(keys|token_endpoint)":/.test(text);
    return { status: response.status, isBridge: isRefused || isDocument };
  } catch {
    return undefined;
  }
}
