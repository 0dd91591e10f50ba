import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { z } from 'zod';
import { type Algorithm, type PublicJwk, publicJwkSchema } from './load.js';

/** What verification needs of a key. */
export interface VerificationKey {
  readonly kid: string;
  readonly algorithm: Algorithm;
  readonly publicKey: KeyObject;
}

/** Where verification looks a `kid` up. */
export interface KeySource {
  find(kid: string): VerificationKey | undefined;
  /** Whether it was taken out of use: nothing that it signed is good any more, whoever still has it. */
  isDenied(kid: string): boolean;
  /** True where a `kid` that is not found may be good all the same (law 1). */
  inDoubt(kid: string): boolean;
  /** Whether what the fleet issues may have changed without this instance hearing of it. */
  readonly isStale: boolean;
}

/** The JWKS as it is served (RFC 7517): text, and the strong ETag of it. */
export interface JwksDocument {
  readonly body: string;
  readonly etag: string;
}

export function serveJwks(keys: readonly PublicJwk[]): JwksDocument {
  const body = JSON.stringify({ keys });
  return { body, etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"` };
}

/** A key source made of the served text, as a stranger would read it. */
export function readJwks(body: string): KeySource {
  const { keys } = z.object({ keys: z.array(publicJwkSchema) }).parse(JSON.parse(body));
  const found = new Map(keys.map((jwk) => [jwk.kid, toVerificationKey(jwk)]));
  return { find: (kid) => found.get(kid), isDenied: () => false, inDoubt: () => false, isStale: false };
}

export function toVerificationKey(jwk: PublicJwk): VerificationKey {
  return { kid: jwk.kid, algorithm: jwk.alg, publicKey: createPublicKey({ key: { ...jwk }, format: 'jwk' }) };
}

/** The public keys as Redis keeps them: what verifies after a restart with broken keys (law 7). Times in ms. */
export const storedJwksSchema = z.object({
  keys: z.array(
    z.object({
      jwk: publicJwkSchema,
      firstSeenAt: z.number(),
      /** When some instance last had it in its ring from a file of its own. */
      lastSeenAt: z.number(),
      /** When it first signed; absent for a key that never has. */
      signedAt: z.number().optional(),
      /** When some instance last signed with it, to within a few seconds. */
      lastSignedAt: z.number().optional(),
      /** When an operator said that it shall not wait for instances that do not verify it. */
      forcedAt: z.number().optional(),
      /** How long it is kept after that, in ms: twice the longest life of a token that any instance gave under it. */
      keepMs: z.number().optional(),
    }),
  ),
  /** Under which issuer and audiences tokens were signed, and until when: what was issued is accepted for as long as it lives. */
  policies: z.array(z.object({ issuer: z.string(), audience: z.array(z.string()), lastSignedAt: z.number(), keepMs: z.number() })).default([]),
});

export type StoredJwks = z.output<typeof storedJwksSchema>;
export type StoredKey = StoredJwks['keys'][number];
export type StoredPolicy = StoredJwks['policies'][number];
