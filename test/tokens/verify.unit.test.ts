import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { calculateJwkThumbprint, exportJWK, SignJWT } from 'jose';
import { describe, expect, it } from 'vitest';
import { KeyRing } from '../../src/keys/key-ring.js';
import { publicJwkSchema } from '../../src/keys/public-jwk.js';
import { digestOf } from '../../src/tokens/remembered.js';
import { createVerifier, type FleetPolicy } from '../../src/tokens/verify.js';

const NOW = 1_800_000_000_000;
const ISSUER = 'https://app.example.com';
const AUDIENCE = 'https://api.example.com';
const PAIRS = {
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => generateKeyPairSync('ed25519'),
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  PS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
};

async function createBed(algorithm: keyof typeof PAIRS = 'ES256') {
  const { privateKey, publicKey } = PAIRS[algorithm]();
  const exported = await exportJWK(publicKey);
  const kid = await calculateJwkThumbprint(exported);
  const jwk = publicJwkSchema.parse({ ...exported, kid, alg: algorithm, use: 'sig' });
  const ring = new KeyRing(() => NOW);
  const stored = [{ jwk, firstSeenAt: NOW, lastSeenAt: NOW }];
  ring.setStored(stored);
  const bed = {
    ring,
    stored,
    kid,
    fleetPolicies: [] as FleetPolicy[],
    checks: 0,
    size: 0,
    sign: async (claims: Record<string, unknown> = {}, key: KeyObject = privateKey) =>
      await new SignJWT({
        iss: ISSUER,
        aud: AUDIENCE,
        sub: 'u1',
        client_id: 'web',
        sid: 's1',
        jti: 'j1',
        iat: NOW / 1000,
        exp: NOW / 1000 + 600,
        ...claims,
      })
        .setProtectedHeader({ alg: algorithm, typ: 'at+jwt', kid })
        .sign(key),
  };
  const verify = createVerifier({
    policy: { issuer: ISSUER, audience: [AUDIENCE], clockSkewSeconds: 30 },
    fleetPolicies: () => bed.fleetPolicies,
    keys: ring,
    clock: { now: () => NOW },
    checked: () => {
      bed.checks += 1;
    },
    remember: {
      max: 100,
      counted: (size) => {
        bed.size = size;
      },
    },
  });
  return { ...bed, get: () => bed, verify };
}

describe('a remembered token', () => {
  it.each(['ES256', 'EdDSA', 'RS256', 'PS256'] as const)('of %s is verified once, and by nothing but its own key', async (algorithm) => {
    const bed = await createBed(algorithm);
    const token = await bed.sign();
    for (let n = 0; n < 3; n++) expect(await bed.verify(token)).toMatchObject({ kind: 'authenticated', principal: { subject: 'u1' } });
    expect(bed.get().checks).toBe(1);
    const other = await bed.sign({}, PAIRS[algorithm]().privateKey);
    expect(await bed.verify(other)).toEqual({ kind: 'rejected', reason: 'bad-signature' });
    for (const signature of ['', 'AAAA', Buffer.alloc(512).toString('base64url')])
      expect(await bed.verify(`${token.split('.').slice(0, 2).join('.')}.${signature}`)).toEqual({ kind: 'rejected', reason: 'bad-signature' });
    expect(bed.get().size).toBe(1);
  });

  it('answers at once, with the same outcome', async () => {
    const bed = await createBed();
    const token = await bed.sign();
    const first = await bed.verify(token);
    expect(bed.verify(token)).toBe(first);
  });

  it('ends with its key: taken out of the ring, or denied', async () => {
    const bed = await createBed();
    const token = await bed.sign();
    await bed.verify(token);
    expect(bed.get().size).toBe(1);
    bed.ring.setStored([]);
    expect(await bed.verify(token)).toMatchObject({ kind: 'in-doubt' });
    expect(bed.get().size).toBe(0);
    bed.ring.setStored(bed.stored);
    await bed.verify(token);
    bed.ring.deny(new Set([bed.kid]));
    expect(await bed.verify(token)).toEqual({ kind: 'rejected', reason: 'revoked-kid' });
    expect(bed.get().size).toBe(0);
  });

  it('stays while the ring is made anew with the same key', async () => {
    const bed = await createBed();
    const token = await bed.sign();
    await bed.verify(token);
    bed.ring.setStored([...bed.stored]);
    await bed.verify(token);
    expect(bed.get().checks).toBe(1);
  });

  it('ends with the issuer or audience under which it was good', async () => {
    const bed = await createBed();
    const [byIssuer, byAudience] = [await bed.sign({ iss: 'https://old.example.com' }), await bed.sign({ aud: 'https://old-api.example.com' })];
    bed.get().fleetPolicies = [
      { issuer: 'https://old.example.com', audience: [AUDIENCE] },
      { issuer: ISSUER, audience: ['https://old-api.example.com'] },
    ];
    for (const token of [byIssuer, byAudience]) expect(await bed.verify(token)).toMatchObject({ kind: 'authenticated' });
    bed.get().fleetPolicies = [];
    expect(await bed.verify(byIssuer)).toEqual({ kind: 'rejected', reason: 'bad-issuer' });
    expect(await bed.verify(byAudience)).toEqual({ kind: 'rejected', reason: 'bad-audience' });
    expect(bed.get().size).toBe(0);
  });

  it('for a service is good where that service is asked about, and nowhere else', async () => {
    const bed = await createBed();
    const token = await bed.sign({ aud: 'https://orders.internal' });
    expect(await bed.verify(token, 'https://orders.internal')).toMatchObject({ kind: 'authenticated' });
    expect(await bed.verify(token)).toEqual({ kind: 'rejected', reason: 'bad-audience' });
    expect(await bed.verify(token, 'https://stock.internal')).toEqual({ kind: 'rejected', reason: 'bad-audience' });
  });

  it('is kept under its SHA-256', () => {
    expect(Buffer.from(digestOf('abc'), 'latin1').toString('hex')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  });
});
