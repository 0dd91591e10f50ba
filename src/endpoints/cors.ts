import { emptyReply, type HeaderList, header, type Reply, type RequestHead } from './reply.js';

/** What pages of other origins may do (Fetch, "CORS protocol"). */
export interface Cors {
  /** The answer to a question whether a page may ask; undefined: the request is none. */
  preflight(head: RequestHead): Reply | undefined;
  /** What every answer carries. */
  headersFor(head: RequestHead): HeaderList;
}

const EXPOSED = ['Auth-Migration', 'Retry-After', 'WWW-Authenticate'].join(',');
const ALLOWED = [
  'Access-Control-Allow-Methods',
  'GET,HEAD,POST',
  'Access-Control-Allow-Headers',
  ['Authorization', 'Content-Type', 'X-Client-Id', 'X-Client-Version'].join(','),
  'Access-Control-Max-Age',
  '600',
];

/** `origins`: of all clients. They may call the endpoints from their pages. */
export function createCors(origins: ReadonlySet<string>): Cors {
  const vary: HeaderList = ['Vary', 'Origin'];

  function allowed(head: RequestHead): HeaderList | undefined {
    const origin = header(head, 'origin');
    if (origin === undefined || !origins.has(origin)) return undefined;
    return [...vary, 'Access-Control-Allow-Origin', origin, 'Access-Control-Allow-Credentials', 'true'];
  }

  return {
    preflight(head) {
      if (head.method !== 'OPTIONS' || header(head, 'access-control-request-method') === undefined) return undefined;
      const headers = allowed(head);
      return headers && emptyReply(204, [...headers, ...ALLOWED]);
    },
    headersFor(head) {
      const headers = head.method === 'OPTIONS' ? undefined : allowed(head);
      return headers ? [...headers, 'Access-Control-Expose-Headers', EXPOSED] : vary;
    },
  };
}
