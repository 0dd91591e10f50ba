import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import { headersOf, type Reply } from '../endpoints/reply.js';

/** Node's own requests and responses, over HTTP/1 or 2. */
export type AnyRequest = IncomingMessage | Http2ServerRequest;
export type AnyResponse = ServerResponse | Http2ServerResponse;

/** Whether somebody else has answered already, or nobody waits any more. */
export function isAnswered(response: AnyResponse): boolean {
  return response.headersSent || response.writableEnded || response.destroyed;
}

/** Headers that were set before stay, but for those that the reply has as well. Does nothing where somebody else has answered. */
export function sendReply(response: AnyResponse, reply: Reply): void {
  if (isAnswered(response)) return;
  if (!isOverHttp2(response) && response.getHeaderNames().length === 0) {
    response.writeHead(reply.status, [...reply.headers]).end(reply.body);
    return;
  }
  response.statusCode = reply.status;
  for (const [name, value] of headersOf(reply)) setHeader(response, name, value);
  response.end(reply.body ?? '');
}

function setHeader(response: AnyResponse, name: string, value: string | string[]): void {
  // A connection is none of a request's business over HTTP/2 (RFC 9113, section 8.2.2).
  if (name === 'Connection' && isOverHttp2(response)) return;
  const before = name === 'Set-Cookie' || name === 'Vary' ? response.getHeader(name) : undefined;
  if (before === undefined) response.setHeader(name, value);
  else if (name === 'Vary') response.setHeader(name, withField(String(before), String(value)));
  else response.setHeader(name, [before, value].flat().map(String));
}

function withField(vary: string, field: string): string {
  const fields = vary.split(',').map((one) => one.trim().toLowerCase());
  return fields.includes(field.toLowerCase()) || fields.includes('*') ? vary : `${vary}, ${field}`;
}

function isOverHttp2(response: AnyResponse): response is Http2ServerResponse {
  return 'stream' in response;
}
