import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import type { ConfigInput } from '../../src/config/config.js';
import type { ForeignApp } from '../apps/app.js';
import { startExpressApp } from '../apps/express-app.js';
import { hashOfFields, jsonInField, jsonWithEnd, startHomeMadeApp } from '../apps/home-made-app.js';
import { startKoaGenericApp } from '../apps/koa-generic-app.js';
import { startPhpApp } from '../apps/php-app.js';
import { writeKey } from '../support/keys.js';
import { cookiesOf, exchangeNative, postExchange, postRefresh, postReturn } from '../support/tokens.js';
import { remember } from '../support/transcript.js';
import { createWorld, type World } from '../support/world.js';

type SessionEntry = ConfigInput['sessions'][number];
type StartApp = (redis: PrivateRedis, secrets: readonly string[]) => Promise<ForeignApp>;

const FORMATS: readonly (readonly [what: string, start: StartApp, entry: SessionEntry])[] = [
  [
    'express-session in connect-redis, logged in by Passport',
    async (redis, secrets) => await startExpressApp(redis.url, secrets, { cookie: { maxAge: 3_600_000 } }),
    {
      format: 'express-session',
      rolling: true,
      secretsFile: 'session-secrets',
      principal: {
        subject: 'passport.user',
        tenant: 'profile.tenant',
        roles: 'profile.roles',
        scope: 'profile.scope',
        authTime: 'profile.loggedInAt',
      },
    },
  ],
  ...([6] as const).map((version): (typeof FORMATS)[number] => [
    `express-session in connect-redis ${version}`,
    async (redis, secrets) => await startExpressApp(redis.url, secrets, { cookie: { maxAge: 3_600_000 } }, { version }),
    {
      format: 'express-session',
      rolling: true,
      secretsFile: 'session-secrets',
      principal: {
        subject: 'passport.user',
        tenant: 'profile.tenant',
        roles: 'profile.roles',
        scope: 'profile.scope',
        authTime: 'profile.loggedInAt',
      },
    },
  ]),
  [
    'express-session with a cookie that ends with the browser',
    async (redis, secrets) => await startExpressApp(redis.url, secrets),
    {
      format: 'express-session',
      secretsFile: 'session-secrets',
      principal: { subject: 'passport.user', scope: 'profile.scope', authTime: 'profile.loggedInAt' },
    },
  ],
  [
    'koa-generic-session in koa-redis',
    async (redis, secrets) => await startKoaGenericApp(redis.url, secrets),
    {
      format: 'koa-generic-session',
      secretsFile: 'session-secrets',
      principal: { subject: 'user.id', tenant: 'user.tenant', roles: 'user.roles', scope: 'user.scope', authTime: 'user.loggedInAt' },
    },
  ],
  ...(['php', 'php_serialize'] as const).map(
    (serializeHandler) =>
      [
        `PHP in phpredis, session.serialize_handler=${serializeHandler}`,
        async (redis, _) => await startPhpApp(redis.port, serializeHandler),
        {
          format: 'php',
          serializeHandler,
          principal: { subject: 'user.id', tenant: 'user.tenant', roles: 'user.roles', scope: 'scope', authTime: 'since' },
        },
      ] satisfies [string, StartApp, SessionEntry],
  ),
  [
    'home-made: the fields of a hash, an unsigned cookie',
    async (redis, secrets) => await startHomeMadeApp(redis.url, secrets, hashOfFields),
    {
      format: 'json',
      cookie: 'sid',
      cookieOptions: { expires: 'browser' },
      signed: false,
      json: { key: 'app:{{id}}:session', storage: 'hash' },
      principal: { subject: 'user', tenant: 'tenant', roles: 'roles', scope: 'scope', authTime: 'at' },
    },
  ],
  [
    'home-made: JSON in a string that says when it ends, a cookie that Express signed',
    async (redis, secrets) => await startHomeMadeApp(redis.url, secrets, jsonWithEnd(secrets[0] ?? '')),
    {
      format: 'json',
      cookie: 'app_session',
      cookieOptions: { expires: 'browser' },
      secretsFile: 'session-secrets',
      json: { key: 'login-{id}', signature: 'express', expiresAt: 'meta.until' },
      principal: { subject: 'account.uid', tenant: 'account.tenant', roles: 'account.roles', scope: 'account.scope', authTime: 'account.since' },
    },
  ],
  [
    'home-made: the same, signed by cookie-signature alone',
    async (redis, secrets) => await startHomeMadeApp(redis.url, secrets, jsonWithEnd(secrets[0] ?? '', '')),
    {
      format: 'json',
      cookie: 'app_session',
      cookieOptions: { expires: 'browser' },
      secretsFile: 'session-secrets',
      json: { key: 'login-{id}', signature: 'cookie-signature', expiresAt: 'meta.until' },
      principal: { subject: 'account.uid', scope: 'account.scope', authTime: 'account.since' },
    },
  ],
  [
    'home-made: JSON in one field of a hash, a cookie that Koa signed',
    async (redis, secrets) => await startHomeMadeApp(redis.url, secrets, jsonInField),
    {
      format: 'json',
      cookie: 'session',
      cookieOptions: { expires: 'browser' },
      secretsFile: 'session-secrets',
      json: { key: 's:{id}', storage: 'hash', field: 'data' },
      principal: { subject: 'user', tenant: 'tenant', roles: 'roles', scope: 'scope', authTime: 'loggedInAt' },
    },
  ],
];

/** When the session's cookie ends, in ms, or that it ends with the browser. The lines of a signature end alike. */
function lifeOf(lines: readonly string[]): 'browser' | number {
  const ends = lines.filter((line) => !line.startsWith('__Secure-xfr=')).map((line) => /;\s*(expires|max-age)=([^;]+)/i.exec(line));
  const [first] = ends;
  if (!first) return 'browser';
  return first[1]?.toLowerCase() === 'expires' ? Date.parse(first[2] ?? '') : Date.now() + Number(first[2]) * 1000;
}

describe.each(FORMATS)('%s', (_what, start, entry) => {
  let records: PrivateRedis;
  let admin: Redis;
  let app: ForeignApp;
  let world: World;
  beforeAll(async () => {
    records = await startRedis();
    admin = new Redis(records.url);
    const secrets = [randomBytes(24).toString('base64url'), randomBytes(24).toString('base64url')];
    remember(...secrets);
    app = await start(records, secrets);
    world = await createWorld({
      configure: (config) => ({ ...config, sessions: [{ ...entry, name: 'web', redis: { url: records.url } }] }),
      prepare(directory) {
        writeKey(join(directory, 'keys'), 'first.pem');
        writeFileSync(join(directory, 'session-secrets'), `${secrets.join('\n')}\n`);
      },
    });
  }, 180_000);
  afterAll(async () => {
    await world.close();
    await app.close();
    admin.disconnect();
    await records.stop();
  });

  it('the cookie of a login by the real library opens /auth/verify, with what the config maps', async () => {
    const cookie = await app.login('alice');
    expect(await app.greeting(cookie)).toBe('hello, u-alice');
    const response = await world.call('/auth/verify', { cookie });
    expect({ status: response.status, subject: response.headers.get('x-auth-subject'), via: response.headers.get('x-auth-via') }).toEqual({
      status: 200,
      subject: 'u-alice',
      via: 'session',
    });
    expect(response.headers.get('x-auth-scope')).toBe('read%3Aorders write%3Aorders');
    if (entry.principal?.roles !== undefined) expect(response.headers.get('x-auth-roles')).toBe('admin billing');
  });

  it('a cookie that was changed by one character is nobody’s, and the records are not asked', async () => {
    if (entry.secretsFile === undefined) return;
    const cookie = await app.login('alice');
    const forged = cookie.replace(/(.)(;|$)/, (_, last: string, end: string) => `${last === 'A' ? 'B' : 'A'}${end}`);
    expect((await world.call('/auth/verify', { cookie: forged })).status).toBe(401);
    expect(await (await world.call('/', { cookie: forged })).json()).toMatchObject({ rejection: { reason: 'bad-signature' } });
  });

  it('is exchanged; a logout in the legacy app ends the tokens, and a new login right after it is accepted', async () => {
    const cookie = await app.login('alice');
    const { access, refresh } = await exchangeNative(world, cookie);
    expect((await world.call('/orders', { bearer: access })).status).toBe(200);
    await app.logout(cookie);
    await expect.poll(async () => (await world.call('/orders', { bearer: access })).status).toBe(401);
    expect((await postRefresh(world, refresh)).status).toBe(400);
    expect((await world.call('/auth/verify', { cookie })).status).toBe(401);
    const again = await app.login('alice', cookie);
    expect((await world.call('/auth/verify', { cookie: again })).status).toBe(200);
    expect((await postExchange(world, again)).status).toBe(200);
    expect((await world.call('/orders', { bearer: access })).status).toBe(401);
  });

  it('the way back gives the cookie of the session that lives', async () => {
    const cookie = await app.login('bob');
    const { refresh } = await exchangeNative(world, cookie);
    const response = await postReturn(world, refresh);
    expect({ status: response.status, greeting: await app.greeting(cookiesOf(response)) }).toEqual({ status: 204, greeting: 'hello, u-bob' });
    expect(cookiesOf(response)).toBe(cookie);
  });

  it('the way back makes a session anew that the legacy app accepts, where Redis has lost the record', async () => {
    const cookie = await app.login('bob');
    const { refresh } = await exchangeNative(world, cookie);
    const redis = new Redis(records.url);
    await redis.flushdb();
    const response = await postReturn(world, refresh);
    expect(response.status).toBe(204);
    const restored = cookiesOf(response);
    expect(restored).not.toBe(cookie);
    expect(await app.greeting(restored)).toBe('hello, u-bob');
    expect((await world.call('/auth/verify', { cookie: restored })).headers.get('x-auth-subject')).toBe('u-bob');
    const [key = ''] = await redis.keys('*');
    expect(await redis.pttl(key)).toBeGreaterThan(600_000);
    redis.disconnect();
    // A logout of the session that came back is one for everything.
    const { access } = await exchangeNative(world, restored);
    await app.logout(restored);
    await expect.poll(async () => (await world.call('/orders', { bearer: access })).status).toBe(401);
  });

  it('a session that comes back has a cookie that lives as the app lets it live', async () => {
    const own = lifeOf(await app.linesOfLogin('bob'));
    const live = await postReturn(world, (await exchangeNative(world, await app.login('bob'))).refresh);
    const { refresh } = await exchangeNative(world, await app.login('carol'));
    await admin.flushdb();
    const restored = await postReturn(world, refresh);
    for (const response of [live, restored]) {
      expect(response.status).toBe(204);
      const ours = lifeOf(response.headers.getSetCookie());
      if (own === 'browser') expect(ours).toBe('browser');
      else expect(Math.abs(Number(ours) - Number(own))).toBeLessThan(60_000);
    }
  });

  it('/auth/logout ends the session in the legacy app, and clears its cookies', async () => {
    const cookie = await app.login('alice');
    const { access } = await exchangeNative(world, cookie);
    const response = await world.post('/auth/logout', {}, { bearer: access });
    expect(response.status).toBe(204);
    expect(await app.greeting(cookie)).toBe('hello, stranger');
    for (const [name] of cookie.split('; ').map((pair) => pair.split('='))) {
      expect(response.headers.getSetCookie().some((line) => line.startsWith(`${name}=;`))).toBe(true);
    }
  });
});
