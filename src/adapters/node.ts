import { type IncomingMessage, type OutgoingHttpHeader, type OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import { headersOf, jsonReply, type Reply } from '../endpoints/reply.js';
import type { Routes } from '../endpoints/routes.js';
import { bodyOf } from './body.js';

/** Node's own requests and responses, over HTTP/1 or 2. */
export type AnyRequest = IncomingMessage | Http2ServerRequest;
export type AnyResponse = ServerResponse | Http2ServerResponse;

/** Answers what is for the bridge, on bare `node:http`. False: it is for somebody else, and nothing was done. */
export type AnswerOwn = (request: AnyRequest, response: AnyResponse) => boolean;

export function nodeAnswer(routes: Routes): AnswerOwn {
  return function answerOwn(request, response) {
    const reply = routes(request, request.url, bodyOf(request, request));
    if (reply === undefined) return false;
    if (reply instanceof Promise) void reply.then((known) => send(response, known));
    else send(response, reply);
    return true;
  };
}

/** For what is for nobody else either. */
export function sendNotFound(response: AnyResponse): void {
  send(response, jsonReply(404, { error: 'not_found' }));
}

/** Headers that were set before stay, but for those that the reply has as well. */
function send(response: AnyResponse, reply: Reply): void {
  if ('stream' in response) {
    sendOverHttp2(response, reply);
    return;
  }
  response.writeHead(reply.status, [...reply.headers]).end(reply.body);
}

function sendOverHttp2(response: Http2ServerResponse, reply: Reply): void {
  response.statusCode = reply.status;
  // A connection is none of a request's business there (RFC 9113, section 8.2.2).
  for (const [name, value] of headersOf(reply)) if (name !== 'Connection') response.setHeader(name, value);
  response.end(reply.body ?? '');
}

/** Responses of a server that end their connection while it drains, also those that were under way before. For `createServer`. */
export function closingWhile(isDraining: () => boolean): typeof ServerResponse<IncomingMessage> {
  return class ClosingResponse extends ServerResponse<IncomingMessage> {
    override writeHead(status: number, message?: string, headers?: OutgoingHttpHeaders | OutgoingHttpHeader[]): this;
    override writeHead(status: number, headers?: OutgoingHttpHeaders | OutgoingHttpHeader[]): this;
    override writeHead(...given: unknown[]): this {
      if (isDraining()) this.setHeader('Connection', 'close');
      Reflect.apply(super.writeHead, this, given);
      return this;
    }
  };
}
