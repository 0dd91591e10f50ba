import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { Config, ConfigProblem as Finding } from '../config/config.js';
import { POST_PATHS } from '../endpoints/own-paths.js';
import { TOKEN_EXCHANGE } from '../endpoints/token-endpoint.js';
import { JWKS_PATH, METADATA_PATH } from '../endpoints/well-known.js';
import { parseJson } from '../redis/replies.js';

const metadata = z.object({ token_endpoint: z.string(), grant_types_supported: z.array(z.string()) });

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
    usual.set(method, { ...one, isSteady: one.text === other.text });
  }
  const found: Finding[] = [];
  // Whose metadata stand there says whose keys do.
  const documents = isOurs((await ask('GET', at(METADATA_PATH)))?.text, `${basePath}/token`) ? [] : [JWKS_PATH, METADATA_PATH];
  // One after the other: an app may limit how often it is asked.
  for (const path of [...POST_PATHS.map((name) => `${basePath}/${name}`), ...documents]) {
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
  readonly text: string;
  /** Whether it is the bridge that has answered. */
  readonly isBridge: boolean;
}

/** What the app answers to a path that it does not have; `isSteady`: the same each time. */
type Usual = Answer & { readonly isSteady: boolean };

function isRoute({ status, allow, location, text }: Answer, usual: Usual | undefined, url: string): boolean {
  if (!usual || status === 404 || status >= 500 || SAYS_NOTHING.has(status)) return false;
  // The same path with a slash behind is another one, and the app's.
  if (URL.canParse(location, url) && new URL(location, url).href === `${url}/`) return false;
  return status !== usual.status || allow !== usual.allow || (usual.isSteady && text !== usual.text);
}

/** Whether these are the metadata of a bridge: its token endpoint is where ours is, and exchanges tokens. */
function isOurs(text: string | undefined, tokenPath: string): boolean {
  const found = metadata.safeParse(parseJson(text ?? '')).data;
  return found?.token_endpoint.endsWith(tokenPath) === true && found.grant_types_supported.includes(TOKEN_EXCHANGE);
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
    return {
      status,
      allow: headers.get('allow') ?? '',
      location: headers.get('location') ?? '',
      text,
      isBridge: status === 405 && text.includes('"method_not_allowed"'),
    };
  } catch {
    return undefined;
  }
}
