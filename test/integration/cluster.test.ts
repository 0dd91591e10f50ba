import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Cluster } from 'ioredis';
import { decodeJwt } from 'jose';
import Koa from 'koa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { closeServer, cookieHeader, legacyPages, legacySessions, urlOf } from '../../scripts/lib/legacy-app.js';
import type { ConfigInput } from '../../src/config/config.js';
import { runCli } from '../support/cli.js';
import { expectError } from '../support/expect-error.js';
import { type Instance, startInstance } from '../support/instance.js';
import { writeKey } from '../support/keys.js';
import { type PrivateCluster, startCluster } from '../support/redis-cluster.js';
import { basic, exchangeNative, postAsBrowser, postExchange, postRefresh, postReturn, refreshNative } from '../support/tokens.js';
import { remember, rememberCookie } from '../support/transcript.js';
import { CLIENT_SECRETS, clientsOf, ORIGIN } from '../support/world.js';

const PREFIX = 'crossfade-cluster:';

let servers: PrivateCluster;
let redis: Cluster;
let legacy: Server;
let directory: string;
let config: ConfigInput;
let one: Instance;
let two: Instance;
const keys: string[] = [];
const secrets = [randomBytes(24).toString('base64url')];

beforeAll(async () => {
  servers = await startCluster();
  redis = new Cluster([...servers.nodes]);
  const app = new Koa();
  app.keys = [...secrets];
  app.use(legacySessions(app, redis, keys, {}));
  app.use(legacyPages());
  legacy = createServer(app.callback()).listen(0, '127.0.0.1');
  await once(legacy, 'listening');

  directory = mkdtempSync(join(tmpdir(), 'crossfade-cluster-'));
  mkdirSync(join(directory, 'keys'));
  writeKey(join(directory, 'keys'), 'first.pem');
  const fleetSecret = randomBytes(32).toString('base64url');
  remember(fleetSecret, ...secrets);
  writeFileSync(join(directory, 'fleet-secret'), fleetSecret);
  writeFileSync(join(directory, 'session-secrets'), secrets.join('\n'));
  writeFileSync(join(directory, 'flags.json'), JSON.stringify({ flagValues: { 'auth-migration-stage': 'dual' } }));
  config = {
    issuer: ORIGIN,
    audience: ['https://api.example.com'],
    fleetSecretFile: 'fleet-secret',
    redis: { cluster: [...servers.nodes], keyPrefix: PREFIX },
    sessions: [
      {
        secretsFile: 'session-secrets',
        rolling: true,
        principal: { subject: 'user.id', tenant: 'user.tenant', roles: 'user.roles', scope: 'user.scope', authTime: 'user.loggedInAt' },
      },
    ],
    rollout: { flags: { file: 'flags.json' } },
    limits: { failuresPerAddressPerMinute: 1_000_000 },
    clients: clientsOf(directory),
  };
  const options = {
    koaSession: 'ours' as const,
    handlers: async (ctx: Koa.Context, next: Koa.Next) => {
      if (ctx.path !== '/cart') return await next();
      ctx.session.cart = [...(ctx.session.cart ?? []), 'book'];
      ctx.body = { user: ctx.session.user?.id ?? null, cart: ctx.session.cart };
    },
  };
  one = await startInstance(config, directory, { secrets, redis }, options);
  two = await startInstance(config, directory, { secrets, redis }, options);
});
afterAll(async () => {
  await two.close();
  await one.close();
  await closeServer(legacy);
  redis.disconnect();
  await servers.stop();
  rmSync(directory, { recursive: true, force: true });
});

async function login(name: string): Promise<string> {
  const response = await fetch(`${urlOf(legacy)}/login`, { method: 'POST', body: new URLSearchParams({ name }), redirect: 'manual' });
  const cookie = cookieHeader(response);
  rememberCookie(cookie);
  return cookie;
}

async function me(at: Instance, credential: { cookie?: string; bearer?: string }): Promise<number> {
  return (await at.call('/me', credential)).status;
}

describe('the life of a token on a Redis Cluster of three masters', () => {
  it('spreads sessions over the masters, and exchanges and refreshes all of them', async () => {
    const before = await sizes();
    for (let person = 0; person < 20; person++) {
      const tokens = await exchangeNative(person % 2 ? one : two, await login(`person-${person}`));
      const { access } = await refreshNative(person % 2 ? two : one, tokens.refresh);
      expect(decodeJwt(access).sub).toBe(`u-person-${person}`);
      expect(await me(one, { bearer: access })).toBe(200);
    }
    const after = await sizes();
    for (const [at, size] of after.entries()) expect(size).toBeGreaterThan(before[at] ?? 0);
  });

  it('F4, F5, F6: one successor for 50 at once, the same for the predecessor, and the end of the family for reuse', async () => {
    const { refresh, access, family } = await exchangeNative(one, await login('alice'));
    const answers = await Promise.all(Array.from({ length: 50 }, async (_, n) => await refreshNative(n % 2 ? one : two, refresh)));
    expect(new Set(answers.map((answer) => answer.refresh)).size).toBe(1);
    expect((await refreshNative(two, refresh)).refresh).toBe(answers[0]?.refresh);
    await expectError(await postRefresh(two, refresh.replace(/[\w-]{43}$/, 'A'.repeat(43))), 400, 'invalid_grant');
    expect(two.log.audits('family.revoked').at(-1)).toMatchObject({ family, reason: 'reused' });
    await expect.poll(async () => await me(one, { bearer: access })).toBe(401);
  });

  it('X13: keeps at most familiesPerSession and answers 429 past the limit', async () => {
    const cookie = await login('alice');
    const statuses: number[] = [];
    for (let time = 0; time < 31; time++) statuses.push((await postExchange(time % 2 ? one : two, cookie)).status);
    expect(statuses).toEqual([...Array(30).fill(200), 429]);
  });

  it('B10, V1: revokes a family on every instance', async () => {
    const { refresh, access } = await exchangeNative(one, await login('alice'));
    expect((await one.post('/auth/revoke', { token: refresh, client_id: 'android' })).status).toBe(200);
    await expect.poll(async () => await me(two, { bearer: access })).toBe(401);
    const introspected = await two.post('/auth/introspect', { token: access }, { headers: basic('orders-api', CLIENT_SECRETS['orders-api']) });
    expect(await introspected.json()).toEqual({ active: false });
  });

  it('law 6: a logout ends session and tokens on every instance, by either credential', async () => {
    for (const by of ['cookie', 'bearer'] as const) {
      const cookie = await login('alice');
      const { access, refresh } = await exchangeNative(one, cookie);
      const response = by === 'cookie' ? await postAsBrowser(two, '/auth/logout', cookie) : await two.post('/auth/logout', {}, { bearer: access });
      expect(response.status).toBe(204);
      await expect.poll(async () => await me(one, { bearer: access })).toBe(401);
      expect(await me(one, { cookie })).toBe(401);
      expect(await redis.exists(keys.at(-1) ?? '')).toBe(0);
      await expectError(await postRefresh(one, refresh), 400, 'invalid_grant');
    }
  });

  it('law 6: a logout that the legacy app does alone is noticed at the next refresh', async () => {
    const cookie = await login('alice');
    const { access, refresh } = await exchangeNative(one, cookie);
    await fetch(`${urlOf(legacy)}/logout`, { method: 'POST', headers: { cookie } });
    await expectError(await postRefresh(two, refresh), 400, 'invalid_grant');
    expect(await me(two, { bearer: access })).toBe(401);
    await expect.poll(async () => await me(one, { bearer: access })).toBe(401);
  });

  it('takes the way back to a session that lives, and to one whose record is gone', async () => {
    const cookie = await login('alice');
    const { refresh } = await exchangeNative(one, cookie);
    expect(cookieHeader(await postReturn(two, refresh))).toBe(cookie);
    const gone = await login('alice');
    const key = keys.at(-1) ?? '';
    await redis.pexpire(key, 1500);
    const dormant = await exchangeNative(one, gone);
    await redis.pexpire(key, 1);
    await expect.poll(async () => await redis.exists(key)).toBe(0);
    const restored = cookieHeader(await postReturn(two, dormant.refresh));
    rememberCookie(restored);
    expect(restored).not.toBe(gone);
    expect(await me(one, { cookie: restored })).toBe(200);
    expect(cookieHeader(await postReturn(one, dormant.refresh))).toBe(restored);
    await expectError(await postRefresh(one, dormant.refresh), 400, 'invalid_grant');
  });

  it('G8: ends a person, whose sessions are on several masters', async () => {
    const sessions = await Promise.all(Array.from({ length: 6 }, async () => await login('person-77')));
    const tokens = await Promise.all(sessions.map(async (cookie) => await exchangeNative(one, cookie)));
    expect(await two.bridge.endSubject('u-person-77', { why: 'test' })).toBe(6);
    for (const [at, { access, refresh }] of tokens.entries()) {
      await expect.poll(async () => await me(one, { bearer: access })).toBe(401);
      expect(await me(two, { cookie: sessions[at] ?? '' })).toBe(401);
      await expectError(await postRefresh(one, refresh), 400, 'invalid_grant');
    }
    const fresh = await exchangeNative(one, await login('person-77'));
    expect(await me(two, { bearer: fresh.access })).toBe(200);
  });

  it('issues at a login, and serves ctx.session to token clients', async () => {
    const { accessToken } = await one.bridge.issueFor({ subject: 'u-alice' }, { client: 'android' });
    expect(await me(two, { bearer: accessToken })).toBe(200);
    const cookie = await login('alice');
    const { access } = await exchangeNative(one, cookie);
    expect(await (await two.call('/cart', { bearer: access })).json()).toEqual({ user: 'u-alice', cart: ['book'] });
    expect(await (await one.call('/cart', { cookie })).json()).toEqual({ user: 'u-alice', cart: ['book', 'book'] });
  });

  it('an instance that starts knows what has ended before', async () => {
    const { access, refresh } = await exchangeNative(one, await login('alice'));
    await one.post('/auth/revoke', { token: refresh, client_id: 'android' });
    const late = await startInstance(config, directory, { secrets, redis }, {});
    try {
      expect(await me(late, { bearer: access })).toBe(401);
    } finally {
      await late.close();
    }
  });

  it('`check` says that a logout of the legacy app is noticed at the next refresh only', async () => {
    writeFileSync(join(directory, 'crossfade.json'), JSON.stringify(config));
    const { stdout, status } = await runCli(['check', '--config', join(directory, 'crossfade.json')]);
    expect(stdout).toContain('a logout that the legacy app does alone is noticed at the next refresh, not at once');
    expect(status).toBe(0);
  });
});

async function sizes(): Promise<number[]> {
  return await Promise.all(redis.nodes('master').map(async (node) => await node.dbsize()));
}
