import { createCipheriv, createDecipheriv, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

// Redis is a shared room (law 10): what decides about something is signed, and what is nobody's business is sealed. Both
// are bound to a context, such as the key that they stand under, so that nothing can be moved to another place.

/** `text` with a MAC (HMAC-SHA256) in front. */
export function signText(key: Buffer, context: string, text: string): string {
  return `${macOf(key, context, text).toString('base64url')}.${text}`;
}

/** What was signed; undefined where the MAC is not that of this key, context and text. */
export function openSignedText(key: Buffer, context: string, signed: string): string | undefined {
  const dot = signed.indexOf('.');
  if (dot < 0) return undefined;
  const text = signed.slice(dot + 1);
  const expected = macOf(key, context, text);
  const given = Buffer.from(signed.slice(0, dot), 'base64url');
  return given.length === expected.length && timingSafeEqual(given, expected) ? text : undefined;
}

function macOf(key: Buffer, context: string, text: string): Buffer {
  return createHmac('sha256', key).update(`${context}\0${text}`).digest();
}

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Encrypts and authenticates `text` (AES-256-GCM) under a 32-byte key. */
export function seal(key: Buffer, context: string, text: string): string {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(context));
  const body = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
  return Buffer.concat([nonce, body, cipher.getAuthTag()]).toString('base64url');
}

/** What was sealed; undefined where it was not sealed with this key and context. */
export function unseal(key: Buffer, context: string, sealed: string): string | undefined {
  const bytes = Buffer.from(sealed, 'base64url');
  if (bytes.length < NONCE_BYTES + TAG_BYTES) return undefined;
  const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES })
    .setAAD(Buffer.from(context))
    .setAuthTag(bytes.subarray(-TAG_BYTES));
  try {
    return decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES), undefined, 'utf8') + decipher.final('utf8');
  } catch {
    return undefined;
  }
}
