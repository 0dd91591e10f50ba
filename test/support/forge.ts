import { createHmac, createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeJwt, decodeProtectedHeader, SignJWT } from 'jose';
import { rememberToken } from './transcript.js';

type Json = Readonly<Record<string, unknown>>;

/** The private key of a world, as somebody who knows the directory would read it. */
export function readKey(directory: string, name = 'first.pem'): KeyObject {
  return createPrivateKey(readFileSync(join(directory, 'keys', name), 'utf8'));
}

/** A token like `token` with other members, signed with the right key: bad in nothing but what was changed. */
export async function resign(token: string, key: KeyObject, changed: { header?: Json; claims?: Json; without?: readonly string[] }): Promise<string> {
  const claims: Record<string, unknown> = { ...decodeJwt(token), ...changed.claims };
  for (const name of changed.without ?? []) delete claims[name];
  const header = { alg: 'ES256', ...decodeProtectedHeader(token), ...changed.header };
  const crit = 'crit' in header ? { crit: { 'x-unknown': true, b64: true } } : {};
  const forged = await new SignJWT(claims).setProtectedHeader(header).sign(key, crit);
  rememberToken(forged);
  return forged;
}

/** A token of which nothing but the spelling is checked by whoever makes it. */
export function assemble(header: Json | string, payload: Json | string, signature = ''): string {
  const encode = (part: Json | string) => Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url');
  return `${encode(header)}.${encode(payload)}.${signature}`;
}

/** Header and payload exactly as they are written, under a good ES256 signature. */
export function signText(header: string, payload: string, key: KeyObject): string {
  const input = assemble(header, payload).slice(0, -1);
  return `${input}.${sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

/** HS256 keyed with `secret`: what a verifier falls for that takes the algorithm from the token. */
export function signHs256(payload: Json, header: Json, secret: string | Buffer): string {
  const input = assemble({ ...header, alg: 'HS256' }, payload).slice(0, -1);
  return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
}
