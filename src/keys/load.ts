import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { calculateJwkThumbprint } from 'jose';
import { z } from 'zod';
import type { Config } from '../config/config.js';
import { errnoOf } from '../errors.js';
import { type PublicJwk, publicJwkSchema } from './public-jwk.js';
import { type Algorithm, type Signer, signWith } from './signer.js';

const privateJwkSchema = z.looseObject({
  kty: z.enum(['EC', 'OKP', 'RSA']),
  d: z.string(),
  kid: z.string().optional(),
  alg: z.string().optional(),
  use: z.string().optional(),
  key_ops: z.array(z.string()).optional(),
});

/** A private key whose file passed every check that needs no other key. */
export interface LoadedKey extends Signer {
  /** Name in the key directory. */
  readonly file: string;
  /** The time in front of the file's name, in ms since the epoch. */
  readonly signsFrom?: number;
}

/** A file that is not used, and why, in words for the person who put it there. */
export interface RejectedFile {
  readonly file: string;
  readonly reason: string;
}

export interface LoadedDirectory {
  readonly keys: readonly LoadedKey[];
  readonly rejected: readonly RejectedFile[];
}

export type LoadOptions = Pick<Config['keys'], 'directory' | 'algorithm' | 'allowGroupRead'>;

const MAX_FILE_BYTES = 16_384;

/** Reads every `*.pem` and `*.jwk.json` of the key directory. Never throws: what is wrong is in `rejected`, by name. */
export async function loadKeyDirectory(options: LoadOptions): Promise<LoadedDirectory> {
  let names: string[];
  try {
    names = (await readdir(options.directory)).filter((name) => !name.startsWith('.') && /\.(pem|jwk\.json)$/.test(name)).sort();
  } catch (error) {
    return { keys: [], rejected: [{ file: options.directory, reason: `the key directory cannot be read (${errnoOf(error)})` }] };
  }
  const keys: LoadedKey[] = [];
  const rejected: RejectedFile[] = [];
  for (const file of names) {
    const loaded = await loadKeyFile(file, options);
    if ('reason' in loaded) rejected.push(loaded);
    else if (keys.some(({ kid }) => kid === loaded.kid))
      rejected.push({ file, reason: `holds the same key as ${keys.find(({ kid }) => kid === loaded.kid)?.file}: a kid must be unique` });
    else keys.push(loaded);
  }
  return { keys, rejected };
}

async function loadKeyFile(file: string, options: LoadOptions): Promise<LoadedKey | RejectedFile> {
  try {
    const path = join(options.directory, file);
    const found = await stat(path);
    if (!found.isFile()) throw new KeyProblem('is not a file');
    const { mode, size } = found;
    refuseReadable(mode, options.allowGroupRead);
    if (size > MAX_FILE_BYTES) throw new KeyProblem(`is over ${MAX_FILE_BYTES} bytes`);
    const text = await readFile(path, 'utf8');
    if (text.trim() === '') throw new KeyProblem('is empty');
    const jwk = file.endsWith('.pem') ? undefined : parseJwk(text);
    const privateKey = jwk ? importJwk(jwk) : parsePem(text);
    refuseUnfit(privateKey, options.algorithm);
    const publicJwk = await toPublicJwk(privateKey, options.algorithm);
    if (jwk) refuseContradictions(jwk, publicJwk);
    const signsFrom = timeOf(file);
    return { ...signWith(privateKey, publicJwk, options.algorithm), file, ...(signsFrom === undefined ? {} : { signsFrom }) };
  } catch (error) {
    return { file, reason: error instanceof KeyProblem ? error.message : `cannot be read (${errnoOf(error)})` };
  }
}

class KeyProblem extends Error {}

function refuseReadable(mode: number, allowGroupRead: boolean): void {
  if (mode & 0o007) throw new KeyProblem('is readable by everybody: chmod 600');
  if (mode & 0o030) throw new KeyProblem('is writable or executable by its group: chmod 600');
  if (mode & 0o040 && !allowGroupRead) throw new KeyProblem('is readable by its group: chmod 600, or set keys.allowGroupRead');
}

function parsePem(text: string): KeyObject {
  if (text.includes('\\n')) throw new KeyProblem('has \\n written out instead of line ends');
  if (text.includes('BEGIN ENCRYPTED PRIVATE KEY') || text.includes('Proc-Type: 4,ENCRYPTED'))
    throw new KeyProblem('is encrypted: keep it in the clear with mode 600, or mount it from a secret store');
  if (text.split('PRIVATE KEY-----').length > 3) throw new KeyProblem('holds more than one key');
  const old = /BEGIN (RSA|EC|DSA) PRIVATE KEY/.exec(text);
  if (old) throw new KeyProblem(`is ${old[1] === 'RSA' ? 'PKCS#1' : 'SEC 1'}, not PKCS#8: openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW`);
  if (!text.includes('-----BEGIN PRIVATE KEY-----')) throw new KeyProblem(text.includes('-----BEGIN ') ? 'holds no private key' : 'is not PEM');
  if (!text.includes('-----END PRIVATE KEY-----')) throw new KeyProblem('is cut off: no END line');
  try {
    return createPrivateKey({ key: text, format: 'pem' });
  } catch {
    throw new KeyProblem('does not parse as a PKCS#8 private key');
  }
}

function parseJwk(text: string): z.output<typeof privateJwkSchema> {
  let json: unknown;
  try {
    json = JSON.parse(text.replace(/^\ufeff/, ''));
  } catch {
    throw new KeyProblem('is not JSON, or cut off');
  }
  const jwk = privateJwkSchema.safeParse(json);
  if (!jwk.success) throw new KeyProblem('holds no private JWK of type EC, OKP or RSA');
  return jwk.data;
}

function importJwk(jwk: z.output<typeof privateJwkSchema>): KeyObject {
  try {
    return createPrivateKey({ key: jwk, format: 'jwk' });
  } catch {
    throw new KeyProblem('does not parse as a private JWK');
  }
}

function refuseUnfit(key: KeyObject, algorithm: Algorithm): void {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  const wanted = algorithm === 'ES256' ? 'ec' : algorithm === 'EdDSA' ? 'ed25519' : 'rsa';
  if (type !== wanted) throw new KeyProblem(`is a key of type ${type}, which does not fit keys.algorithm ${algorithm}`);
  if (type === 'ec' && details?.namedCurve !== 'prime256v1') throw new KeyProblem(`is on the curve ${details?.namedCurve}; ES256 needs P-256`);
  if (type === 'rsa') {
    if ((details?.modulusLength ?? 0) < 2048) throw new KeyProblem(`is RSA with ${details?.modulusLength} bits; at least 2048 are needed`);
    if ((details?.publicExponent ?? 0n) < 65_537n) throw new KeyProblem(`has the RSA exponent ${details?.publicExponent}; at least 65537 is needed`);
  }
}

async function toPublicJwk(key: KeyObject, alg: Algorithm): Promise<PublicJwk> {
  const jwk = createPublicKey(key).export({ format: 'jwk' });
  return publicJwkSchema.parse({ ...jwk, kid: await calculateJwkThumbprint(jwk), alg, use: 'sig' });
}

/** What a private JWK says of itself must fit what its private half gives. */
function refuseContradictions(jwk: z.output<typeof privateJwkSchema>, publicJwk: PublicJwk): void {
  if (jwk.kid !== undefined && jwk.kid !== publicJwk.kid) throw new KeyProblem('has a kid that is not its RFC 7638 thumbprint; leave the member out');
  if (jwk.alg !== undefined && jwk.alg !== publicJwk.alg) throw new KeyProblem(`says alg ${jwk.alg}, which is not keys.algorithm ${publicJwk.alg}`);
  if (jwk.use !== undefined && jwk.use !== 'sig') throw new KeyProblem('is not for signatures (use)');
  if (jwk.key_ops && !jwk.key_ops.includes('sign')) throw new KeyProblem('is not for signing (key_ops)');
  for (const [member, value] of Object.entries(publicJwk)) {
    if (/^(crv|x|y|n|e)$/.test(member) && jwk[member] !== value) throw new KeyProblem('has a private half that does not match its public half');
  }
}

/** `20261201T000000Z-NAME.pem`: the time from which it signs. */
function timeOf(file: string): number | undefined {
  const parts = /^(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})Z-/.exec(file);
  if (!parts) return undefined;
  const [, year, month, day, hour, minute, second] = parts;
  const text = `${year}-${month}-${day}T${hour}:${minute}:${second}`;
  const time = Date.parse(`${text}Z`);
  if (Number.isNaN(time) || !new Date(time).toISOString().startsWith(text)) throw new KeyProblem('has a time in its name that does not exist');
  return time;
}
