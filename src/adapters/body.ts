import type { Readable } from 'node:stream';
import getRawBody from 'raw-body';
import type { Body, ReadBody } from '../endpoints/form.js';
import type { RequestHead } from '../endpoints/reply.js';
import { CrossfadeError } from '../errors.js';

/** Node's own request, over HTTP/1 or 2. */
export type NodeRequest = RequestHead & Readable;

/** `left`: where a body parser of the app that ran before has left what it read, as `rawBody` or `body`. */
export function bodyOf(request: NodeRequest, left: object): ReadBody {
  let read: Promise<Body> | undefined;
  return (limit) => {
    read ??= readNow(request, left, limit);
    return read;
  };
}

async function readNow(request: NodeRequest, left: object, limit: number): Promise<Body> {
  const length = lengthOf(request);
  if (length !== null && length > limit) throw tooLarge();
  // A parser that leaves forms alone sets an empty body and reads nothing.
  if (request.readableDidRead) return readBefore(left, limit);
  try {
    return { text: await getRawBody(request, { limit, length, encoding: 'utf8' }) };
  } catch (cause) {
    if (cause instanceof Error && 'type' in cause && cause.type === 'entity.too.large') throw tooLarge(cause);
    throw new CrossfadeError('invalid_request', { message: 'the body could not be read', cause });
  }
}

function readBefore(left: object, limit: number): Body {
  const [raw, body]: unknown[] = [Reflect.get(left, 'rawBody'), Reflect.get(left, 'body')];
  const text = [raw, body].find((one) => typeof one === 'string' || Buffer.isBuffer(one));
  if (typeof text !== 'string' && !Buffer.isBuffer(text)) return { parsed: body };
  if (Buffer.byteLength(text) > limit) throw tooLarge();
  return { text: text.toString() };
}

function lengthOf({ headers }: RequestHead): number | null {
  const length = headers['content-length'];
  return length === undefined ? null : Number(length);
}

function tooLarge(cause?: unknown): CrossfadeError {
  return new CrossfadeError('payload_too_large', { headers: { Connection: 'close' }, cause });
}
