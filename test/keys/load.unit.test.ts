import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadKeyDirectory } from '../../src/keys/load.js';
import { newPem, writeKey } from '../support/keys.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'crossfade-keys-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const load = async (options: Partial<Parameters<typeof loadKeyDirectory>[0]> = {}) =>
  await loadKeyDirectory({ directory, algorithm: 'ES256', allowGroupRead: false, ...options });

function jwkOf(pem: string): Record<string, unknown> {
  return { ...createPrivateKey(pem).export({ format: 'jwk' }) };
}

describe('key files', () => {
  it('reads PKCS#8 PEM and private JWK, and names each key by its thumbprint', async () => {
    const pem = newPem();
    writeKey(directory, 'a.pem');
    writeKey(directory, '20200101T000000Z-b.jwk.json', JSON.stringify(jwkOf(pem)));
    writeKey(directory, 'README.txt', 'not looked at', 0o644);
    const { keys, rejected } = await load();
    expect(rejected).toEqual([]);
    expect(keys.map(({ file, signsFrom }) => ({ file, signsFrom }))).toEqual([
      { file: '20200101T000000Z-b.jwk.json', signsFrom: Date.UTC(2020, 0, 1) },
      { file: 'a.pem', signsFrom: undefined },
    ]);
    for (const { publicJwk } of keys) expect(Object.keys(publicJwk).sort()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y']);
  });

  const withNewlines = newPem().replaceAll('\n', '\\n');
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  const rsa = (modulusLength: number, publicExponent: number) =>
    generateKeyPairSync('rsa', { modulusLength, publicExponent }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  const bad: [id: string, what: string, text: string, reason: RegExp, algorithm?: 'RS256'][] = [
    ['K1', 'a half-written file', newPem().slice(0, 90), /cut off: no END line/],
    ['K1', 'an empty file', '', /is empty/],
    ['K1', 'text', 'hello', /is not PEM/],
    [
      'K1',
      'PKCS#1',
      generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs1', format: 'pem' }).toString(),
      /PKCS#1.*openssl pkcs8 -topk8/,
    ],
    ['K1', 'SEC 1', ec.export({ type: 'sec1', format: 'pem' }).toString(), /SEC 1/],
    ['K1', 'an encrypted key', ec.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' }).toString(), /is encrypted/],
    ['K1', 'line ends written out', withNewlines, /\\n written out/],
    [
      'K1',
      'a public key',
      generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'pem' }).toString(),
      /no private key/,
    ],
    ['K1', 'garbage between the lines', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n', /does not parse/],
    [
      'K2',
      'another curve',
      generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
      /curve secp384r1; ES256 needs P-256/,
    ],
    ['K2', 'another algorithm', newPem('EdDSA'), /type ed25519, which does not fit keys.algorithm ES256/],
    ['K2', 'RSA with 1024 bits', rsa(1024, 65_537), /RSA with 1024 bits/, 'RS256'],
    ['K2', 'RSA with exponent 3', rsa(2048, 3), /RSA exponent 3/, 'RS256'],
  ];
  it.each(bad)('%s: %s is refused by name', async (_id, _what, text, reason, algorithm = undefined) => {
    writeKey(directory, 'bad.pem', text);
    const { keys, rejected } = await load(algorithm ? { algorithm } : {});
    expect(keys).toEqual([]);
    expect(rejected).toEqual([{ file: 'bad.pem', reason: expect.stringMatching(reason) }]);
  });

  it.each([
    ['a secret', JSON.stringify({ kty: 'oct', k: 'c2VjcmV0' }), /no private JWK/],
    ['a public JWK', JSON.stringify({ kty: 'EC', crv: 'P-256', x: 'a', y: 'b' }), /no private JWK/],
    ['half a JSON', '{"kty":"EC"', /not JSON, or cut off/],
    ['another alg', JSON.stringify({ ...jwkOf(newPem()), alg: 'ES512' }), /says alg ES512/],
    ['another use', JSON.stringify({ ...jwkOf(newPem()), use: 'enc' }), /not for signatures/],
    ['other operations', JSON.stringify({ ...jwkOf(newPem()), key_ops: ['verify'] }), /not for signing/],
    ['a kid of its own', JSON.stringify({ ...jwkOf(newPem()), kid: 'mine' }), /kid that is not its RFC 7638 thumbprint/],
  ])('K1: a JWK file with %s is refused by name', async (_what, text, reason) => {
    writeKey(directory, 'bad.jwk.json', text);
    expect((await load()).rejected).toEqual([{ file: 'bad.jwk.json', reason: expect.stringMatching(reason) }]);
  });

  it('K1: a file that cannot be read is refused by name, and so is a directory that is not there', async () => {
    writeFileSync(join(directory, 'target'), '');
    rmSync(join(directory, 'target'));
    symlinkSync(join(directory, 'target'), join(directory, 'gone.pem'));
    expect((await load()).rejected).toEqual([{ file: 'gone.pem', reason: 'cannot be read (ENOENT)' }]);
    const missing = join(directory, 'nowhere');
    expect((await load({ directory: missing })).rejected).toEqual([{ file: missing, reason: 'the key directory cannot be read (ENOENT)' }]);
  });

  it('K2: the same key in two files is refused for the second', async () => {
    const pem = newPem();
    writeKey(directory, 'a.pem', pem);
    writeKey(directory, 'b.pem', pem);
    const { keys, rejected } = await load();
    expect(keys.map(({ file }) => file)).toEqual(['a.pem']);
    expect(rejected).toEqual([{ file: 'b.pem', reason: 'holds the same key as a.pem: a kid must be unique' }]);
  });

  it('K3: a world-readable key is refused; a group-readable one as well, unless allowGroupRead', async () => {
    writeKey(directory, 'world.pem');
    writeKey(directory, 'group.pem');
    chmodSync(join(directory, 'world.pem'), 0o604);
    chmodSync(join(directory, 'group.pem'), 0o640);
    const strict = await load();
    expect(strict.keys).toEqual([]);
    expect(strict.rejected.map(({ file, reason }) => `${file} ${reason}`)).toEqual([
      'group.pem is readable by its group: chmod 600, or set keys.allowGroupRead',
      'world.pem is readable by everybody: chmod 600',
    ]);
    const lenient = await load({ allowGroupRead: true });
    expect(lenient.keys.map(({ file }) => file)).toEqual(['group.pem']);
    expect(lenient.rejected.map(({ file }) => file)).toEqual(['world.pem']);
  });

  it('K2: an Ed25519 JWK whose halves do not match is refused', async () => {
    const x = jwkOf(newPem('EdDSA'))['x'];
    writeKey(directory, 'mixed.jwk.json', JSON.stringify({ ...jwkOf(newPem('EdDSA')), x }));
    expect((await load({ algorithm: 'EdDSA' })).rejected).toEqual([
      { file: 'mixed.jwk.json', reason: 'has a private half that does not match its public half' },
    ]);
  });

  it('a file with two keys, and something that is no file, are refused', async () => {
    writeKey(directory, 'two.pem', newPem() + newPem());
    mkdirSync(join(directory, 'directory.pem'), { mode: 0o700 });
    expect((await load()).rejected).toEqual([
      { file: 'directory.pem', reason: 'is not a file' },
      { file: 'two.pem', reason: 'holds more than one key' },
    ]);
  });

  it.each(['20261399T000000Z-x.pem', '20260231T000000Z-x.pem'])('a time in the name that does not exist is refused: %s', async (name) => {
    writeKey(directory, name);
    expect((await load()).rejected[0]?.reason).toMatch(/time in its name/);
  });
});
