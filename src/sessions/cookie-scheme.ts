import { timingSafeEqual } from 'node:crypto';
import { sign, unsign } from 'cookie-signature';
import Keygrip from 'keygrip';
import type { SessionConfig } from '../config/config.js';
import type { CookiePairs } from './cookies.js';

/** How an app puts a session's id into a cookie, and signs it. The newest secret signs, all of them verify. */
export interface CookieScheme {
  readonly cookieNames: readonly string[];
  /** The ids in the request's cookies, each once; their signatures are looked at by `isSigned` only. */
  read(cookies: CookiePairs): readonly PresentedId[];
  /** The cookies of a browser that has this id. */
  write(id: string): readonly (readonly [name: string, value: string])[];
}

export interface PresentedId {
  readonly id: string;
  /** Id and signature, by which they are known again; absent where the app does not sign, or several signatures came. */
  readonly proof?: string | undefined;
  /** Whether one of the secrets has signed it; true where the app does not sign. */
  isSigned(): boolean;
}

/** A request's cookies of one name that are looked at, at most: each costs an HMAC per secret. */
const MAX_COOKIES_OF_A_NAME = 64;

type SchemeOptions = Pick<SessionConfig, 'cookie' | 'signedBy' | 'signature' | 'secrets'>;

export function createCookieScheme(options: SchemeOptions): CookieScheme {
  switch (options.signedBy) {
    case 'keygrip':
      return createKeygripScheme(options);
    case 'none':
      return createPlainScheme(options);
    case 'express':
      return createSuffixScheme(options, 's:');
    case 'cookie-signature':
      return createSuffixScheme(options, '');
  }
}

/** Koa's cookies: the id as it is, and its HMAC in a second cookie, `<cookie>.sig`. */
function createKeygripScheme({ cookie, secrets, signature: { algorithm, encoding } = KOA_SIGNATURE }: SchemeOptions): CookieScheme {
  const signatureName = `${cookie}.sig`;
  const signers = secrets.map((secret) => new Keygrip([secret.reveal()], algorithm, encoding));
  return {
    cookieNames: [cookie, signatureName],
    read(cookies) {
      const signatures = valuesOf(cookies, signatureName);
      return valuesOf(cookies, cookie).map((id) => ({
        id,
        proof: signatures.length === 1 ? `${id};${signatures[0]}` : undefined,
        isSigned: () => hasKeygripSignature(`${cookie}=${id}`, signatures, signers),
      }));
    },
    write: (id) => [[cookie, id], ...signers.slice(0, 1).map((newest) => [signatureName, newest.sign(`${cookie}=${id}`)] as const)],
  };
}

/** What keygrip does where the app has given it secrets only. */
const KOA_SIGNATURE = { algorithm: 'sha1', encoding: 'base64' } as const;

/** One HMAC for each secret, however many signatures came: cookies of several paths bring several. */
function hasKeygripSignature(pair: string, signatures: readonly string[], signers: readonly Keygrip[]): boolean {
  return signers.some((signer) => {
    const expected = Buffer.from(signer.sign(pair));
    return signatures.some((given) => {
      const bytes = Buffer.from(given);
      return bytes.length === expected.length && timingSafeEqual(bytes, expected);
    });
  });
}

/** Express: id and HMAC-SHA256 in one value, `<id>.<signature>`, percent-encoded, with `s:` in front where `res.cookie` signs. */
function createSuffixScheme({ cookie, secrets }: SchemeOptions, mark: string): CookieScheme {
  return {
    cookieNames: [cookie],
    read: (cookies) =>
      valuesOf(cookies, cookie).map((encoded) => {
        const value = decode(encoded);
        const signed = value.startsWith(mark) ? value.slice(mark.length) : '';
        return {
          id: signed.slice(0, Math.max(0, signed.lastIndexOf('.'))),
          proof: value,
          isSigned: () => secrets.some((secret) => unsign(signed, secret.reveal()) !== false),
        };
      }),
    write: (id) => secrets.slice(0, 1).map((newest) => [cookie, encodeURIComponent(`${mark}${sign(id, newest.reveal())}`)] as const),
  };
}

function createPlainScheme({ cookie }: SchemeOptions): CookieScheme {
  return {
    cookieNames: [cookie],
    read: (cookies) => valuesOf(cookies, cookie).map((value) => ({ id: decode(value), isSigned: () => true })),
    write: (id) => [[cookie, encodeURIComponent(id)]],
  };
}

function valuesOf(cookies: CookiePairs, name: string): string[] {
  const values: string[] = [];
  for (const [found, value] of cookies) {
    if (found === name && value !== '' && !values.includes(value) && values.length < MAX_COOKIES_OF_A_NAME) values.push(value);
  }
  return values;
}

/** Empty for what is not percent-encoded as a cookie is: it is no id. */
function decode(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return '';
  }
}
