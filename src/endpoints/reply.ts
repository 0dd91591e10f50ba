import type { IncomingHttpHeaders } from 'node:http';

/** At once, or when it is there. */
export type Now<T> = T | Promise<T>;

/**
 * The part of a request that is there before its body. Node's own request is one, over HTTP/1 and 2: adapters pass it as it is, since what was
 * read for a request is known by that object.
 */
export interface RequestHead {
  readonly method?: string | undefined;
  /** Path and query. A framework may have taken away where it is mounted. */
  readonly url?: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  readonly httpVersionMajor?: number;
  readonly socket: { readonly remoteAddress?: string | undefined };
}

/** Name, value, name, value…, as `writeHead` takes them. No name stands there twice but `Set-Cookie`. */
export type HeaderList = readonly string[];

/** An answer, before anybody has written it. */
export interface Reply {
  readonly status: number;
  readonly headers: HeaderList;
  /** With its type and length in `headers`. Absent: there is none. */
  readonly body?: string;
}

/** With a length, also where it has no body: else the length of an empty answer would be told in chunks. */
export function emptyReply(status: number, headers: HeaderList = []): Reply {
  return { status, headers: status === 204 || status === 304 ? headers : [...headers, 'Content-Length', '0'] };
}

export function jsonReply(status: number, value: object, headers: HeaderList = []): Reply {
  return textReply(status, JSON.stringify(value), 'application/json; charset=utf-8', headers);
}

export function textReply(status: number, body: string, type: string, headers: HeaderList = []): Reply {
  return { status, headers: [...headers, 'Content-Type', type, 'Content-Length', String(Buffer.byteLength(body))], body };
}

/** One request header, as one text. */
export function header(request: RequestHead, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value.join(', ') : value;
}

/** The headers of a reply by name, as `setHeader` takes them. */
export function headersOf({ headers }: Pick<Reply, 'headers'>): Map<string, string | string[]> {
  const named = new Map<string, string | string[]>();
  for (let at = 0; at < headers.length; at += 2) {
    const [name = '', value = ''] = [headers[at], headers[at + 1]];
    const before = named.get(name);
    named.set(name, before === undefined ? value : [before, value].flat());
  }
  return named;
}
