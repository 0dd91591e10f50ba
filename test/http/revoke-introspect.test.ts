import { decodeJwt } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { expectError } from '../support/expect-error.js';
import { readKey, resign } from '../support/forge.js';
import type { Instance } from '../support/instance.js';
import { basic, exchangeNative, postAsBrowser, postRefresh, refreshNative } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import { AUDIENCE, CLIENT_SECRETS, createWorld, ISSUER, sharedRedisUrl, type World } from '../support/world.js';

const open = useWorlds();

let world: World;
let other: Instance;
beforeAll(async () => {
  world = await createWorld();
  other = await world.another();
});
afterAll(async () => await world.close());

async function revoke(at: Instance, form: Record<string, string>): Promise<Response> {
  return await at.post('/auth/revoke', { client_id: 'android', ...form });
}

async function introspect(at: Instance, token: string, id: keyof typeof CLIENT_SECRETS = 'orders-api'): Promise<Response> {
  return await at.post('/auth/introspect', { token }, { headers: basic(id, CLIENT_SECRETS[id]) });
}

async function me(at: Instance, bearer: string): Promise<number> {
  return (await at.call('/me', { bearer })).status;
}

describe('revocation (RFC 7009)', () => {
  it.each([
    ['its refresh token', 'refresh', {}],
    ['its access token', 'access', {}],
    ['a wrong hint', 'refresh', { token_type_hint: 'access_token' }],
    ['a hint that nobody knows', 'access', { token_type_hint: 'saml' }],
  ] as const)('V1, B10: by %s: 200, the family and its access tokens end on every instance, the session goes on', async (_, which, form) => {
    const cookie = await world.login('alice');
    const tokens = await exchangeNative(world, cookie);
    const sibling = await exchangeNative(world, cookie);
    const response = await revoke(world, { token: tokens[which], ...form });
    expect([response.status, await response.text()]).toEqual([200, '{}']);
    await expectError(await world.call('/me', { bearer: tokens.access }), 401, 'invalid_token');
    await expect.poll(async () => await me(other, tokens.access)).toBe(401);
    const reached = other.reached();
    await expectError(await other.call('/me', { bearer: tokens.access }), 401, 'invalid_token');
    expect(other.reached()).toBe(reached);
    await expectError(await postRefresh(other, tokens.refresh), 400, 'invalid_grant');
    expect((await world.call('/me', { cookie })).status).toBe(200);
    expect(await me(world, sibling.access)).toBe(200);
    expect(world.log.audits('family.revoked').at(-1)).toMatchObject({ family: tokens.family, reason: 'revoked' });
    // Once more is no other than once.
    expect((await revoke(world, { token: tokens.refresh })).status).toBe(200);
  });

  it('V1: no token is 400 invalid_request, an unknown one 200', async () => {
    await expectError(await revoke(world, {}), 400, 'invalid_request');
    const { refresh, access } = await exchangeNative(world, await world.login('alice'));
    for (const token of [
      'nonsense',
      'xfr1.a.b.c.d',
      `${refresh.slice(0, -43)}${'A'.repeat(43)}`.replace(/\.([\w-]{43})\./, `.${'B'.repeat(43)}.`),
      `${access.slice(0, -4)}AAAA`,
    ]) {
      expect((await revoke(world, { token })).status).toBe(200);
    }
    expect(await me(world, access)).toBe(200);
    expect((await postRefresh(world, refresh)).status).toBe(200);
  });

  it("V1: another client's token is 400, and the family is not touched", async () => {
    const { refresh, access } = await exchangeNative(world, await world.login('alice'));
    await expectError(await revoke(world, { token: refresh, client_id: 'ios' }), 400, 'invalid_grant');
    await expectError(await revoke(world, { token: access, client_id: 'ios' }), 400, 'invalid_grant');
    await expectError(await revoke(world, { token: refresh, client_id: 'nobody' }), 401, 'invalid_client');
    expect(await me(world, access)).toBe(200);
    expect((await postRefresh(world, refresh)).status).toBe(200);
  });

  it('V1: an access token whose family gave way, or was lost by Redis, is revoked as well; and told once, however often it is asked', async () => {
    const one = await open({ configure: (config) => ({ ...config, tokens: { ...config.tokens, familiesPerSession: 1 } }) });
    const cookie = await one.login('alice');
    const [first, second] = [await exchangeNative(one, cookie), await exchangeNative(one, cookie)];
    expect((await revoke(one, { token: first.access })).status).toBe(200);
    expect(await me(one, first.access)).toBe(401);
    await one.legacy.redis.del(`${one.prefix}{${second.sid}}:family:${second.family}`);
    expect((await revoke(one, { token: second.access })).status).toBe(200);
    expect(await me(one, second.access)).toBe(401);
    const events = async () => await one.legacy.redis.xlen(`${one.prefix}events`);
    const before = await events();
    for (let time = 0; time < 10; time++) expect((await revoke(one, { token: first.refresh })).status).toBe(200);
    expect(await events()).toBe(before);
    await expectError(await revoke(one, { token: first.refresh, client_id: 'ios' }), 400, 'invalid_grant');
  });

  it('V2: with Redis away it is 503, never 200, and the retry succeeds', async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    const cut = await open({ redisUrl: own.url });
    const { refresh, access } = await exchangeNative(cut, await cut.login('alice'));
    await own.cut();
    for (const token of [refresh, access]) await expectError(await revoke(cut, { token }), 503, 'temporarily_unavailable');
    await own.restore();
    await expect.poll(async () => (await revoke(cut, { token: refresh })).status).toBe(200);
    await expect.poll(async () => await me(cut, access)).toBe(401);
    await own.close();
  });

  it('V2: of a refresh token that was done and not heard is told again by the retry', async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    const cut = await open({ redisUrl: own.url });
    const { refresh, access, family } = await exchangeNative(cut, await cut.login('alice'));
    own.swallowAnswerTo((command) => /evalsha/i.test(command) && command.includes(family));
    await expectError(await revoke(cut, { token: refresh }), 503, 'temporarily_unavailable');
    await own.restore();
    await expect.poll(async () => (await revoke(cut, { token: refresh })).status).toBe(200);
    await expect.poll(async () => await me(cut, access)).toBe(401);
    await own.close();
  });
});

describe('introspection (RFC 7662)', () => {
  it('tells a client with introspect: true what an access token says', async () => {
    const { access, sid, family } = await exchangeNative(world, await world.login('alice'));
    const claims = decodeJwt(access);
    const response = await introspect(world, access);
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(await response.json()).toEqual({
      active: true,
      token_type: 'Bearer',
      iss: ISSUER,
      aud: AUDIENCE,
      sub: 'u-alice',
      client_id: 'android',
      sid,
      fid: family,
      tenant: 'acme',
      roles: ['admin', 'billing'],
      scope: 'read:orders write:orders',
      auth_time: claims['auth_time'],
      iat: claims.iat,
      exp: claims.exp,
      jti: claims.jti,
    });
  });

  it('tells a confidential client of its own refresh tokens, and nobody of those of others', async () => {
    const batch = await open({
      configure: (config) => ({
        ...config,
        clients: [...(config.clients ?? []), { id: 'batch', type: 'confidential', secretHashFile: 'login.sha256', exchanges: true }],
      }),
    });
    const secret = { client_id: 'batch', client_secret: CLIENT_SECRETS.login };
    const own = await exchangeNative(batch, await batch.login('alice'), secret);
    const response = await batch.post('/auth/introspect', { token: own.refresh, ...secret });
    expect(await response.json()).toMatchObject({ active: true, iss: ISSUER, sub: 'u-alice', client_id: 'batch', exp: expect.any(Number) });
    const native = await exchangeNative(batch, await batch.login('alice'));
    for (const token of [native.refresh, native.access]) {
      expect(await (await batch.post('/auth/introspect', { token, ...secret })).json()).toEqual({ active: false });
    }
    const { refresh } = await refreshNative(batch, own.refresh, secret);
    await refreshNative(batch, refresh, secret);
  });

  it('I1: unauthenticated is 401 with a challenge, whoever asks', async () => {
    const { access } = await exchangeNative(world, await world.login('alice'));
    const asks: [Record<string, string>, Record<string, string>][] = [
      [{}, {}],
      [{ client_id: 'android' }, {}],
      [{ client_id: 'orders-api' }, {}],
      [{}, basic('orders-api', 'wrong')],
      [{}, { authorization: `Bearer ${access}` }],
    ];
    for (const [form, headers] of asks) {
      const response = await world.post('/auth/introspect', { token: access, ...form }, { headers });
      expect(response.headers.get('www-authenticate')).toBe('Basic realm="crossfade"');
      await expectError(response, 401, 'invalid_client');
    }
  });

  it('I1: garbage, expired, forged, revoked and meant for others is {"active":false}', async () => {
    const { access, refresh } = await exchangeNative(world, await world.login('alice'));
    const orders = await exchangeNative(world, await world.login('alice'), { audience: 'https://orders.internal' });
    const key = readKey(world.directory);
    const ended = await exchangeNative(world, await world.login('alice'));
    await revoke(world, { token: ended.refresh });
    const tokens = [
      'garbage',
      refresh,
      orders.access,
      ended.access,
      `${access.slice(0, -4)}AAAA`,
      await resign(access, key, { claims: { exp: 1_700_000_600, iat: 1_700_000_000 } }),
      await resign(access, key, { header: { typ: 'JWT' } }),
    ];
    for (const token of tokens)
      expect([token.slice(0, 5), await (await introspect(world, token)).json()]).toEqual([token.slice(0, 5), { active: false }]);
    expect(await (await introspect(world, access, 'login')).json()).toEqual({ active: false });
    await expectError(
      await world.post('/auth/introspect', {}, { headers: basic('orders-api', CLIENT_SECRETS['orders-api']) }),
      400,
      'invalid_request',
    );
  });

  it('asks Redis, not memory: what has ended there and was never told here is inactive', async () => {
    const [family, session] = [await exchangeNative(world, await world.login('alice')), await exchangeNative(world, await world.login('alice'))];
    const { redis } = world.legacy;
    await redis.hset(`${world.prefix}{${family.sid}}:family:${family.family}`, 'ended', 'revoked');
    await postAsBrowser(world, '/auth/logout', '');
    const out = await exchangeNative(world, await world.login('bob'));
    await world.post('/auth/logout', {}, { bearer: out.access });
    for (const token of [family.access, out.access]) {
      expect(await (await introspect(world, token)).json()).toEqual({ active: false });
    }
    expect(await me(world, family.access)).toBe(200);
    await redis.del(`${world.prefix}{${session.sid}}:family:${session.family}`);
    await redis.set(`${world.prefix}{${session.sid}}:family:${session.family}`, 'a stranger');
    expect(await (await introspect(world, session.access)).json()).toMatchObject({ active: true });
  });

  it.each(['/auth/introspect', '/auth/revoke'])('B8: a token in the query of %s is 400', async (path) => {
    const { access } = await exchangeNative(world, await world.login('alice'));
    const headers = basic('orders-api', CLIENT_SECRETS['orders-api']);
    await expectError(await world.post(`${path}?access_token=${access}`, { token: access }, { headers }), 400, 'invalid_request');
  });

  it('a token that goes on although Redis has lost its family is active', async () => {
    const { access, sid, family } = await exchangeNative(world, await world.login('alice'));
    await world.legacy.redis.del(`${world.prefix}{${sid}}:family:${family}`);
    expect(await me(world, access)).toBe(200);
    expect(await (await introspect(world, access)).json()).toMatchObject({ active: true });
  });

  it('says at once what another instance has just ended, before the news is here', async () => {
    for (let round = 0; round < 20; round++) {
      const cookie = await world.login('alice');
      const { access, refresh } = await exchangeNative(world, cookie);
      await (round % 2 ? revoke(world, { token: refresh }) : postAsBrowser(world, '/auth/logout', cookie));
      expect(await (await introspect(other, access)).json()).toEqual({ active: false });
    }
  });

  it('I1: Redis away is 503, not an answer from memory', async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    const cut = await open({ redisUrl: own.url });
    const { access, refresh } = await exchangeNative(cut, await cut.login('alice'));
    await own.cut();
    for (const token of [access, refresh]) await expectError(await introspect(cut, token), 503, 'temporarily_unavailable');
    expect(await (await introspect(cut, 'garbage')).json()).toEqual({ active: false });
    // Verification goes on as ever.
    expect(await me(cut, access)).toBe(200);
    await own.restore();
    await own.close();
  });
});
