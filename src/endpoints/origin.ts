import { header, type RequestHead } from './reply.js';

export interface OriginCheck {
  /** Origins of the client that the request resolved to. */
  readonly origins: readonly string[];
  readonly readsCookie: boolean;
  readonly maySetCookie: boolean;
}

/**
 * Whether a POST that reads or may set a cookie comes from a page of the client. `Origin` decides. Without it, or where it is `null`,
 * `Sec-Fetch-Site` must be `same-origin`: a page with `Referrer-Policy: no-referrer` sends both (Fetch, "append a request `Origin`
 * header"), and neither another site nor a sandboxed frame can. Where neither came, no browser of this decade sent the request: its
 * cookie is not read.
 */
export function passesOriginCheck(request: RequestHead, { origins, readsCookie, maySetCookie }: OriginCheck): boolean {
  if (!readsCookie && !maySetCookie) return true;
  const origin = header(request, 'origin');
  if (origin !== undefined && origin !== 'null') return origins.includes(origin);
  const site = header(request, 'sec-fetch-site');
  if (site !== undefined) return site === 'same-origin';
  return origin === undefined && !readsCookie;
}
