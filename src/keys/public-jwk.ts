import { z } from 'zod';

const jwkCommon = { kid: z.string().regex(/^[A-Za-z0-9_-]{43}$/), use: z.literal('sig') };

export const publicJwkSchema = z.discriminatedUnion('kty', [
  z.strictObject({ kty: z.literal('EC'), alg: z.literal('ES256'), ...jwkCommon, crv: z.literal('P-256'), x: z.string(), y: z.string() }),
  z.strictObject({ kty: z.literal('OKP'), alg: z.literal('EdDSA'), ...jwkCommon, crv: z.literal('Ed25519'), x: z.string() }),
  z.strictObject({ kty: z.literal('RSA'), alg: z.enum(['RS256', 'PS256']), ...jwkCommon, n: z.string(), e: z.string() }),
]);

/** The known members of a public key, without what a later release may have added. Undefined: of a kind that is not known here. */
export function readPublicJwk(jwk: unknown): PublicJwk | undefined {
  const found = z.looseObject({ kty: z.string() }).safeParse(jwk).data;
  const schema = publicJwkSchema.options.find(({ shape }) => shape.kty.value === found?.kty);
  if (!found || !schema) return undefined;
  const known = Object.fromEntries(Object.entries(found).filter(([name]) => name in schema.shape));
  return publicJwkSchema.safeParse(known).data;
}

/** A public key as the JWKS shows it (RFC 7517): public members only, by construction. */
export type PublicJwk = z.output<typeof publicJwkSchema>;
