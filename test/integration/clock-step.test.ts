import { performance } from 'node:perf_hooks';
import { decodeJwt } from 'jose';
import { expect, it, onTestFinished } from 'vitest';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { exchangeNative, postExchange, postRefresh, readTokens } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import { sharedRedisUrl } from '../support/world.js';

const open = useWorlds();

/** Somebody sets the clock of the machine on which one instance runs. */
it.each([
  ['an hour ahead', 3_600_000],
  ['an hour back', -3_600_000],
])('Law 1: the clock of one instance is set %s: nobody is refused, nothing wrong is signed, and no cohort is held', async (_what, step) => {
  let offset = 0;
  const clock = { now: () => Date.now() + offset, steady: () => performance.now() };
  const world = await open();
  const stepped = await world.another({ bridge: { clock } });
  const people = await Promise.all(
    ['alice', 'bob', 'carol'].map(async (name) => {
      const cookie = await world.login(name);
      return { cookie, ...(await exchangeNative(stepped, cookie)) };
    }),
  );
  offset = step;
  const seen = new Set<number>();
  for (let round = 0; round < 8; round++) {
    for (const person of people) {
      seen.add((await stepped.call('/me', { cookie: person.cookie })).status);
      seen.add((await stepped.call('/me', { bearer: person.access })).status);
      const exchanged = await postExchange(stepped, person.cookie);
      seen.add(exchanged.status);
      if (exchanged.status !== 200) continue;
      const { access } = await readTokens(exchanged);
      expect(Math.abs((decodeJwt(access).iat ?? 0) * 1000 - Date.now())).toBeLessThan(60_000);
      expect((await world.call('/me', { bearer: access })).status).toBe(200);
    }
  }
  expect([...seen].filter((status) => status !== 200 && status !== 503)).toEqual([]);
  for (const person of people) await expect.poll(async () => (await stepped.call('/me', { bearer: person.access })).status).toBe(200);
  for (const person of people) expect((await postRefresh(stepped, person.refresh)).status).toBe(200);
  expect([...world.log.audits('stage.clamped'), ...stepped.log.audits('stage.clamped'), ...stepped.log.audits('guardrail.tripped')]).toEqual([]);
});

it('while the fleet cannot be asked, what only one of the clocks calls good is 503, never 401, and nothing is signed', async () => {
  let offset = 0;
  const clock = { now: () => Date.now() + offset, steady: () => performance.now() };
  const world = await open({ bridge: { clock } });
  const { access, refresh } = await exchangeNative(world, await world.login('alice'));
  const cookie = await world.login('bob');
  await world.bridge.reload();
  expect((await world.call('/me', { bearer: access })).status).toBe(200);
  const proxy = await startTcpProxy(sharedRedisUrl());
  const alone = await world.another({
    bridge: { clock },
    configure: (config) => ({ ...config, redis: { ...config.redis, url: proxy.url } }),
  });
  expect((await alone.call('/me', { bearer: access })).status).toBe(200);
  proxy.silence();
  offset = 3_600_000;
  const answer = await alone.call('/me', { bearer: access });
  expect(answer.status).toBe(503);
  expect((await alone.call('/me', { cookie })).status).not.toBe(401);
  const before = alone.log.audits('exchange.granted').length;
  expect((await postExchange(alone, cookie)).status).toBe(503);
  expect((await postRefresh(alone, refresh)).status).toBe(503);
  expect(alone.log.audits('exchange.granted')).toHaveLength(before);
  offset = 0;
  await proxy.restore();
  await expect.poll(async () => (await alone.call('/me', { bearer: access })).status, { timeout: 15_000 }).toBe(200);
  await alone.close();
  await proxy.close();
});

it('after 15 s in which nobody could be asked the clock of the machine counts, and the instance is degraded', async () => {
  const hands = { wall: 0, steady: 0 };
  const clock = { now: () => Date.now() + hands.wall, steady: () => performance.now() + hands.steady };
  const proxy = await startTcpProxy(sharedRedisUrl());
  onTestFinished(async () => await proxy.close());
  const world = await open({
    bridge: { clock },
    configure: (config) => ({ ...config, redis: { ...config.redis, url: proxy.url } }),
  });
  const { access } = await exchangeNative(world, await world.login('alice'));
  expect(world.bridge.signing().state).toBe('healthy');
  proxy.silence();
  hands.wall += 3_600_000;
  expect((await world.call('/me', { bearer: access })).status).toBe(503);
  hands.wall += 15_100;
  hands.steady += 15_100;
  // By that clock the token has run out.
  await expect.poll(async () => (await world.call('/me', { bearer: access })).status).toBe(401);
  await world.bridge.reloadKeys();
  expect(world.bridge.signing()).toMatchObject({ state: 'degraded', problems: [expect.stringContaining('clock')] });
  expect((await world.bridge.readiness()).canIssue).toBe(false);
  // Redis is back, and is asked before anything is signed by that clock.
  await proxy.restore();
  const cookie = await world.login('bob');
  let exchanged = await postExchange(world, cookie);
  while (exchanged.status === 503) exchanged = await postExchange(world, cookie);
  const { access: right } = await readTokens(exchanged);
  expect(Math.abs((decodeJwt(right).iat ?? 0) * 1000 - Date.now())).toBeLessThan(60_000);
  expect((await world.bridge.readiness()).canIssue).toBe(true);
});
