import { constants, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';
import type { Config } from '../config/config.js';
import type { PublicJwk } from './public-jwk.js';

export type Algorithm = Config['keys']['algorithm'];

/** Signs with one private key, wherever that is. */
export interface Signer {
  /** RFC 7638 thumbprint. */
  readonly kid: string;
  readonly algorithm: Algorithm;
  readonly publicJwk: PublicJwk;
  /** Length of a signature. */
  readonly signatureBytes: number;
  /** The signature as a JWS has it (RFC 7518, section 3; RFC 8037, section 3.1). EC and Ed25519 answer at once; RSA is left to the thread pool. */
  sign(bytes: Uint8Array): Uint8Array | Promise<Uint8Array>;
}

const signAside = promisify(sign);

/** Of a key that is in memory. */
export function signWith(privateKey: KeyObject, publicJwk: PublicJwk, algorithm: Algorithm): Signer {
  const { kid } = publicJwk;
  const modulusBits = privateKey.asymmetricKeyDetails?.modulusLength;
  return { kid, algorithm, publicJwk, signatureBytes: modulusBits === undefined ? 64 : modulusBits / 8, sign: signatureBy(privateKey, algorithm) };
}

function signatureBy(key: KeyObject, algorithm: Algorithm): Signer['sign'] {
  switch (algorithm) {
    case 'ES256':
      return (bytes) => sign('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' });
    case 'EdDSA':
      return (bytes) => sign(null, bytes, key);
    case 'RS256':
      return async (bytes) => await signAside('sha256', bytes, { key, padding: constants.RSA_PKCS1_PADDING });
    case 'PS256':
      return async (bytes) =>
        await signAside('sha256', bytes, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST });
  }
}
