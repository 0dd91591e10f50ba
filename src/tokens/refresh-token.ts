import { createHash, hkdfSync } from 'node:crypto';
import { seal, unseal } from '../redis/signed-text.js';

/** `xfr1.<sid>.<family>.<family secret>.<rotating secret>`: what a refresh token says, before anything is looked up. */
export interface RefreshToken {
  readonly sid: string;
  readonly family: string;
  readonly secret: string;
  /** Another with each use. */
  readonly rotating: string;
}

const FORM = /^xfr1\.([\w-]{32})\.(\d{13}[\w-]{16})\.([\w-]{43})\.([\w-]{43})$/;

/** Undefined for everything that is no refresh token of ours. */
export function parseRefreshToken(text: string): RefreshToken | undefined {
  const [, sid, family, secret, rotating] = FORM.exec(text) ?? [];
  return sid && family && secret && rotating ? { sid, family, secret, rotating } : undefined;
}

export function formatRefreshToken({ sid, family, secret, rotating }: RefreshToken): string {
  return `xfr1.${sid}.${family}.${secret}.${rotating}`;
}

/** What Redis keeps of a secret. */
export function hashSecret(secret: string): string {
  return createHash('sha256').update(secret).digest('base64url');
}

/** The successor, so that only who holds the predecessor can read it: Redis alone reveals none. */
export function sealSuccessor(predecessor: RefreshToken, successor: string): string {
  return seal(keyOf(predecessor), contextOf(predecessor), successor);
}

export function unsealSuccessor(predecessor: RefreshToken, sealed: string): string | undefined {
  return unseal(keyOf(predecessor), contextOf(predecessor), sealed);
}

function keyOf({ rotating }: RefreshToken): Buffer {
  return Buffer.from(hkdfSync('sha256', rotating, Buffer.alloc(0), 'crossfade v1 successor', 32));
}

function contextOf({ sid, family }: RefreshToken): string {
  return `successor\0${sid}\0${family}`;
}
