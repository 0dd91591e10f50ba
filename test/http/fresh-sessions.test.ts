import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { startRedis } from '../../scripts/lib/private-redis.js';
import type { ConfigInput } from '../../src/config/config.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, type World, type WorldOptions } from '../support/world.js';

const openWorld = useWorlds();

/** A world whose records and own keys are in one Redis, that of nobody else. */
async function openApart(options: WorldOptions = {}): Promise<{ world: World; commands(): Promise<Record<string, number>>; close(): Promise<void> }> {
  const server = await startRedis();
  const configure = (config: ConfigInput): ConfigInput => ({
    ...config,
    sessions: (config.sessions ?? []).map(({ redis: _, ...session }) => session),
  });
  const world = await createWorld({ ...options, configure, redisUrl: server.url, legacy: { redisUrl: server.url } });
  return {
    world,
    async commands() {
      const lines = (await world.legacy.redis.info('commandstats')).matchAll(/cmdstat_(\w+):calls=(\d+)/g);
      return Object.fromEntries([...lines].map(([, name = '', calls]) => [name, Number(calls)]));
    },
    async close() {
      await world.close();
      await server.stop();
    },
  };
}

const answer = z.object({ principal: z.object({ subject: z.string() }).nullable() });

async function principal(world: World, cookie: string): Promise<string | undefined> {
  return answer.parse(await (await world.call('/', { cookie })).json()).principal?.subject;
}

describe('sessions of many requests', () => {
  it('are read together: 64 requests at once cost a few MGETs, and no command each', async () => {
    const { world, commands, close } = await openApart();
    try {
      const cookies = await Promise.all(Array.from({ length: 64 }, async (_, n) => await world.login(`person-${n}`)));
      await Promise.all(cookies.map(async (cookie) => await principal(world, cookie)));
      const before = await commands();
      for (let round = 0; round < 5; round++) {
        const found = await Promise.all(cookies.map(async (cookie) => await principal(world, cookie)));
        expect(found).toEqual(cookies.map((_, n) => `u-person-${n}`));
      }
      const after = await commands();
      const more = (name: string) => (after[name] ?? 0) - (before[name] ?? 0);
      expect(more('mget')).toBeGreaterThan(0);
      expect(more('mget')).toBeLessThan(5 * 64 * 0.5);
      // The probe of the own Redis, every 2 s, tries each command once: nothing else reads a stream backwards here.
      const probes = more('xrevrange');
      expect([more('pttl'), more('exists')]).toEqual([probes, probes]);
    } finally {
      await close();
    }
  });

  it('are each their own: a mixture of good, unknown, expired and logged-out ones, in one turn', async () => {
    const world = await openWorld();
    const [alice, bob, gone] = [await world.login('alice'), await world.login('bob'), await world.login('carol')];
    const [, , goneKey = ''] = world.legacy.keys;
    await world.legacy.redis.del(goneKey);
    const ended = await world.login('carol');
    expect((await world.post('/auth/logout', {}, { cookie: ended, headers: { origin: 'https://app.example.com' } })).status).toBe(204);
    const [, , , endedKey = ''] = world.legacy.keys;
    await world.legacy.redis.set(endedKey, JSON.stringify({ user: { id: 'u-carol' }, _expire: Date.now() + 60_000, _maxAge: 60_000 }));
    const asked = [alice, gone, bob, ended, alice];
    for (let round = 0; round < 20; round++) {
      const found = await Promise.all(asked.map(async (cookie) => (await principal(world, cookie)) ?? null));
      expect(found).toEqual(['u-alice', null, 'u-bob', null, 'u-alice']);
    }
  });

  it('a session whose deletion was acknowledged before the request was sent is never found: 10,000 times', async () => {
    // Thousands of requests at once on a busy machine are no outage of Redis.
    const world = await openWorld({ configure: (config) => ({ ...config, redis: { ...config.redis, commandTimeoutMs: 10_000 } }) });
    const { redis } = world.legacy;
    const cookies = await Promise.all(Array.from({ length: 20 }, async () => await world.login('alice')));
    const places = cookies.map((cookie, n) => ({ cookie, key: world.legacy.keys[n] ?? '' }));
    const record = (await redis.get(places[0]?.key ?? '')) ?? '';
    let missed = 0;
    let found = 0;
    await Promise.all(
      places.map(async ({ cookie, key }) => {
        for (let n = 0; n < 500; n++) {
          await redis.set(key, record, 'PX', 60_000);
          if ((await principal(world, cookie)) === 'u-alice') found += 1;
          await redis.del(key);
          if ((await principal(world, cookie)) !== undefined) missed += 1;
        }
      }),
    );
    expect({ found, missed }).toEqual({ found: 10_000, missed: 0 });
  }, 120_000);

  it('goes on by single reads where MGET is forbidden', async () => {
    const { world, close } = await openApart();
    try {
      const cookies = await Promise.all(['alice', 'bob', 'carol'].map(async (name) => await world.login(name)));
      const { redis } = world.legacy;
      await redis.call('ACL', 'SETUSER', 'default', '-mget');
      const asked = async () => await Promise.all(cookies.map(async (cookie) => await principal(world, cookie)));
      expect(await asked()).toEqual(['u-alice', 'u-bob', 'u-carol']);
      await redis.call('ACL', 'SETUSER', 'default', '+mget');
    } finally {
      await close();
    }
  });
});

describe('beside koa-session', () => {
  it('one read of the record serves both', async () => {
    const { world, commands, close } = await openApart({ koaSession: 'ours' });
    try {
      const cookie = await world.login('alice');
      const ask = async () => await (await world.call('/', { cookie })).json();
      expect(await ask()).toMatchObject({ principal: { subject: 'u-alice' }, session: 'u-alice' });
      const before = await commands();
      for (let n = 0; n < 10; n++) expect(await ask()).toMatchObject({ session: 'u-alice' });
      const after = await commands();
      const more = (name: string) => (after[name] ?? 0) - (before[name] ?? 0);
      expect(more('mget')).toBe(10);
      // What answers no request: the heartbeat.
      expect(more('get')).toBeLessThan(10);
    } finally {
      await close();
    }
  });
});
