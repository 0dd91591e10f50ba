import { createPublicKey } from 'node:crypto';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { urlOf } from '../../scripts/lib/legacy-app.js';
import { expectError } from '../support/expect-error.js';
import { assemble, readKey, resign, signHs256, signText } from '../support/forge.js';
import { newPem } from '../support/keys.js';
import { rawRequest } from '../support/raw-request.js';
import { rememberToken } from '../support/transcript.js';
import { createWorld, ORIGIN, type World } from '../support/world.js';

let world: World;
let cookie: string;
let token: string;
beforeAll(async () => {
  world = await createWorld();
  cookie = await world.login('alice');
  token = await world.token(cookie);
});
afterAll(async () => await world.close());

/** Asserts that a bearer is refused for good: 401, no handler, no store, and the valid cookie beside it does not help. */
async function expectRefused(bearer: string, what = bearer.slice(0, 20)): Promise<void> {
  rememberToken(bearer);
  for (const beside of [undefined, cookie]) {
    const { result, storeReached, handlerReached } = await world.watching(() =>
      world.call('/', beside === undefined ? { bearer } : { bearer, cookie: beside }),
    );
    expect({
      what,
      status: result.status,
      body: await result.json(),
      challenge: result.headers.get('www-authenticate'),
      storeReached,
      handlerReached,
    }).toEqual({
      what,
      status: 401,
      body: { error: 'invalid_token' },
      challenge: 'Bearer error="invalid_token"',
      storeReached: false,
      handlerReached: false,
    });
  }
}

const now = () => Math.floor(Date.now() / 1000);

describe('bad bearers', () => {
  it('B1: no algorithm in any spelling, and HS256 keyed with the public key', async () => {
    const header = decodeProtectedHeader(token);
    const claims = decodeJwt(token);
    for (const alg of ['none', 'None', 'NONE', 'nOnE', '']) await expectRefused(assemble({ ...header, alg }, claims), `alg ${alg}`);
    const publicKey = createPublicKey(readKey(world.directory));
    const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
    const jwks = await (await world.call('/.well-known/jwks.json')).text();
    for (const secret of [pem, pem.trim(), publicKey.export({ type: 'spki', format: 'der' }), jwks]) {
      await expectRefused(signHs256(claims, header, secret), 'HS256');
    }
  });

  it('B2: a token that brings its own key is refused, and nobody is called', async () => {
    const server = createServer((_request, response) => response.end('{"keys":[]}')).listen(0, '127.0.0.1');
    await once(server, 'listening');
    let calls = 0;
    server.on('connection', () => {
      calls += 1;
    });
    const url = urlOf(server);
    const key = readKey(world.directory);
    const jwk = createPublicKey(key).export({ format: 'jwk' });
    for (const header of [{ jwk }, { jku: url }, { x5u: url }, { x5c: ['AAAA'] }])
      await expectRefused(await resign(token, key, { header }), Object.keys(header)[0]);
    expect(calls).toBe(0);
    server.close();
  });

  it('B3: a kid that is a path, SQL, an array, __proto__ or 10 KB; unknown crit; b64 false', async () => {
    const header = decodeProtectedHeader(token);
    const claims = decodeJwt(token);
    const signature = token.split('.')[2] ?? '';
    for (const kid of ['../../dev/null', "' OR 1=1 --", ['a'], '__proto__', 'x'.repeat(10_240), null, 7, {}]) {
      await expectRefused(assemble({ ...header, kid }, claims, signature), `kid ${JSON.stringify(kid).slice(0, 20)}`);
    }
    const key = readKey(world.directory);
    await expectRefused(await resign(token, key, { header: { crit: ['x-unknown'], 'x-unknown': 1 } }), 'crit');
    await expectRefused(assemble({ ...header, crit: ['b64'], b64: false }, claims, signature), 'b64');
  });

  it('B4: a signature of zeros, and a flipped bit anywhere', async () => {
    const [head = '', body = '', signature = ''] = token.split('.');
    await expectRefused(`${head}.${body}.${Buffer.alloc(64).toString('base64url')}`, 'zeros');
    await expectRefused(`${head}.${body}.`, 'no signature');
    for (const part of [0, 1, 2]) {
      const length = Buffer.from(token.split('.')[part] ?? '', 'base64url').length;
      for (let at = 0; at < length; at += 5) {
        const parts = [head, body, signature];
        const bytes = Buffer.from(parts[part] ?? '', 'base64url');
        bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
        parts[part] = bytes.toString('base64url');
        await expectRefused(parts.join('.'), `part ${part}, byte ${at}`);
      }
    }
    const claims = decodeJwt(token);
    await expectRefused(assemble(decodeProtectedHeader(token), { ...claims, sub: 'u-bob' }, signature), 'another sub');
  });

  it('B5: an ID token, typ JWT or logout+jwt, and a wrong audience, signed with the right key', async () => {
    const key = readKey(world.directory);
    for (const typ of ['JWT', 'logout+jwt', 'AT+JWT', 'application/at+jwt'])
      await expectRefused(await resign(token, key, { header: { typ } }), `typ ${typ}`);
    await expectRefused(await resign(token, key, { claims: { aud: 'https://elsewhere.example' } }), 'aud');
    await expectRefused(await resign(token, key, { claims: { aud: [] } }), 'no aud');
    await expectRefused(await resign(token, key, { header: { typ: 'JWT' }, claims: { aud: 'web', nonce: 'n' } }), 'ID token');
    await expectRefused(await world.token(cookie, { audience: 'https://orders.internal' }), "a service's token");
  });

  it('B6: times that are over, missing, strings or absurd are refused; 10 s of skew is not', async () => {
    const key = readKey(world.directory);
    const bad: Record<string, Parameters<typeof resign>[2]> = {
      expired: { claims: { exp: now() - 31, iat: now() - 600 } },
      'no exp': { without: ['exp'] },
      'exp a string': { claims: { exp: String(now() + 60) } },
      'exp in ms': { claims: { exp: (now() + 60) * 1000 } },
      'exp a fraction': { claims: { exp: now() + 60.5 } },
      'no iat': { without: ['iat'] },
      'iat far ahead': { claims: { iat: now() + 61, exp: now() + 600 } },
      'nbf far ahead': { claims: { nbf: now() + 61 } },
      'no sub': { without: ['sub'] },
      'sub empty': { claims: { sub: '' } },
      'sub an object': { claims: { sub: { a: 1 } } },
      'no sid': { without: ['sid'] },
      'roles a string': { claims: { roles: 'admin' } },
    };
    for (const [what, changed] of Object.entries(bad)) {
      await expectRefused(await resign(token, key, changed), what);
    }
    await expectRefused(
      assemble(JSON.stringify(decodeProtectedHeader(token)), JSON.stringify(decodeJwt(token)).replace(/"exp":\d+/, '"exp":1e400'), 'AAAA'),
      'exp 1e400',
    );
    for (const claims of [{ iat: now() + 10, exp: now() + 600 }, { nbf: now() + 10 }]) {
      expect((await world.call('/', { bearer: await resign(token, key, { claims }) })).status).toBe(200);
    }
  });

  it('B7: the same token in another spelling', async () => {
    const [head = '', body = '', signature = ''] = token.split('.');
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    const spare = (part: string) => part.slice(0, -1) + (alphabet[alphabet.indexOf(part.at(-1) ?? 'A') + 1] ?? 'B');
    const spellings: Record<string, string> = {
      padding: `${head}.${body}.${signature}==`,
      'spare bits of the signature': `${head}.${body}.${spare(signature)}`,
      'white space inside': `${head}.${body.slice(0, 8)} ${body.slice(8)}.${signature}`,
      'a tab inside': `${head}.${body}\t.${signature}`,
      'base64 instead of base64url': `${head}.${body}.${signature.replaceAll('-', '+').replaceAll('_', '/')}+`,
    };
    for (const [what, spelling] of Object.entries(spellings)) await expectRefused(spelling, what);
    const key = readKey(world.directory);
    const [header, claims] = [JSON.stringify(decodeProtectedHeader(token)), JSON.stringify(decodeJwt(token))];
    expect((await world.call('/', { bearer: signText(header, claims, key) })).status, 'the signature is good').toBe(200);
    await expectRefused(signText(header, `${claims.slice(0, -1)},"sub":"u-bob"}`, key), 'duplicate members');
    await expectRefused(signText(`${header.slice(0, -1)},"alg":"ES256"}`, claims, key), 'duplicate members in the header');
    await expectRefused(signText(`\ufeff${header}`, claims, key), 'a BOM');
  });

  it('B8: two Authorization headers, and a token in the query, are malformed', async () => {
    const two = await rawRequest(`${world.url}/`, {
      headers: ['host', 'app', 'authorization', `Bearer ${token}`, 'authorization', `Bearer ${token}`],
    });
    expect({ status: two.status, body: JSON.parse(two.text) }).toMatchObject({ status: 400, body: { error: 'invalid_request' } });
    const verify = await rawRequest(`${world.url}/auth/verify`, {
      headers: ['host', 'app', 'authorization', `Bearer ${token}`, 'authorization', 'Basic x'],
    });
    expect({ status: verify.status, challenge: verify.headers['www-authenticate'] }).toEqual({
      status: 401,
      challenge: 'Bearer error="invalid_request"',
    });
    const { result, handlerReached } = await world.watching(() => world.call(`/?access_token=${token}`));
    await expectError(result, 400, 'invalid_request');
    expect(handlerReached).toBe(false);
    expect((await world.call(`/auth/verify?access_token=${token}`)).status).toBe(401);
  });

  it('B9: an unknown kid is 401 while the ring is sure of itself', async () => {
    const kid = Buffer.alloc(32, 7).toString('base64url');
    await expectRefused(await resign(token, readKey(world.directory), { header: { kid } }), 'unknown kid');
  });

  it('B9: an unknown kid is 503 while keys are in doubt, and a malformed one 401 all the same', async () => {
    const doubting = await createWorld({ prepare: (directory) => rmSync(join(directory, 'keys'), { recursive: true }) });
    try {
      const { result, handlerReached } = await doubting.watching(() => doubting.call('/', { bearer: token }));
      expect(await expectError(result, 503, 'temporarily_unavailable')).toMatchObject({ reason: 'keys' });
      expect(result.headers.get('retry-after')).toMatch(/^([1-9]|10)$/);
      expect(handlerReached).toBe(false);
      const malformed = assemble({ ...decodeProtectedHeader(token), kid: '../x' }, decodeJwt(token), 'AAAA');
      await expectError(await doubting.call('/', { bearer: malformed }), 401, 'invalid_token');
    } finally {
      await doubting.close();
    }
  });
});

describe('foreign bearers', () => {
  const jwe = 'eyJhbGciOiJSU0EtT0FFUCJ9.a.b.c.d';
  const otherIssuer = () => assemble({ alg: 'RS256', kid: 'theirs' }, { iss: 'https://idp.example', sub: 'u-alice' }, 'AAAA');
  const spaced = () => assemble('{ "alg": "RS256" }', '{"iss": "https://idp.example", "sub": "x"}', 'AAAA');

  it('B11: with pass they are anonymous, and the cookie is not looked at', async () => {
    for (const bearer of ['sk_live_51H', jwe, otherIssuer(), spaced(), 'nullable', 'dW5kZWZpbmVk']) {
      const { result, storeReached } = await world.watching(() => world.call('/', { bearer, cookie }));
      expect({ status: result.status, body: await result.json(), storeReached }).toMatchObject({
        status: 200,
        body: { principal: null, rejection: { credential: 'bearer', reason: 'foreign' } },
        storeReached: false,
      });
    }
  });

  it('B11: with reject they are 401', async () => {
    const strict = await createWorld({ configure: (config) => ({ ...config, bearer: { foreign: 'reject' } }) });
    try {
      const ownCookie = await strict.login('alice');
      for (const bearer of ['sk_live_51H', jwe, otherIssuer()]) {
        const { result, storeReached, handlerReached } = await strict.watching(() => strict.call('/', { bearer, cookie: ownCookie }));
        await expectError(result, 401, 'invalid_token');
        expect({ storeReached, handlerReached }).toEqual({ storeReached: false, handlerReached: false });
      }
    } finally {
      await strict.close();
    }
  });

  it('three parts that do not decode, or have no issuer, are bad and not foreign', async () => {
    for (const bearer of [
      'a.b.c',
      '..',
      assemble({ alg: 'ES256' }, { sub: 'x' }, 'AAAA'),
      assemble('[]', '{}', 'AAAA'),
      assemble('{"alg":"x"', '{"iss":"y"}'),
    ])
      await expectRefused(bearer);
  });

  it('another issuer under a kid of ours is bad and not foreign', async () => {
    await expectRefused(await resign(token, readKey(world.directory), { claims: { iss: 'https://idp.example' } }), 'iss');
  });

  it('other schemes count as absent: the cookie decides', async () => {
    const response = await world.call('/', { cookie, headers: { authorization: 'Basic dTpw' } });
    expect(await response.json()).toMatchObject({ principal: { via: 'session' } });
  });

  it('a tab after the scheme does not make the bearer disappear', async () => {
    const { result, storeReached } = await world.watching(() => rawRequest(`${world.url}/`, { headers: { authorization: 'Bearer\ta.b.c', cookie } }));
    expect({ status: result.status, storeReached }).toEqual({ status: 401, storeReached: false });
  });

  it('the scheme is spelled in any case', async () => {
    const response = await world.call('/', { headers: { authorization: `bEaReR ${token}` } });
    expect(await response.json()).toMatchObject({ principal: { via: 'jwt', subject: 'u-alice' } });
  });
});

describe('algorithms', () => {
  it('issues and verifies with EdDSA, RS256 and PS256 as with ES256', async () => {
    for (const algorithm of ['EdDSA', 'RS256', 'PS256'] as const) {
      const other = await createWorld({
        prepare: (directory) => writeFileSync(join(directory, 'keys', 'first.pem'), newPem(algorithm), { mode: 0o600 }),
        configure: (config) => ({ ...config, keys: { algorithm } }),
      });
      try {
        const issued = await other.token(await other.login('alice'));
        expect(decodeProtectedHeader(issued).alg).toBe(algorithm);
        expect(await (await other.call('/', { bearer: issued })).json()).toMatchObject({ principal: { via: 'jwt' } });
      } finally {
        await other.close();
      }
    }
  });
});

it('Law 3: a bearer that is ours and bad never falls through to a valid cookie', async () => {
  const key = readKey(world.directory);
  const expired = await resign(token, key, { claims: { exp: now() - 100, iat: now() - 700 } });
  const { result, storeReached, handlerReached } = await world.watching(() => world.call('/', { bearer: expired, cookie }));
  await expectError(result, 401, 'invalid_token');
  expect({ storeReached, handlerReached }).toEqual({ storeReached: false, handlerReached: false });
  const exchange = await world.exchange(cookie, {}, { authorization: `Bearer ${expired}`, origin: ORIGIN });
  await expectError(exchange, 401, 'invalid_token');
});
