import { Redis } from 'ioredis';
import { describe, expect, it } from 'vitest';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { deriveKey, Secret } from '../../src/config/secret.js';
import { signText } from '../../src/redis/signed-text.js';
import { expectError } from '../support/expect-error.js';
import type { Instance } from '../support/instance.js';
import { exchangeNative, postAsBrowser, postExchange, postRefresh, refreshNative } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, sharedRedisUrl, type World } from '../support/world.js';

const open = useWorlds();

async function me(at: Instance, credential: { cookie?: string; bearer?: string }): Promise<number> {
  return (await at.call('/me', credential)).status;
}

async function refused(at: Instance, key: string, reason: string): Promise<void> {
  await at.log.until((line) => line['audit'] === 'value.refused' && line['key'] === key && line['reason'] === reason);
}

async function streamOf(world: World): Promise<[id: string, fields: string[]][]> {
  return await world.legacy.redis.xrange(`${world.prefix}events`, '-', '+');
}

describe('Law 10: revocations in Redis', () => {
  it('a family that an older copy of Redis brings back stays ended for those who know', async () => {
    const world = await open();
    const { refresh, sid, family } = await exchangeNative(world, await world.login('alice'));
    const key = `${world.prefix}{${sid}}:family:${family}`;
    const copy = await world.legacy.redis.dumpBuffer(key);
    await world.post('/auth/revoke', { token: refresh, client_id: 'android' });
    await world.legacy.redis.restore(key, 60_000, copy, 'REPLACE');
    await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
  });

  it('no key of the bridge is left without an end but the fleet’s keys and flags', async () => {
    const world = await open();
    const { redis } = world.legacy;
    const cookie = await world.login('alice');
    const tokens = await exchangeNative(world, cookie);
    await redis.del(`${world.prefix}{${tokens.sid}}:families`);
    const { refresh } = await refreshNative(world, tokens.refresh);
    await world.bridge.issueFor({ subject: 'u-bob' }, { client: 'android' });
    await postRefresh(world, 'junk');
    await world.post('/auth/revoke', { token: refresh, client_id: 'android' });
    await world.bridge.endSubject('u-bob', { why: 'test' });
    await postAsBrowser(world, '/auth/logout', cookie);
    const lasting: string[] = [];
    for (const key of await redis.keys(`${world.prefix}*`)) if ((await redis.pttl(key)) === -1) lasting.push(key.slice(world.prefix.length));
    // The last known flags stand for a start without their source.
    expect(lasting.filter((key) => key !== 'flags')).toEqual(['jwks']);
  });

  it('K8: one without the MAC, with that of another fleet, or of another shape, is absent and audited; nobody notices', async () => {
    const [world, stranger] = [await open(), await open()];
    const { access, refresh, sid, family } = await exchangeNative(world, await world.login('alice'));
    const foreign = await exchangeNative(stranger, await stranger.login('alice'));
    await stranger.post('/auth/revoke', { token: foreign.refresh, client_id: 'android' });
    const [, fields = []] = (await streamOf(stranger)).at(-1) ?? [];
    const event = JSON.stringify({ type: 'family.ended', sid, family, endedAt: Date.now() });
    for (const forged of [event, `AAAA.${event}`, `.${event}`, '', 'x', `${(fields[1] ?? '').split('.')[0]}.${event}`, fields[1] ?? '']) {
      await world.legacy.redis.xadd(`${world.prefix}events`, '*', 'event', forged);
    }
    await world.legacy.redis.xadd(`${world.prefix}events`, '*', 'nothing', 'of ours');
    await expect.poll(() => world.log.audits('value.refused').filter(({ key }) => key === 'events').length).toBe(8);
    expect(await me(world, { bearer: access })).toBe(200);
    expect((await postRefresh(world, refresh)).status).toBe(200);
    // What comes after is heard.
    await world.post('/auth/revoke', { token: refresh, client_id: 'android' });
    expect(await me(world, { bearer: access })).toBe(401);
  });

  it('K8: an old one that is replayed is absent and audited', async () => {
    const world = await open();
    const { access, sid, family } = await exchangeNative(world, await world.login('alice'));
    const macKey = deriveKey(new Secret(world.readFile('fleet-secret').trim()), 'mac');
    const replay = async (ageMs: number) => {
      const event = { type: 'family.ended', sid, family, endedAt: Date.now() - ageMs };
      await world.legacy.redis.xadd(`${world.prefix}events`, '*', 'event', signText(macKey, 'event', JSON.stringify(event)));
    };
    // Older than any access token that it could be about: a token lives for 600 s, plus skew and publishSeconds.
    await replay((600 + 30 + 900 + 1) * 1000);
    await refused(world, 'events', 'replayed');
    expect(await me(world, { bearer: access })).toBe(200);
    await replay(0);
    await expect.poll(async () => await me(world, { bearer: access })).toBe(401);
  });

  it('an id far ahead, which would hold all that come after it ahead as well, is refused, and revocations go on', async () => {
    const world = await open();
    const other = await world.another();
    const [first, second] = [await exchangeNative(world, await world.login('alice')), await exchangeNative(world, await world.login('bob'))];
    await world.post('/auth/revoke', { token: first.refresh, client_id: 'android' });
    await world.legacy.redis.xadd(`${world.prefix}events`, '9999999999999-1', 'event', 'junk');
    // Whichever reads it first: for the other it is gone by then.
    await Promise.any([refused(world, 'events', 'id-ahead'), refused(other, 'events', 'id-ahead')]);
    await world.post('/auth/revoke', { token: second.refresh, client_id: 'android' });
    await expect.poll(async () => await me(other, { bearer: second.access })).toBe(401);
    await expect.poll(async () => (await streamOf(world)).length).toBeGreaterThanOrEqual(2);
    for (const [id] of await streamOf(world)) expect(Number(id.split('-')[0])).toBeLessThan(Date.now() + 1000);
    const late = await world.another();
    expect(await me(late, { bearer: first.access })).toBe(401);
  });

  it('a tombstone and the end of a person that somebody wrote are absent, and so are keys of another type', async () => {
    const world = await open();
    const cookie = await world.login('alice');
    const { sid, refresh } = await exchangeNative(world, cookie);
    const { redis } = world.legacy;
    const forged = JSON.stringify({ subject: 'u-alice', endedAt: Date.now() + 1000, reason: 'logout' });
    for (const value of [forged, `AAAA.${forged}`]) {
      await redis.set(`${world.prefix}{${sid}}:ended`, value);
      expect(await me(world, { cookie })).toBe(200);
    }
    await refused(world, 'ended', 'bad-mac');
    await redis.del(`${world.prefix}{${sid}}:ended`);
    await redis.hset(`${world.prefix}{${sid}}:ended`, 'a', 'b');
    expect(await me(world, { cookie })).toBe(200);
    await redis.del(`${world.prefix}{${sid}}:ended`);
    await redis.zadd(`${world.prefix}persons-ended`, Date.now(), `AAAA.{"type":"subject.ended","subject":"u-alice","endedAt":9e15,"notBefore":9e15}`);
    const late = await world.another();
    await refused(late, 'persons-ended', 'bad-mac');
    expect(await me(late, { cookie })).toBe(200);
    expect((await postRefresh(late, refresh)).status).toBe(200);
    expect((await postExchange(late, cookie)).status).toBe(200);
  });

  it('a tombstone of another session is none here', async () => {
    const world = await open();
    const [mine, other] = [await world.login('alice'), await world.login('alice')];
    const tokens = await exchangeNative(world, mine);
    const gone = await exchangeNative(world, other);
    await postAsBrowser(world, '/auth/logout', other);
    const stone = (await world.legacy.redis.get(`${world.prefix}{${gone.sid}}:ended`)) ?? '';
    expect(stone).not.toBe('');
    await world.legacy.redis.set(`${world.prefix}{${tokens.sid}}:ended`, stone);
    expect(await me(world, { cookie: mine })).toBe(200);
  });
});

describe('keys of another type', () => {
  it('Law 10: count as absent and give way, at a start and in between; nobody is answered 500 or 503 for them', async () => {
    const world = await open();
    const cookie = await world.login('alice');
    const { refresh, sid, family, access } = await exchangeNative(world, cookie);
    const { redis } = world.legacy;
    const tagged = `${world.prefix}{${sid}}:`;
    await redis.hset(`${tagged}family:${family}`, 'older', 'x"garbage"');
    const next = await refreshNative(world, refresh);
    for (const [key, status] of [
      [`${tagged}families`, 200],
      [`${tagged}ended`, 200],
      [`${tagged}session`, 400],
    ] as const) {
      await redis.del(key);
      await redis.set(key, 'a stranger');
      expect([key, (await postRefresh(world, next.refresh)).status]).toEqual([key, status]);
      expect((await postExchange(world, cookie)).status).toBe(200);
    }
    await redis.del(`${tagged}family:${family}`);
    await redis.set(`${tagged}family:${family}`, 'a stranger');
    await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
    expect((await postExchange(world, cookie)).status).toBe(200);
    for (const name of ['events', 'persons-ended']) {
      await redis.del(`${world.prefix}${name}`);
      await redis.set(`${world.prefix}${name}`, 'a stranger');
    }
    // While it is there: the end of a person comes through all the same.
    await world.bridge.endSubject('u-nobody', { why: 'test' });
    expect(await redis.type(`${world.prefix}persons-ended`)).toBe('zset');
    await redis.del(`${world.prefix}persons-ended`);
    await redis.set(`${world.prefix}persons-ended`, 'a stranger');
    const late = await world.another();
    expect(await me(late, { bearer: access })).toBe(200);
    expect(await late.bridge.endSubject('u-alice', { why: 'test' })).toBeGreaterThan(0);
    await expect.poll(async () => await me(world, { bearer: access })).toBe(401);
    expect((await postAsBrowser(late, '/auth/logout', cookie)).status).toBe(204);
  });
});

describe('boot without Redis', () => {
  it('answers bearers 503 until the stream was read, serves sessions, and then knows what was revoked', async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    const world = await open({ redisUrl: own.url });
    const cookie = await world.login('alice');
    const [kept, revoked] = [await exchangeNative(world, cookie), await exchangeNative(world, cookie)];
    await world.post('/auth/revoke', { token: revoked.refresh, client_id: 'android' });
    await own.cut();
    const late = await world.another();
    expect(await expectError(await late.call('/me', { bearer: kept.access }), 503, 'temporarily_unavailable')).toMatchObject({
      reason: 'revocations',
    });
    expect(await me(late, { cookie })).toBe(200);
    // C3: the cookie of the same session answers for it.
    expect(await me(late, { cookie, bearer: kept.access })).toBe(200);
    await own.restore();
    await expect.poll(async () => await me(late, { bearer: kept.access })).toBe(200);
    expect(await me(late, { bearer: revoked.access })).toBe(401);
    await own.close();
  });
});

describe('Redis comes back with empty memory', () => {
  it('Law 1: issued tokens go on, revocations that live instances knew are in force again, and nobody else is refused', async () => {
    const redis = await startRedis();
    const world = await createWorld({ redisUrl: redis.url });
    const fresh: { stop(): Promise<void> }[] = [];
    try {
      const cookie = await world.login('alice');
      const kept = await exchangeNative(world, cookie);
      const out = await world.login('bob');
      const record = (await world.legacy.redis.get(world.legacy.keys.at(-1) ?? '')) ?? '';
      const ended = await exchangeNative(world, out);
      await postAsBrowser(world, '/auth/logout', out);
      await world.bridge.endSubject('u-carol', { why: 'test' });
      const carol = await exchangeNative(world, await world.login('carol'));

      await redis.stop();
      expect(await me(world, { bearer: kept.access })).toBe(200);
      expect(await me(world, { bearer: ended.access })).toBe(401);
      fresh.push(await startRedis({ port: redis.port }));
      await world.log.until((line) => line['audit'] === 'events.restored');
      expect(await me(world, { bearer: kept.access })).toBe(200);

      // An instance that starts now has it from Redis alone.
      const late = await world.another();
      for (const at of [world, late]) {
        expect(await me(at, { bearer: kept.access })).toBe(200);
        expect(await me(at, { bearer: carol.access })).toBe(200);
        await expectError(await at.call('/me', { bearer: ended.access }), 401, 'invalid_token');
        expect(await me(at, { cookie })).toBe(200);
        expect((await postExchange(at, cookie)).status).toBe(200);
      }
      // Families are gone with Redis; the session is not, and exchanges anew.
      await expectError(await postRefresh(world, kept.refresh), 400, 'invalid_grant');
      const key = world.legacy.keys.find((name) => out.includes(name)) ?? '';
      await world.legacy.redis.set(key, record, 'PX', 60_000);
      expect(await me(late, { cookie: out })).toBe(401);
      const admin = new Redis(redis.url);
      expect(await admin.zcard(`${world.prefix}persons-ended`)).toBe(1);
      admin.disconnect();
    } finally {
      await world.close();
      await redis.stop();
      for (const server of fresh) await server.stop();
    }
  });

  it('what it refuses to write at first is written when it does', async () => {
    const redis = await startRedis();
    const world = await createWorld({ redisUrl: redis.url });
    const admin = new Redis(redis.url);
    try {
      const tokens = await Promise.all([1, 2].map(async () => await exchangeNative(world, await world.login('alice'))));
      for (const { refresh } of tokens) await world.post('/auth/revoke', { token: refresh, client_id: 'android' });
      await world.bridge.endSubject('u-carol', { why: 'test' });
      await admin.config('SET', 'maxmemory', '1');
      await admin.flushall();
      await world.log.until(({ msg }) => String(msg).startsWith('what Redis has lost could not be written'));
      await admin.config('SET', 'maxmemory', '0');
      await world.log.until((line) => line['audit'] === 'events.restored');
      const late = await world.another();
      for (const { access } of tokens) expect(await me(late, { bearer: access })).toBe(401);
      expect(await admin.zcard(`${world.prefix}persons-ended`)).toBe(1);
      // Written once each, however often it was tried.
      const written = (await admin.xrange(`${world.prefix}events`, '-', '+')).map(([, fields]) => fields.join());
      expect(written.filter((event) => event.includes('.ended"'))).toHaveLength(3);
      for (const name of ['events', 'persons-ended']) expect(await admin.pttl(`${world.prefix}${name}`)).toBeGreaterThan(0);
    } finally {
      admin.disconnect();
      await world.close();
      await redis.stop();
    }
  });

  it('an instance that starts while it refuses writes reads what is there, and serves bearers', async () => {
    const redis = await startRedis();
    const world = await createWorld({ redisUrl: redis.url });
    const admin = new Redis(redis.url);
    try {
      const { access } = await exchangeNative(world, await world.login('alice'));
      await admin.config('SET', 'min-replicas-to-write', '1');
      const late = await world.another();
      expect(await me(late, { bearer: access })).toBe(200);
      await admin.config('SET', 'min-replicas-to-write', '0');
    } finally {
      admin.disconnect();
      await world.close();
      await redis.stop();
    }
  });

  it('each event is written again once, by whichever of three instances, and others are heard meanwhile', async () => {
    const own = await startRedis();
    const root = new Redis(own.url);
    const world = await open({ redisUrl: own.url });
    const fleet = [world, await world.another(), await world.another()];
    const macKey = deriveKey(new Secret(world.readFile('fleet-secret').trim()), 'mac');
    const { access, refresh } = await exchangeNative(world, await world.login('alice'));
    const many = 1500;
    const pipeline = root.pipeline();
    for (let n = 0; n < many; n++) {
      const event = { type: 'session.ended', sid: `sid-${n}`, subject: 'nobody', endedAt: Date.now() };
      pipeline.xadd(`${world.prefix}events`, '*', 'event', signText(macKey, 'event', JSON.stringify(event)));
    }
    await pipeline.exec();
    const known = async (at: Instance) => Number(/^crossfade_revocations\{of="session"\} (\d+)/m.exec(await at.metrics())?.[1] ?? 0);
    for (const at of fleet) await expect.poll(async () => await known(at)).toBe(many);
    await root.call('FLUSHALL');
    await expect.poll(async () => await root.xlen(`${world.prefix}events`), { timeout: 10_000 }).toBeGreaterThan(0);
    // While it is being written, a revocation by one is heard by the others.
    expect((await fleet[1]?.post('/auth/revoke', { token: refresh, client_id: 'android' }))?.status).toBe(200);
    for (const at of fleet) await expect.poll(async () => await me(at, { bearer: access }), { timeout: 5000 }).toBe(401);
    await expect.poll(() => fleet.flatMap(({ log }) => log.audits('events.restored')).length, { timeout: 15_000 }).toBeGreaterThan(0);
    expect(await root.xlen(`${world.prefix}events`)).toBeLessThan(many + 20);
    root.disconnect();
    await own.stop();
  }, 40_000);

  it('flushed while it runs, the stream is written again by those who know', async () => {
    const redis = await startRedis();
    const world = await createWorld({ redisUrl: redis.url });
    const admin = new Redis(redis.url);
    try {
      const { access, refresh } = await exchangeNative(world, await world.login('alice'));
      const later = await exchangeNative(world, await world.login('bob'));
      await world.post('/auth/revoke', { token: refresh, client_id: 'android' });
      await admin.flushall();
      // What comes right after does not hide that what was before is gone.
      await world.post('/auth/revoke', { token: later.access, client_id: 'android' });
      await world.log.until((line) => line['audit'] === 'events.restored');
      const late = await world.another();
      expect(await me(late, { bearer: access })).toBe(401);
    } finally {
      admin.disconnect();
      await world.close();
      await redis.stop();
    }
  });
});
