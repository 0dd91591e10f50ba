import { type IncomingMessage, type OutgoingHttpHeader, type OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { jsonReply } from '../endpoints/reply.js';
import type { Routes } from '../endpoints/routes.js';
import { bodyOf } from './body.js';
import { type AnyRequest, type AnyResponse, sendReply } from './response.js';

/** Answers what is for the bridge, on bare `node:http` or `node:http2`. False: it is for somebody else, and nothing was done. */
export type AnswerOwn = (request: AnyRequest, response: AnyResponse) => boolean;

export function nodeAnswer(routes: Routes): AnswerOwn {
  return function answerOwn(request, response) {
    const reply = routes(request, request.url, bodyOf(request, request));
    if (reply === undefined) return false;
    if (reply instanceof Promise) void reply.then((known) => sendReply(response, known));
    else sendReply(response, reply);
    return true;
  };
}

/** For what is for nobody else either. */
export function sendNotFound(response: AnyResponse): void {
  sendReply(response, jsonReply(404, { error: 'not_found' }));
}

/** Responses of a server that end their connection while it drains, also those that were under way before. For `createServer`. */
export function closingWhile(isDraining: () => boolean): typeof ServerResponse<IncomingMessage> {
  return class ClosingResponse extends ServerResponse<IncomingMessage> {
    override writeHead(status: number, message?: string, headers?: OutgoingHttpHeaders | OutgoingHttpHeader[]): this;
    override writeHead(status: number, headers?: OutgoingHttpHeaders | OutgoingHttpHeader[]): this;
    override writeHead(...given: unknown[]): this {
      if (isDraining()) this.shouldKeepAlive = false;
      Reflect.apply(super.writeHead, this, given);
      return this;
    }
  };
}
