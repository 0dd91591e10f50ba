import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { expectError } from '../support/expect-error.js';
import type { Instance } from '../support/instance.js';
import { exchangeNative, postExchange, postRefresh, readTokens, refreshNative } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, sharedRedisUrl, type World } from '../support/world.js';

const open = useWorlds();

let world: World;
let other: Instance;
beforeAll(async () => {
  world = await createWorld({ configure: ({ limits: _, ...config }) => config });
  other = await world.another();
});
afterAll(async () => await world.close());

/** Every test fails from an address of its own. */
let lastAddress = 0;
function from(address = `203.0.113.${++lastAddress}`): Record<string, string> {
  return { 'x-forwarded-for': address };
}

async function junk(at: Instance, headers: Record<string, string>): Promise<Response> {
  return await at.post('/auth/token', { grant_type: 'refresh_token', client_id: 'android', refresh_token: 'junk' }, { headers });
}

async function fail(times: number, headers: Record<string, string>): Promise<number[]> {
  return await Promise.all(Array.from({ length: times }, async (_, n) => (await junk(n % 2 ? world : other, headers)).status));
}

describe('X13: the same session exchanged again and again', () => {
  it('leaves at most familiesPerSession alive, the least recently used goes, and past the limit it is 429 with Retry-After', async () => {
    const cookie = await world.login('alice');
    const before = world.log.audits('exchange.granted').length;
    const answers: Response[] = [];
    for (let time = 0; time < 50; time++) answers.push(await postExchange(world, cookie));
    const granted = answers.filter(({ status }) => status === 200);
    expect(granted).toHaveLength(30);
    expect(answers.slice(30).map(({ status }) => status)).toEqual(Array(20).fill(429));
    expect(world.log.audits('exchange.granted').length - before).toBe(30);
    const [last] = answers.slice(-1);
    expect(Number(last?.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(Number(last?.headers.get('retry-after'))).toBeLessThanOrEqual(60);
    if (last) await expectError(last, 429, 'too_many_requests');
    const tokens = await Promise.all(granted.map(readTokens));
    expect(await world.legacy.redis.zrange(`${world.prefix}{${tokens[0]?.sid}}:families`, '0', '-1')).toEqual(
      tokens.slice(-10).map(({ family }) => family),
    );
    await expectError(await postRefresh(world, tokens[19]?.refresh ?? ''), 400, 'invalid_grant');
    expect((await postRefresh(world, tokens[20]?.refresh ?? '')).status).toBe(200);
    // Its access token runs out by itself.
    expect((await world.call('/me', { bearer: tokens[0]?.access ?? '' })).status).toBe(200);
    // Another session is not concerned, and neither is the cookie.
    expect((await postExchange(world, await world.login('alice'))).status).toBe(200);
    expect((await world.call('/me', { cookie })).status).toBe(200);
  });

  it('the least recently used is the one that was refreshed longest ago, and clients do not push out each other', async () => {
    const two = await open({ configure: (config) => ({ ...config, tokens: { ...config.tokens, familiesPerSession: 2 } }) });
    const cookie = await two.login('alice');
    const ios = await exchangeNative(two, cookie, { client_id: 'ios' });
    const first = await exchangeNative(two, cookie);
    const second = await exchangeNative(two, cookie);
    const used = await refreshNative(two, first.refresh);
    await exchangeNative(two, cookie);
    await expectError(await postRefresh(two, second.refresh), 400, 'invalid_grant');
    expect((await postRefresh(two, used.refresh)).status).toBe(200);
    expect((await postRefresh(two, ios.refresh, { client_id: 'ios' })).status).toBe(200);
  });
});

describe('limits', () => {
  it('a family is refreshed at most exchangePerSessionPerMinute times; a repeated answer counts nowhere', async () => {
    const few = await open({ configure: (config) => ({ ...config, limits: { exchangePerSessionPerMinute: 3 } }) });
    const { refresh } = await exchangeNative(few, await few.login('alice'));
    let newest = await refreshNative(few, refresh);
    for (let time = 0; time < 20; time++) expect((await refreshNative(few, refresh)).refresh).toBe(newest.refresh);
    newest = await refreshNative(few, newest.refresh);
    newest = await refreshNative(few, newest.refresh);
    await expectError(await postRefresh(few, newest.refresh), 429, 'too_many_requests');
    // Nothing was consumed.
    await few.legacy.redis.del(...(await few.legacy.redis.keys(`${few.prefix}limit:refresh*`)));
    expect((await postRefresh(few, newest.refresh)).status).toBe(200);
  });

  it('past failuresPerAddressPerMinute what fails is 429, through all instances together', async () => {
    const headers = from();
    expect(new Set(await fail(60, headers))).toEqual(new Set([400]));
    const response = await junk(world, headers);
    expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
    await expectError(response, 429, 'too_many_requests');
    expect((await junk(other, headers)).status).toBe(429);
    expect((await junk(world, from())).status).toBe(400);
  });

  it('an office behind one address goes on: what is good is never refused by address, nor counted there', async () => {
    const headers = from();
    await fail(70, headers);
    for (let person = 0; person < 70; person++) {
      const cookie = await world.login(`person-${person}`);
      const form = { grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange' };
      const response = await world.post('/auth/token', form, { cookie, headers: { ...headers, origin: 'https://app.example.com' } });
      expect(response.status).toBe(200);
    }
  });

  it('an IPv6 address counts by its /64, and one in IPv4 form as that', async () => {
    await fail(60, from('2001:db8:0:1::1'));
    expect((await junk(world, from('2001:db8:0:1:ffff::2'))).status).toBe(429);
    expect((await junk(world, from('2001:db8:0:2::1'))).status).toBe(400);
    await fail(60, from('::ffff:198.51.100.7'));
    expect((await junk(world, from('198.51.100.7'))).status).toBe(429);
  });

  it('behind proxies it is the last address that is no proxy of ours: whatever a client writes in front does not help it', async () => {
    for (let time = 0; time < 60; time++) await junk(world, from(`10.0.0.${time}, 198.51.100.9, 127.0.0.1`));
    expect((await junk(world, from('192.0.2.77, 198.51.100.9'))).status).toBe(429);
    expect((await junk(world, from('198.51.100.9, 192.0.2.78'))).status).toBe(400);
  });

  it('a header that anybody can set counts for nothing where the peer is no proxy of ours', async () => {
    const direct = await open({ configure: (config) => ({ ...config, http: { trustProxy: [] }, limits: { failuresPerAddressPerMinute: 5 } }) });
    for (let time = 0; time < 5; time++) expect((await junk(direct, from())).status).toBe(400);
    expect((await junk(direct, from())).status).toBe(429);
  });

  it('a refusal by stage is no failure', async () => {
    const closed = await open({ stage: 'session-only', configure: (config) => ({ ...config, limits: { failuresPerAddressPerMinute: 2 } }) });
    const cookie = await closed.login('alice');
    for (let time = 0; time < 6; time++) await expectError(await postExchange(closed, cookie), 400, 'unauthorized_client');
  });

  it('is never there at /auth/verify', async () => {
    const headers = from();
    await fail(70, headers);
    for (let time = 0; time < 70; time++) {
      expect((await world.call('/auth/verify', { bearer: 'a.b.c', headers })).status).toBe(401);
    }
    const cookie = await world.login('alice');
    expect((await world.call('/auth/verify', { cookie, headers })).status).toBe(200);
  });

  it('goes on in memory while Redis is away, where junk is still told from what cannot be known', async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    const cut = await open({ redisUrl: own.url, configure: (config) => ({ ...config, limits: { failuresPerAddressPerMinute: 3 } }) });
    await own.cut();
    for (let time = 0; time < 3; time++) expect((await junk(cut, from('192.0.2.1'))).status).toBe(400);
    expect((await junk(cut, from('192.0.2.1'))).status).toBe(429);
    await own.restore();
    await own.close();
  });
});
