import { decodeJwt } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { expectError } from '../support/expect-error.js';
import type { Instance } from '../support/instance.js';
import { basic, postAsBrowser, postRefresh, postReturn, readTokens, refreshCookie, refreshNative, rememberRefresh } from '../support/tokens.js';
import { rememberToken } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import { CLIENT_SECRETS, createWorld, type World } from '../support/world.js';

const open = useWorlds();

let world: World;
beforeAll(async () => {
  world = await createWorld();
});
afterAll(async () => await world.close());

const ALICE = { client_id: 'android', subject: 'u-alice', tenant: 'acme', roles: ['admin'], scope: 'read:orders' };

async function issue(at: Instance, body: unknown, headers = basic('login', CLIENT_SECRETS.login)): Promise<Response> {
  return await at.call('/auth/issue', { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) });
}

describe('bridge.issueFor', () => {
  it('gives tokens at a login, whose refresh repeats the principal as it was issued', async () => {
    const issued = await world.bridge.issueFor(
      { subject: 'u-alice', tenant: 'acme', roles: ['admin'], scope: ['read:orders'], authTime: 1_760_000_000 },
      { client: 'android' },
    );
    rememberToken(issued.accessToken);
    expect(issued).toMatchObject({ expiresIn: 600, scope: ['read:orders'], sid: expect.stringMatching(/^[\w-]{32}$/) });
    expect(decodeJwt(issued.accessToken)).toMatchObject({
      sub: 'u-alice',
      client_id: 'android',
      sid: issued.sid,
      auth_time: 1_760_000_000,
      roles: ['admin'],
    });
    expect((await world.call('/orders', { bearer: issued.accessToken })).status).toBe(200);
    rememberRefresh(issued.refreshToken ?? '');
    const refreshed = await refreshNative(world, issued.refreshToken ?? '');
    expect(decodeJwt(refreshed.access)).toMatchObject({ sub: 'u-alice', tenant: 'acme', roles: ['admin'], scope: 'read:orders', sid: issued.sid });
    await expectError(await postReturn(world, refreshed.refresh), 400, 'unauthorized_client');
  });

  it('gives a cookie for a client that keeps its refresh token there', async () => {
    const { setCookie, refreshToken } = await world.bridge.issueFor({ subject: 'u-bob' }, { client: 'web' });
    expect(refreshToken).toBeUndefined();
    expect(setCookie).toMatch(/^__Secure-xfr=xfr1\.[^;]+; Path=\/auth; Expires=[^;]+; HttpOnly; Secure; SameSite=Strict$/);
    const pair = setCookie?.split(';')[0] ?? '';
    rememberRefresh(pair.slice(pair.indexOf('=') + 1));
    expect((await postAsBrowser(world, '/auth/token', pair, { grant_type: 'refresh_token' })).status).toBe(200);
  });

  it('works where sessions are retired, at every stage, and for a service', async () => {
    const final = await open({ stage: 'session-only', configure: (config) => ({ ...config, sessions: [] }) });
    const { accessToken, refreshToken = '' } = await final.bridge.issueFor({ subject: 'u-alice' }, { client: 'android' });
    rememberToken(accessToken);
    expect((await final.call('/me', { bearer: accessToken })).status).toBe(200);
    expect((await postRefresh(final, refreshToken)).status).toBe(200);
    await final.setFlags({ 'auth-migration-stage': 'recall' });
    expect((await postRefresh(final, refreshToken)).status).toBe(200);
    const orders = await final.bridge.issueFor({ subject: 'u-alice' }, { client: 'android', audience: 'https://orders.internal' });
    expect(decodeJwt(orders.accessToken).aud).toBe('https://orders.internal');
  });

  it('ends by logout and with its person', async () => {
    for (const end of [
      async (token: string) => void (await world.post('/auth/logout', {}, { bearer: token })),
      async () => void (await world.bridge.endSubject('u-erin', { why: 'test' })),
    ]) {
      const { accessToken, refreshToken = '' } = await world.bridge.issueFor({ subject: 'u-erin' }, { client: 'android' });
      await end(accessToken);
      await expectError(await world.call('/me', { bearer: accessToken }), 401, 'invalid_token');
      await expectError(await postRefresh(world, refreshToken), 400, 'invalid_grant');
    }
  });

  it.each<[string, Parameters<World['bridge']['issueFor']>[0], { client: string; audience?: string }]>([
    ['unauthorized_client', { subject: 'u-alice' }, { client: 'nobody' }],
    ['invalid_target', { subject: 'u-alice' }, { client: 'android', audience: 'https://elsewhere.example' }],
    ['invalid_request', { subject: '' }, { client: 'android' }],
    ['invalid_request', { subject: 'u-alice', scope: ['two words'] }, { client: 'android' }],
  ])('rejects with %s what cannot be issued', async (code, principal, request) => {
    await expect(world.bridge.issueFor(principal, request)).rejects.toMatchObject({ code });
  });
});

describe('POST /auth/issue', () => {
  it('gives the same to a confidential client with issue: true', async () => {
    const response = await issue(world, { ...ALICE, auth_time: 1_760_000_000 });
    expect(response.headers.get('cache-control')).toBe('no-store');
    const tokens = await readTokens(response);
    expect(decodeJwt(tokens.access)).toMatchObject({ sub: 'u-alice', client_id: 'android', roles: ['admin'], auth_time: 1_760_000_000 });
    expect((await postRefresh(world, tokens.refresh)).status).toBe(200);
  });

  it('carries Set-Cookie for a client that keeps its refresh token in a cookie, for the app to pass on', async () => {
    const response = await issue(world, { ...ALICE, client_id: 'web' });
    const body = z
      .object({ access_token: z.string(), sid: z.string() })
      .loose()
      .parse(await response.json());
    rememberToken(body.access_token);
    expect(body).not.toHaveProperty('refresh_token');
    expect(refreshCookie(response)).toMatch(/^__Secure-xfr=xfr1\./);
  });

  it.each([
    ['no client', {}],
    ['a wrong secret', basic('login', 'wrong')],
    ['a public client', basic('android', '')],
  ])('%s is 401 invalid_client', async (_, headers) => {
    await expectError(await issue(world, ALICE, headers as Record<string, string>), 401, 'invalid_client');
  });

  it('X4: a page, whoever sends it, is 403 and sets no cookie', async () => {
    const headers = { ...basic('login', CLIENT_SECRETS.login), origin: 'https://evil.example' };
    await expectError(await issue(world, { ...ALICE, client_id: 'web' }, headers), 403, 'invalid_request');
  });

  it('a client without issue: true is 400 unauthorized_client', async () => {
    await expectError(await issue(world, ALICE, basic('orders-api', CLIENT_SECRETS['orders-api'])), 400, 'unauthorized_client');
  });

  it.each([
    ['no subject', { client_id: 'android' }],
    ['a subject that is none', { ...ALICE, subject: { $ne: 1 } }],
    ['a member that does not belong there', { ...ALICE, admin: true }],
    ['a list', [ALICE]],
    ['nothing', null],
  ])('%s is 400 invalid_request', async (_, body) => {
    const before = world.log.audits('tokens.issued').length;
    await expectError(await issue(world, body), 400, 'invalid_request');
    expect(world.log.audits('tokens.issued').length).toBe(before);
  });

  it('what is no JSON, has members of prototypes, or is over 16 KiB, is refused', async () => {
    const headers = { ...basic('login', CLIENT_SECRETS.login), 'content-type': 'application/json' };
    const post = async (body: string, type = 'application/json') =>
      await world.call('/auth/issue', { method: 'POST', headers: { ...headers, 'content-type': type }, body });
    await expectError(await post('{"subject":'), 400, 'invalid_request');
    await expectError(await post('{"client_id":"android","subject":"a","__proto__":{"x":1}}'), 400, 'invalid_request');
    await expectError(await post(JSON.stringify(ALICE), 'text/plain'), 400, 'invalid_request');
    await expectError(await post(`"${'x'.repeat(17_000)}"`), 413, 'invalid_request');
  });
});
