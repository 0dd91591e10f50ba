import type { IncomingMessage } from 'node:http';
import { header } from './peer.js';

export interface OriginCheck {
  /** Origins of the client that the request resolved to. */
  readonly origins: readonly string[];
  readonly readsCookie: boolean;
  readonly maySetCookie: boolean;
}

/**
 * Whether a POST that reads or may set a cookie comes from a page of the client's own. `Origin` decides; where only
 * `Sec-Fetch-Site` came it must be same-origin; where neither came, no browser of this decade sent it: a cookie is not
 * read for it.
 */
export function passesOriginCheck(request: IncomingMessage, { origins, readsCookie, maySetCookie }: OriginCheck): boolean {
  if (!readsCookie && !maySetCookie) return true;
  const origin = header(request, 'origin');
  if (origin !== undefined) return origins.includes(origin);
  const site = header(request, 'sec-fetch-site');
  if (site !== undefined) return site === 'same-origin';
  return !readsCookie;
}
