import type { Context } from 'koa';
import getRawBody from 'raw-body';
import { parse as parseJson } from 'secure-json-parse';
import { CrossfadeError } from '../errors.js';

export type Form = ReadonlyMap<string, string>;

const MAX_BODY_BYTES = 16_384;
const FORM_TYPE = 'application/x-www-form-urlencoded';

/**
 * Reads an OAuth form (RFC 6749, section 3.2): the right content type, no parameter twice, at most 16 KiB. A parameter without a
 * value counts as omitted. Works behind a body parser of the app as well.
 * @throws {CrossfadeError} `invalid_request`, `payload_too_large`.
 */
export async function readForm(ctx: Context): Promise<Form> {
  if (!ctx.is(FORM_TYPE)) throw new CrossfadeError('invalid_request', { message: `the body must be ${FORM_TYPE}` });
  if ((ctx.request.length ?? 0) > MAX_BODY_BYTES) throw tooLarge();
  const parsed = parsedBody(ctx);
  const pairs = parsed ?? [...new URLSearchParams(await readText(ctx))];
  const form = new Map<string, string>();
  for (const [name, value] of pairs) {
    if (value === '') continue;
    if (form.has(name) || typeof value !== 'string') throw new CrossfadeError('invalid_request', { message: 'a parameter stands there twice' });
    form.set(name, value);
  }
  return form;
}

/**
 * Reads a JSON body of at most 16 KiB, also behind a body parser of the app's.
 * @throws {CrossfadeError} `invalid_request`, `payload_too_large`.
 */
export async function readJsonBody(ctx: Context): Promise<unknown> {
  if (!ctx.is('application/json')) throw new CrossfadeError('invalid_request', { message: 'the body must be application/json' });
  if ((ctx.request.length ?? 0) > MAX_BODY_BYTES) throw tooLarge();
  if (ctx.req.readableDidRead && !read.has(ctx)) return Reflect.get(ctx.request, 'body');
  const text = await readText(ctx);
  try {
    return parseJson(text);
  } catch (cause) {
    throw new CrossfadeError('invalid_request', { message: 'the body is not JSON', cause });
  }
}

/** Bodies that were read before the endpoint asked for them. */
const read = new WeakMap<Context, string>();

/**
 * Waits for the body of a form or of JSON, so that the time that a slow client takes does not count as the bridge's own.
 * @throws {CrossfadeError} `invalid_request`, `payload_too_large`.
 */
export async function awaitBody(ctx: Context): Promise<void> {
  if (ctx.req.readableDidRead || !ctx.is(FORM_TYPE, 'application/json')) return;
  if ((ctx.request.length ?? 0) > MAX_BODY_BYTES) throw tooLarge();
  read.set(ctx, await readText(ctx));
}

async function readText(ctx: Context): Promise<string> {
  const before = read.get(ctx);
  if (before !== undefined) return before;
  try {
    return await getRawBody(ctx.req, { limit: MAX_BODY_BYTES, length: ctx.request.length ?? null, encoding: 'utf8' });
  } catch (cause) {
    if (cause instanceof Error && 'type' in cause && cause.type === 'entity.too.large') {
      throw tooLarge(cause);
    }
    throw new CrossfadeError('invalid_request', { message: 'the body could not be read', cause });
  }
}

function tooLarge(cause?: unknown): CrossfadeError {
  return new CrossfadeError('payload_too_large', { headers: { Connection: 'close' }, cause });
}

/**
 * What a body parser that ran before has left, in the two forms that Koa's parsers use. One that leaves forms alone sets
 * an empty body and reads nothing.
 */
function parsedBody(ctx: Context): [string, unknown][] | undefined {
  if (!ctx.req.readableDidRead || read.has(ctx)) return undefined;
  const rawBody: unknown = Reflect.get(ctx.request, 'rawBody');
  if (typeof rawBody === 'string') {
    if (Buffer.byteLength(rawBody) > MAX_BODY_BYTES) throw tooLarge();
    return [...new URLSearchParams(rawBody)];
  }
  const body: unknown = Reflect.get(ctx.request, 'body');
  return body !== null && typeof body === 'object' ? Object.entries(body) : undefined;
}
