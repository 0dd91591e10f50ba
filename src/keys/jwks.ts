import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { z } from 'zod';
import { type Members, readEntries, readMembers, writeEntries, writeMembers } from '../redis/entries.js';
import { parseJson } from '../redis/replies.js';
import type { Codec } from '../redis/signed-value.js';
import { type PublicJwk, publicJwkSchema, readPublicJwk } from './public-jwk.js';
import type { Algorithm } from './signer.js';

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

const storedKeySchema = z.object({
  /** Read by itself. */
  jwk: z.looseObject({}),
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
});

/** Under which issuer and audiences tokens were signed, and until when: what was issued is accepted for as long as it lives. */
const storedPolicySchema = z.object({ issuer: z.string(), audience: z.array(z.string()), lastSignedAt: z.number(), keepMs: z.number() });

/** The public keys as Redis keeps them: what verifies after a restart with broken keys (law 7). Times in ms. */
export interface StoredJwks {
  readonly keys: readonly StoredKey[];
  readonly policies: readonly StoredPolicy[];
  /** What a later release has written and this one does not understand, as the texts that they are. */
  readonly unread: UnreadJwks;
}
/** `jwkAsStored`: with members that this release does not know. */
export type StoredKey = Omit<z.output<typeof storedKeySchema>, 'jwk'> & { readonly jwk: PublicJwk; readonly jwkAsStored?: object };
export type StoredPolicy = z.output<typeof storedPolicySchema>;

export interface UnreadJwks {
  readonly keys: readonly string[];
  readonly policies: readonly string[];
  readonly rest: Members;
}

export const NOTHING_UNREAD: UnreadJwks = { keys: [], policies: [], rest: new Map() };

function readStoredKey(text: string): StoredKey | undefined {
  const found = storedKeySchema.loose().safeParse(parseJson(text)).data;
  const jwk = found && readPublicJwk(found.jwk);
  if (!jwk) return undefined;
  const isAsKnown = publicJwkSchema.safeParse(found.jwk).success;
  return { ...found, jwk, ...(isAsKnown ? {} : { jwkAsStored: found.jwk }) };
}

/** The kids of keys that are not understood: a token under one of them may be good (law 1). */
export function unreadKids({ keys }: UnreadJwks): readonly string[] {
  return keys.flatMap((text) => z.object({ jwk: z.object({ kid: z.string() }) }).safeParse(parseJson(text)).data?.jwk.kid ?? []);
}

export const storedJwksCodec: Codec<StoredJwks> = {
  read(payload) {
    const members = readMembers(payload);
    const keys = readEntries(members?.get('keys'));
    const policies = readEntries(members?.get('policies') ?? '[]');
    if (!members || !keys || !policies) return undefined;
    const readPolicy = (text: string) => storedPolicySchema.loose().safeParse(parseJson(text)).data;
    return {
      keys: keys.flatMap((text) => readStoredKey(text) ?? []),
      policies: policies.flatMap((text) => readPolicy(text) ?? []),
      unread: {
        keys: keys.filter((text) => !readStoredKey(text)),
        policies: policies.filter((text) => !readPolicy(text)),
        rest: new Map([...members].filter(([name]) => name !== 'keys' && name !== 'policies')),
      },
    };
  },
  write({ keys, policies, unread }) {
    const foreign = new Set(unreadKids(unread));
    const known = keys.flatMap(({ jwkAsStored, jwk, ...key }) => (foreign.has(jwk.kid) ? [] : [JSON.stringify({ jwk: jwkAsStored ?? jwk, ...key })]));
    return writeMembers([
      ...unread.rest,
      ['keys', writeEntries([...known, ...unread.keys])],
      ['policies', writeEntries([...policies.map((policy) => JSON.stringify(policy)), ...unread.policies])],
    ]);
  },
};
