import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { remember } from './transcript.js';

/** A new private key as PKCS#8 PEM. */
export function newPem(algorithm: 'ES256' | 'EdDSA' | 'RS256' | 'PS256' = 'ES256'): string {
  const { privateKey } =
    algorithm === 'ES256'
      ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
      : algorithm === 'EdDSA'
        ? generateKeyPairSync('ed25519')
        : generateKeyPairSync('rsa', { modulusLength: 2048 });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  rememberPem(pem);
  return pem;
}

export function writeKey(directory: string, name: string, text = newPem(), mode = 0o600): void {
  writeFileSync(join(directory, name), text, { mode });
}

function rememberPem(pem: string): void {
  remember(...pem.split('\n').filter((line) => line !== '' && !line.startsWith('-----')));
}
