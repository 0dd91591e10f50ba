import { JWKS_PATH, METADATA_PATH } from './well-known.js';

/** What is POSTed to, by its name under the base path. */
export const POST_PATHS = ['token', 'session', 'issue', 'revoke', 'introspect', 'logout'] as const;
export type PostPath = (typeof POST_PATHS)[number];

/** Whether a path is one of the bridge's endpoints: those judge credentials by themselves. */
export function createOwnPaths(basePath: string): (path: string) => boolean {
  const own = new Set([...POST_PATHS.map((name) => `${basePath}/${name}`), JWKS_PATH, METADATA_PATH]);
  return (path) => own.has(path) || isVerifyPath(path, basePath);
}

/** The path of a URL that is one of the bridge's; undefined: it is somebody else's. */
export type OwnPathOf = (url: string | undefined) => string | undefined;

/** Most requests are for somebody else, and show it before their URL is taken apart. */
export function createOwnPathOf(basePath: string): OwnPathOf {
  const isOwnPath = createOwnPaths(basePath);
  return (url = '') => {
    if (url.startsWith('/') && !url.startsWith(basePath) && !url.startsWith('/.well-known/')) return undefined;
    const path = pathOf(url);
    return isOwnPath(path) ? path : undefined;
  };
}

/** A proxy may send a whole URL (RFC 9112, section 3.2.2): then this is the rest of it, as it is written. */
export function toOriginForm(url: string): string {
  return url.startsWith('/') ? url : url.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i, '');
}

/** As it is written: nothing in it is decoded. */
function pathOf(url: string): string {
  const own = toOriginForm(url);
  const end = own.search(/[?#]/);
  return end < 0 ? own : own.slice(0, end);
}

export function isVerifyPath(path: string, basePath: string): boolean {
  const verify = `${basePath}/verify`;
  return path.startsWith(verify) && (path.length === verify.length || path[verify.length] === '/' || path[verify.length] === ';');
}
