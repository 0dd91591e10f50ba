import { type CookiePairs, parseCookies } from '../formats/cookies.js';
import { header, type RequestHead } from './reply.js';

/** What a request presents, before anything is looked up or verified. */
export interface PresentedCredentials {
  /** The bearer token; absent also for other schemes, which are not ours. */
  readonly bearer?: string;
  readonly cookies: CookiePairs;
  /** What makes it impossible to say which credential is meant. */
  readonly malformed?: 'two-authorization-headers' | 'token-in-query';
}

const NO_COOKIES: CookiePairs = [];

/**
 * RFC 6750, section 2: the header is the one way to send a token; the form body and the query are refused. `originalUris`: of the request
 * that a proxy asks about.
 */
export function readCredentials(request: RequestHead, originalUris: readonly string[] = []): PresentedCredentials {
  const { cookie, authorization } = request.headers;
  const cookies = cookie === undefined ? NO_COOKIES : parseCookies(cookie);
  if (hasQueryToken(request.url) || originalUris.some(hasQueryToken)) return { cookies, malformed: 'token-in-query' };
  if (authorization === undefined) return { cookies };
  if (hasTwoAuthorizations(request.rawHeaders) || isJoined(authorization)) return { cookies, malformed: 'two-authorization-headers' };
  const bearer = readBearer(authorization);
  return bearer === undefined ? { cookies } : { cookies, bearer };
}

/** Node drops a second Authorization header from `headers` without a word. */
function hasTwoAuthorizations(rawHeaders: readonly string[]): boolean {
  let found = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? '';
    if (name.length === AUTHORIZATION.length && name.toLowerCase() === AUTHORIZATION) found += 1;
  }
  return found > 1;
}

const AUTHORIZATION = 'authorization';

/** A proxy joins two headers with a comma (RFC 9110, section 5.3), which neither a bearer token nor Basic credentials may hold. */
function isJoined(authorization: string): boolean {
  if (!authorization.includes(',')) return false;
  // A parameter of another scheme may quote anything.
  return /^(bearer|basic)[ \t]|,[ \t]*(bearer|basic)[ \t]/i.test(authorization.replaceAll(/"[^"]*"/g, ''));
}

/** The text behind the scheme (RFC 6750, section 2.1), in any of its spellings. Undefined for other schemes, and where no token came. */
function readBearer(authorization: string): string | undefined {
  const token = textBehindBearer(authorization);
  return token === undefined || isNoToken(token) ? undefined : token;
}

/**
 * A front end that holds no token writes a variable into the header without looking at it: `null`, `undefined`, `[object Promise]`,
 * `"null"`, `(null)`, `{{token}}`. Each of them is a text that no authorization server gives out.
 */
function isNoToken(text: string): boolean {
  return text.length <= MAX_PLACEHOLDER && PLACEHOLDER.test(text);
}

const PLACEHOLDER = /^\s*(?:["'(<]?(?:null|undefined|nan|false|none|nil)?["')>]?|\[object \w+\]|<\w+>|\{\{[^{}]*\}\}|\$\{[^{}]*\})\s*$/i;
const MAX_PLACEHOLDER = 64;

function textBehindBearer(authorization: string): string | undefined {
  // The spelling of nearly all clients. A regular expression would go through the whole token.
  if (/^Bearer [^ \t]/.test(authorization)) return authorization.slice(7);
  const bearer = /^bearer(?:[ \t]+(.*))?$/is.exec(authorization);
  return bearer ? (bearer[1] ?? '') : undefined;
}

function hasQueryToken(url: string | undefined): boolean {
  const at = url?.indexOf('?') ?? -1;
  if (url === undefined || at < 0) return false;
  // A percent sign may spell any letter of the name.
  const mayHold = url.includes('access_token', at) || url.includes('%', at);
  return mayHold && new URLSearchParams(url.slice(at)).has('access_token');
}

/** A page that somebody opens: it can show a login form, where an API call can only fail. */
export function isPageNavigation(request: RequestHead, method: string): boolean {
  if (method !== 'GET' && method !== 'HEAD') return false;
  const mode = header(request, 'sec-fetch-mode');
  if (mode !== undefined) return mode === 'navigate';
  const fetchMetadata = Object.keys(request.headers).some((name) => name.startsWith('sec-fetch-'));
  return !fetchMetadata && (header(request, 'accept')?.includes('text/html') ?? false);
}
