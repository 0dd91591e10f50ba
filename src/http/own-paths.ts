import type { Context } from 'koa';
import { JWKS_PATH, METADATA_PATH } from './well-known.js';

/** What is POSTed to, by its name under the base path. */
export const POST_PATHS = ['token', 'session', 'issue', 'revoke', 'introspect', 'logout'] as const;
export type PostPath = (typeof POST_PATHS)[number];

/** Whether a path is one of the bridge's endpoints: those judge credentials by themselves. */
export function createOwnPaths(basePath: string): (path: string) => boolean {
  const own = new Set([...POST_PATHS.map((name) => `${basePath}/${name}`), JWKS_PATH, METADATA_PATH]);
  return (path) => own.has(path) || isVerifyPath(path, basePath);
}

export type IsOwnRequest = (request: Pick<Context, 'url' | 'path'>) => boolean;

/** The same of a request: most are for somebody else, and show it before their URL is parsed. */
export function createOwnRequests(basePath: string): IsOwnRequest {
  const isOwnPath = createOwnPaths(basePath);
  return (request) => {
    const { url } = request;
    const mayBe = !url.startsWith('/') || url.startsWith(basePath) || url.startsWith('/.well-known/');
    return mayBe && isOwnPath(request.path);
  };
}

export function isVerifyPath(path: string, basePath: string): boolean {
  const verify = `${basePath}/verify`;
  return path.startsWith(verify) && (path.length === verify.length || path[verify.length] === '/' || path[verify.length] === ';');
}
