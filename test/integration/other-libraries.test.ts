import { once } from 'node:events';
import { createServer } from 'node:http';
import express from 'express';
import { auth } from 'express-oauth2-jwt-bearer';
import jwt from 'jsonwebtoken';
import JwksClient from 'jwks-rsa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { closeServer, urlOf } from '../../scripts/lib/legacy-app.js';
import { AUDIENCE, createWorld, ISSUER, type World } from '../support/world.js';

/** Libraries that know nothing of Crossfade verify its tokens by nothing but the issuer, the audience and the JWKS URL. */
describe.each(['ES256', 'RS256'] as const)('%s tokens in libraries that are not jose', (algorithm) => {
  let world: World;
  let token: string;
  beforeAll(async () => {
    const { newPem, writeKey } = await import('../support/keys.js');
    const { join } = await import('node:path');
    world = await createWorld({
      prepare: (directory) => writeKey(join(directory, 'keys'), 'first.pem', newPem(algorithm)),
      configure: (config) => ({ ...config, keys: { algorithm } }),
    });
    token = await world.token(await world.login('alice'));
  });
  afterAll(async () => await world.close());

  it('jsonwebtoken with jwks-rsa', async () => {
    const client = JwksClient({ jwksUri: `${world.url}/.well-known/jwks.json` });
    const { kid } = jwt.decode(token, { complete: true })?.header ?? {};
    const key = (await client.getSigningKey(kid)).getPublicKey();
    expect(jwt.verify(token, key, { algorithms: [algorithm], issuer: ISSUER, audience: AUDIENCE })).toMatchObject({ sub: 'u-alice', tenant: 'acme' });
    expect(() => jwt.verify(token, key, { algorithms: [algorithm], audience: 'https://elsewhere.example' })).toThrow(/audience/);
  });

  it('express-oauth2-jwt-bearer', async () => {
    const app = express();
    app.use(auth({ issuer: ISSUER, audience: AUDIENCE, jwksUri: `${world.url}/.well-known/jwks.json`, tokenSigningAlg: algorithm, strict: true }));
    app.get('/', (request, response) => {
      response.json(request.auth?.payload);
    });
    const server = createServer(app).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const answer = await fetch(urlOf(server), { headers: { authorization: `Bearer ${token}` } });
    expect({ status: answer.status, body: await answer.json() }).toMatchObject({ status: 200, body: { sub: 'u-alice', client_id: 'web' } });
    expect((await fetch(urlOf(server), { headers: { authorization: `Bearer ${token.slice(0, -4)}AAAA` } })).status).toBe(401);
    await closeServer(server);
  });
});
