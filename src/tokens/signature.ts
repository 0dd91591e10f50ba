import { constants, type KeyObject, verify } from 'node:crypto';
import type { VerificationKey } from '../keys/jwks.js';

/** How each algorithm verifies (RFC 7518, sections 3.3 to 3.5; RFC 8037, section 3.1): the digest, and the key with what goes with it. */
const SCHEMES: Readonly<
  Record<VerificationKey['algorithm'], readonly [digest: string | null, keyOf: (key: KeyObject) => Parameters<typeof verify>[2]]>
> = {
  RS256: ['sha256', (key) => key],
  PS256: ['sha256', (key) => ({ key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST })],
  ES256: ['sha256', (key) => ({ key, dsaEncoding: 'ieee-p1363' })],
  EdDSA: [null, (key) => key],
};

/**
 * Whether a compact JWS, whose `alg` was found to be that of the key, was signed by it. False too for bytes that cannot be a signature. On the
 * event loop: to hand it to another thread and back costs more than RSA takes.
 */
export function verifySignature(token: string, { algorithm, publicKey }: VerificationKey): boolean {
  const [digest, keyOf] = SCHEMES[algorithm];
  const at = token.lastIndexOf('.');
  try {
    return verify(digest, Buffer.from(token.slice(0, at), 'latin1'), keyOf(publicKey), Buffer.from(token.slice(at + 1), 'base64url'));
  } catch {
    return false;
  }
}
