import { createHmac } from 'node:crypto';
import { sign, unsign } from 'cookie-signature';
import type { SessionConfig } from '../config/config.js';
import type { Secret } from '../config/secret.js';
import type { CookiePairs } from './cookies.js';
import type { CookieSecrets } from './entry-secrets.js';

/** How an app puts a session's id into a cookie, and signs it. */
export interface CookieScheme {
  readonly cookieNames: readonly string[];
  /** The ids in the request's cookies, each once; their signatures are looked at by `signer` only. */
  read(cookies: CookiePairs): readonly PresentedId[];
  /** Whether what this signer has signed is good still. */
  isSigner(signer: string): boolean;
  /** The cookies of a browser that has this id. None where no secret may sign. */
  write(id: string): readonly (readonly [name: string, value: string])[];
}

export interface PresentedId {
  readonly id: string;
  /** Id and signature, by which they are known again; absent where the app does not sign, or several signatures came. */
  readonly proof?: string | undefined;
  /** Name of the secret that has signed it; `''` where the app does not sign. Undefined: none has. */
  signer(): string | undefined;
}

/** A request's cookies of one name that are looked at, at most: each costs an HMAC per secret. */
const MAX_COOKIES_OF_A_NAME = 64;

/** What cookies of an app that does not sign count as signed by. */
const UNSIGNED = '';

type SchemeOptions = Pick<SessionConfig, 'cookie' | 'signedBy' | 'signature'>;

/** `secrets`: as they are now; not asked where the app does not sign. */
export function createCookieScheme(options: SchemeOptions, secrets: Pick<CookieSecrets, 'verifying' | 'signing'>): CookieScheme {
  switch (options.signedBy) {
    case 'keygrip':
      return createKeygripScheme(options, secrets);
    case 'none':
      return createPlainScheme(options);
    case 'express':
      return createSuffixScheme(options, secrets, 's:');
    case 'cookie-signature':
      return createSuffixScheme(options, secrets, '');
  }
}

/** Koa's cookies: the id as it is, and its HMAC in a second cookie, `<cookie>.sig`. */
function createKeygripScheme({ cookie, signature = KOA_SIGNATURE }: SchemeOptions, secrets: Secrets): CookieScheme {
  const signatureName = `${cookie}.sig`;
  const signatureOf = (id: string, secret: Secret) => signAsKeygrip(`${cookie}=${id}`, secret, signature);
  return {
    cookieNames: [cookie, signatureName],
    read(cookies) {
      // Cookies of several paths bring several. A set finds by a hash with a seed of this process: its time says nothing of what is in it.
      const signatures = new Set(valuesOf(cookies, signatureName));
      const [only] = signatures.size === 1 ? signatures : [];
      return valuesOf(cookies, cookie).map((id) => ({
        id,
        proof: only === undefined ? undefined : `${id};${only}`,
        signer: () => secrets.verifying.find(({ secret }) => signatures.has(signatureOf(id, secret)))?.name,
      }));
    },
    isSigner: (signer) => secrets.verifying.some(({ name }) => name === signer),
    write(id) {
      const { signing } = secrets;
      return signing ? [[cookie, id], [signatureName, signatureOf(id, signing.secret)] as const] : [];
    },
  };
}

type Secrets = Pick<CookieSecrets, 'verifying' | 'signing'>;

/**
 * The signature that keygrip makes: an HMAC, of whose base64 it replaces what base64url does not have.
 * @throws {Error} of Node.js for a hash that it does not have.
 */
export function signAsKeygrip(text: string, secret: Secret, { algorithm, encoding }: NonNullable<SessionConfig['signature']>): string {
  return createHmac(algorithm, secret.reveal())
    .update(text)
    .digest(encoding === 'hex' ? 'hex' : 'base64url');
}

/** What keygrip does where the app has given it secrets only. */
const KOA_SIGNATURE = { algorithm: 'sha1', encoding: 'base64' } as const;

/** Express: id and HMAC-SHA256 in one value, `<id>.<signature>`, percent-encoded, with `s:` in front where `res.cookie` signs. */
function createSuffixScheme({ cookie }: SchemeOptions, secrets: Secrets, mark: string): CookieScheme {
  return {
    cookieNames: [cookie],
    read: (cookies) =>
      valuesOf(cookies, cookie).map((encoded) => {
        const value = decode(encoded);
        const signed = value.startsWith(mark) ? value.slice(mark.length) : '';
        return {
          id: signed.slice(0, Math.max(0, signed.lastIndexOf('.'))),
          proof: value,
          signer: () => secrets.verifying.find(({ secret }) => unsign(signed, secret.reveal()) !== false)?.name,
        };
      }),
    isSigner: (signer) => secrets.verifying.some(({ name }) => name === signer),
    write(id) {
      const { signing } = secrets;
      return signing ? [[cookie, encodeURIComponent(`${mark}${sign(id, signing.secret.reveal())}`)] as const] : [];
    },
  };
}

function createPlainScheme({ cookie }: SchemeOptions): CookieScheme {
  return {
    cookieNames: [cookie],
    read: (cookies) => valuesOf(cookies, cookie).map((value) => ({ id: decode(value), signer: () => UNSIGNED })),
    isSigner: () => true,
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
