import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { link, open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { calculateJwkThumbprint } from 'jose';
import { errnoOf } from '../errors.js';
import type { Algorithm } from './signer.js';

/** A new private key, PKCS#8 PEM, and its RFC 7638 thumbprint. */
export interface GeneratedKey {
  readonly kid: string;
  readonly pem: string;
}

const RSA_BITS = 3072;

export async function generateKey(algorithm: Algorithm): Promise<GeneratedKey> {
  const privateKey = generatePrivateKey(algorithm);
  return {
    kid: await calculateJwkThumbprint(createPublicKey(privateKey).export({ format: 'jwk' })),
    pem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}

function generatePrivateKey(algorithm: Algorithm): KeyObject {
  switch (algorithm) {
    case 'ES256':
      return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    case 'EdDSA':
      return generateKeyPairSync('ed25519').privateKey;
    case 'RS256':
    case 'PS256':
      return generateKeyPairSync('rsa', { modulusLength: RSA_BITS }).privateKey;
  }
}

/**
 * Writes a key file, mode 0600, so that nobody ever sees half of it: under a name that is not looked at, then under its own. Removes what
 * a run that was killed in between has left.
 * @throws {Error} in words for an operator, where it is there already or cannot be written.
 */
export async function writeKeyFile(directory: string, name: string, pem: string): Promise<string> {
  const path = join(directory, name);
  const half = join(directory, `.${name}.${process.pid}`);
  await sweep(directory);
  try {
    const file = await open(half, 'wx', 0o600);
    try {
      await file.writeFile(pem);
      await file.sync();
    } finally {
      await file.close();
    }
    await link(half, path);
  } catch (error) {
    throw new Error(`${path} cannot be written (${errnoOf(error)})`);
  } finally {
    await rm(half, { force: true });
  }
  return path;
}

/** A private key that no one uses must not lie about. One of a run that is under way is left alone. */
async function sweep(directory: string): Promise<void> {
  for (const name of await readdir(directory).catch(() => [])) {
    const pid = /^\..+\.pem\.(\d+)$/.exec(name)?.[1];
    if (pid === undefined) continue;
    const path = join(directory, name);
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Date.now() }));
    const isStale = Number(pid) === process.pid || !isRunning(Number(pid)) || Date.now() - mtimeMs > HALF_WRITTEN_MS;
    if (isStale) await rm(path, { force: true }).catch(() => undefined); // It is not a file, or not ours to remove.
  }
}

/** A number of another container may be one of this machine as well: then the file's age decides. */
const HALF_WRITTEN_MS = 60_000;

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errnoOf(error) === 'EPERM';
  }
}
