import { parse as parseJson } from 'secure-json-parse';
import { CrossfadeError } from '../errors.js';
import { header, type RequestHead } from './reply.js';

export type Form = ReadonlyMap<string, string>;

/** The body of a request, once it is whole: its text, or what a parser before us has made of it. */
export type Body = { readonly text: string } | { readonly parsed: unknown };

/**
 * Reads the body of a request, of at most so many bytes; asked again it gives the same.
 * @throws {CrossfadeError} `payload_too_large`, `invalid_request`.
 */
export type ReadBody = (limit: number) => Promise<Body>;

const MAX_BODY_BYTES = 16_384;
const FORM_TYPE = 'application/x-www-form-urlencoded';
const JSON_TYPE = 'application/json';

/**
 * Reads an OAuth form (RFC 6749, section 3.2): the right content type, no parameter twice, at most 16 KiB. A parameter without a
 * value counts as omitted. Works behind a body parser of the app as well.
 * @throws {CrossfadeError} `invalid_request`, `payload_too_large`.
 */
export async function readForm(head: RequestHead, readBody: ReadBody): Promise<Form> {
  if (!isForm(head)) throw new CrossfadeError('invalid_request', { message: `the body must be ${FORM_TYPE}` });
  const form = new Map<string, string>();
  for (const [name, value] of pairsOf(await readBody(MAX_BODY_BYTES))) {
    // A parser before us makes a list of what stands there several times.
    const given = [value].flat().filter((one) => one !== '');
    if (given.length === 0) continue;
    const [text] = given;
    if (form.has(name) || given.length > 1 || typeof text !== 'string')
      throw new CrossfadeError('invalid_request', { message: 'a parameter stands there twice' });
    form.set(name, text);
  }
  return form;
}

function pairsOf(body: Body): [string, unknown][] {
  if ('text' in body) return [...new URLSearchParams(body.text)];
  if (body.parsed !== null && typeof body.parsed === 'object') return Object.entries(body.parsed);
  throw new CrossfadeError('invalid_request', { message: 'the body could not be read' });
}

/**
 * Reads a JSON body of at most 16 KiB, also behind a body parser of the app's.
 * @throws {CrossfadeError} `invalid_request`, `payload_too_large`.
 */
export async function readJsonBody(head: RequestHead, readBody: ReadBody): Promise<unknown> {
  if (!isOfType(head, JSON_TYPE)) throw new CrossfadeError('invalid_request', { message: 'the body must be application/json' });
  const body = await readBody(MAX_BODY_BYTES);
  if ('parsed' in body) return body.parsed;
  try {
    return parseJson(body.text);
  } catch (cause) {
    throw new CrossfadeError('invalid_request', { message: 'the body is not JSON', cause });
  }
}

/**
 * Waits for the body of a form or of JSON, so that the time that a slow client takes does not count as the bridge's own.
 * @throws {CrossfadeError} `invalid_request`, `payload_too_large`.
 */
export async function awaitBody(head: RequestHead, readBody: ReadBody): Promise<void> {
  if (isForm(head) || isOfType(head, JSON_TYPE)) await readBody(MAX_BODY_BYTES);
}

export function isForm(head: RequestHead): boolean {
  return isOfType(head, FORM_TYPE);
}

/** Whether a body of this type has come (RFC 9110, section 8.3; RFC 9112, section 6.3). Over HTTP/2 nothing needs to say how long it is. */
function isOfType(head: RequestHead, type: string): boolean {
  const { 'transfer-encoding': encoding, 'content-length': length } = head.headers;
  const hasBody = encoding !== undefined || length !== undefined || (head.httpVersionMajor ?? 1) >= 2;
  const [named = ''] = (header(head, 'content-type') ?? '').split(';', 1);
  return hasBody && named.trim().toLowerCase() === type;
}
