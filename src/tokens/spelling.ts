import { outlineOf } from '../json-depth.js';

/** The three parts of a compact JWS (RFC 7515, section 7.1), decoded. */
export interface DecodedJws {
  readonly header: Readonly<Record<string, unknown>>;
  readonly payload: Readonly<Record<string, unknown>>;
}

/**
 * Decodes a compact JWS that is spelled in the one way that it can be: canonical base64url (no padding, no spare bits, no
 * white space), strict UTF-8, JSON objects without duplicate members. Signature libraries let other spellings pass, and a
 * token with many spellings slips past whatever remembers tokens by their text. Undefined for everything else.
 */
export function decodeOneSpelling(token: string): DecodedJws | undefined {
  const [head, body, signature, ...more] = token.split('.');
  if (head === undefined || body === undefined || signature === undefined || more.length > 0) return undefined;
  if (signature !== '' && !decodeCanonical(signature)) return undefined;
  const header = head === lastHeader.text ? lastHeader.value : decodeObject(head);
  const payload = decodeObject(body);
  if (!header || !payload) return undefined;
  // A copy: the part would keep the whole token in memory.
  if (header !== lastHeader.value) lastHeader = { text: Buffer.from(head, 'latin1').toString('latin1'), value: header };
  return { header, payload };
}

/** All tokens under one key begin alike. */
let lastHeader: { readonly text: string; readonly value: DecodedJws['header'] | undefined } = { text: '', value: undefined };

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function decodeCanonical(text: string): Buffer | undefined {
  if (!/^[A-Za-z0-9_-]+$/.test(text)) return undefined;
  const bytes = Buffer.from(text, 'base64url');
  return bytes.toString('base64url') === text ? bytes : undefined;
}

function decodeObject(part: string): Readonly<Record<string, unknown>> | undefined {
  const bytes = decodeCanonical(part);
  if (!bytes) return undefined;
  try {
    const text = utf8.decode(bytes);
    const { depth, colons } = outlineOf(text);
    if (depth > MAX_DEPTH) return undefined;
    const value: unknown = JSON.parse(text);
    if (value === null || typeof value !== 'object' || Array.isArray(value)) return undefined;
    // A member that stands there twice is one in the value.
    if (colons !== countMembers(value)) return undefined;
    return { ...value };
  } catch {
    return undefined;
  }
}

/** Ours have two levels, and tokens of other issuers a few more (Keycloak's `resource_access` has four). */
const MAX_DEPTH = 16;

/** Of objects inside it as well; it is known not to nest deeply. */
function countMembers(value: unknown): number {
  if (value === null || typeof value !== 'object') return 0;
  const members = Object.values(value);
  return members.reduce<number>((sum, member) => sum + countMembers(member), Array.isArray(value) ? 0 : members.length);
}
