import { describe, expect, it } from 'vitest';
import { useWorlds } from '../support/use-worlds.js';
import type { World, WorldOptions } from '../support/world.js';

const open = useWorlds();

type SessionEntry = World['config']['sessions'][number];
const entry = (changes: Partial<SessionEntry>) => (config: World['config']) => ({
  ...config,
  sessions: config.sessions.map((session) => ({ ...session, ...changes })),
});

describe('sessions as koa-session writes them', () => {
  it.each<[string, WorldOptions['legacy'], Partial<SessionEntry>]>([
    ['version 7, as it comes', {}, {}],
    ['version 7, with a prefix of its own, which stands in the cookie too', { session: { prefix: 'sess:' } }, {}],
    ['version 7, with a prefix of the store', { storePrefix: 'store:' }, { keyPrefix: 'store:' }],
    ['version 7, with both', { storePrefix: 'store:', session: { prefix: 'sess:' } }, { keyPrefix: 'store:' }],
    ['version 7, rolling', { session: { rolling: true } }, { rolling: true }],
    ['version 7, without an end of its own', { session: { maxAge: 'session' } }, {}],
    ['version 7, unsigned', { session: { signed: false } }, { signed: false }],
    ['version 7, under another cookie name', { session: { key: 'sid' } }, { cookie: 'sid' }],
    ['version 6, as it comes', { version: 6 }, {}],
    ['version 6, rolling', { version: 6, session: { rolling: true } }, { rolling: true }],
    ['version 4, under its old cookie name', { version: 4 }, { cookie: 'koa:sess' }],
    ['version 4, with a prefix', { version: 4, session: { prefix: 'v4-' } }, { cookie: 'koa:sess' }],
    ['version 5, under its old cookie name', { version: 5 }, { cookie: 'koa:sess' }],
    ['version 5, with a prefix', { version: 5, session: { prefix: 'v5-' } }, { cookie: 'koa:sess' }],
  ])('%s: the cookie opens the API, and is exchanged', async (_what, legacy, changes) => {
    const world = await open({ ...(legacy ? { legacy } : {}), configure: entry(changes) });
    const cookie = await world.login('alice');
    expect(await (await world.call('/orders', { cookie })).json()).toMatchObject({ principal: { subject: 'u-alice', via: 'session' } });
    const bearer = await world.token(cookie);
    expect(await (await world.call('/orders', { bearer })).json()).toMatchObject({ principal: { subject: 'u-alice', via: 'jwt' } });
    await world.legacy.logout(cookie);
    expect(await (await world.call('/', { cookie })).json()).toMatchObject({ principal: null });
  });

  it('two entries: old and new cookie name side by side, tried in order', async () => {
    const world = await open({
      legacy: { version: 5 },
      configure: (config) => ({
        ...config,
        sessions: [...config.sessions, ...config.sessions.map((session) => ({ ...session, name: 'old', cookie: 'koa:sess' }))],
      }),
    });
    const cookie = await world.login('alice');
    expect(cookie).toMatch(/^koa:sess=/);
    expect(await (await world.call('/', { cookie })).json()).toMatchObject({ principal: { subject: 'u-alice' } });
    expect((await world.exchange(cookie)).status).toBe(200);
  });

  it('sessions: [] — the migration is done: cookies are not looked at, tokens go on', async () => {
    const world = await open({ configure: (config) => ({ ...config, sessions: [] }) });
    const { result, storeReached } = await world.watching(async () => world.call('/', { cookie: await world.login('alice') }));
    expect({ status: result.status, body: await result.json(), storeReached }).toMatchObject({
      status: 200,
      body: { principal: null, rejection: null },
      storeReached: false,
    });
  });
});

describe.each([2, 3] as const)('beside a real koa-session in one app, on Koa %i', (koa) => {
  it.each(['before', 'after'] as const)(
    'authenticate() mounted %s koa-session serves cookie and token, and the handler has its session',
    async (order) => {
      const world = await open({ koa, koaSession: order });
      const cookie = await world.login('alice');
      expect(await (await world.call('/orders', { cookie })).json()).toMatchObject({
        principal: { subject: 'u-alice', via: 'session' },
        session: 'u-alice',
      });
      const bearer = await world.token(cookie);
      expect(await (await world.call('/orders', { bearer })).json()).toMatchObject({ principal: { via: 'jwt' }, session: null });
      expect((await world.call('/.well-known/jwks.json')).status).toBe(200);
      expect((await world.call('/auth/token')).status).toBe(405);
      expect((await world.call('/orders')).status).toBe(401);
    },
  );
});
