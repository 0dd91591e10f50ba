import { createHash, randomBytes } from 'node:crypto';
import type { Config, ConfigProblem as Finding } from '../config/config.js';
import { POST_PATHS } from '../http/own-paths.js';
import { JWKS_PATH, METADATA_PATH } from '../http/well-known.js';

const TIMEOUT_MS = 3000;
const METHODS = ['GET', 'OPTIONS'] as const;
/** An answer that says nothing of the path: nobody was let in, or too many have asked. */
const SAYS_NOTHING: ReadonlySet<number> = new Set([401, 403, 429]);

/**
 * Whether the app has routes of its own under the bridge's paths: the bridge would take them over. Asks the issuer, without a credential,
 * by GET and OPTIONS, and compares with paths that nobody has. What cannot be reached is no finding: `check` often runs where the issuer is
 * not. A route that only a POST reaches, in an app that answers OPTIONS everywhere alike, is not seen.
 */
export async function checkPaths({ issuer, http: { basePath } }: Config): Promise<Finding[]> {
  const at = (path: string) => new URL(issuer).origin + path;
  const nowhere = () => at(`${basePath}/${randomBytes(12).toString('hex')}`);
  const usual = new Map<string, Usual>();
  for (const method of METHODS) {
    const [one, other] = [await ask(method, nowhere()), await ask(method, nowhere())];
    if (!one || !other) return [];
    usual.set(method, { ...one, isSteady: one.body === other.body });
  }
  const found: Finding[] = [];
  // One after the other: an app may limit how often it is asked.
  for (const path of [...POST_PATHS.map((name) => `${basePath}/${name}`), JWKS_PATH, METADATA_PATH]) {
    for (const method of METHODS) {
      const answer = await ask(method, at(path));
      if (answer?.isBridge) break;
      if (!answer || !isRoute(answer, usual.get(method), at(path))) continue;
      const instead = path.startsWith(basePath) ? ': choose another http.basePath, or let the app use another path' : '';
      found.push({ path: 'http.basePath', message: `the app has a route ${path} (${method} is answered ${answer.status})${instead}` });
      break;
    }
  }
  return found;
}

interface Answer {
  readonly status: number;
  readonly allow: string;
  readonly location: string;
  /** A digest of it. */
  readonly body: string;
  /** Whether it is the bridge that has answered. */
  readonly isBridge: boolean;
}

/** What the app answers to a path that it does not have; `isSteady`: the same each time. */
type Usual = Answer & { readonly isSteady: boolean };

function isRoute({ status, allow, location, body }: Answer, usual: Usual | undefined, url: string): boolean {
  if (!usual || status === 404 || status >= 500 || SAYS_NOTHING.has(status)) return false;
  // The same path with a slash behind is another one, and the app's.
  if (location !== '' && new URL(location, url).href === `${url}/`) return false;
  return status !== usual.status || allow !== usual.allow || (usual.isSteady && body !== usual.body);
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
    const { status, headers } = response;
    const text = await response.text();
    const isRefused = status === 405 && text.includes('"method_not_allowed"');
    const isDocument = status === 200 && /"(keys|token_endpoint)":/.test(text);
    return {
      status,
      allow: headers.get('allow') ?? '',
      location: headers.get('location') ?? '',
      body: createHash('sha256').update(text).digest('base64url'),
      isBridge: isRefused || isDocument,
    };
  } catch {
    return undefined;
  }
}
