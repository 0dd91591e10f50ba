import Keygrip from 'keygrip';
import { expect, it } from 'vitest';
import type { ConfigInput } from '../../src/config/config.js';
import { parseCookies } from '../../src/formats/cookies.js';
import { exchangeNative, postAsBrowser } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import type { World } from '../support/world.js';

const openWorld = useWorlds();

type SessionInput = NonNullable<ConfigInput['sessions']>[number];

function changeSession(change: (session: SessionInput) => readonly SessionInput[]) {
  return (config: ConfigInput): ConfigInput => ({ ...config, sessions: (config.sessions ?? []).flatMap((session) => [...change(session)]) });
}

async function metric(world: World, name: string): Promise<number> {
  const line = (await world.metrics()).split('\n').find((found) => found.startsWith(`${name} `));
  return Number(line?.slice(name.length + 1) ?? 0);
}

it('a record that ends with its key, earlier than it says, has expired: its tokens go on', async () => {
  const world = await openWorld({ configure: changeSession((session) => [{ ...session, rolling: true }]) });
  const cookie = await world.login('alice');
  const [key = ''] = world.legacy.keys;
  await world.legacy.redis.pexpire(key, 2500);
  const { access } = await exchangeNative(world, cookie);
  expect((await world.call('/me', { cookie })).status).toBe(200);
  await expect.poll(async () => await metric(world, 'crossfade_record_news_total{fate="expired"}')).toBe(1);
  expect(await metric(world, 'crossfade_record_news_total{fate="logged-out"}')).toBe(0);
  expect((await world.call('/me', { bearer: access })).status).toBe(200);
});

it('a new login under the id of one that has ended is not watched before tokens are made from it', async () => {
  const world = await openWorld({
    configure: (config) => ({
      ...changeSession((session) => [{ ...session, principal: { subject: 'user.id' } }])(config),
      tokens: { resurrectionSeconds: 0 },
    }),
  });
  const cookie = await world.login('alice');
  const [key = ''] = world.legacy.keys;
  const record = (await world.legacy.redis.get(key)) ?? '';
  await exchangeNative(world, cookie);
  expect(await metric(world, 'crossfade_watched_records')).toBe(1);
  expect((await postAsBrowser(world, '/auth/logout', cookie)).status).toBe(204);
  await world.legacy.redis.set(key, record, 'PX', 60_000);
  await expect.poll(async () => (await world.call('/me', { cookie })).status).toBe(200);
  for (let n = 0; n < 5; n++) expect((await world.call('/me', { cookie })).status).toBe(200);
  expect(await metric(world, 'crossfade_watched_records')).toBe(0);
  await exchangeNative(world, cookie);
  expect(await metric(world, 'crossfade_watched_records')).toBe(1);
});

it('two entries with one key are read each for itself, also where a read is shared by a request', async () => {
  const world = await openWorld({
    koaSession: 'ours',
    configure: changeSession((session) => [{ ...session, name: 'old', cookie: 'old.sess', principal: { subject: 'nobody.here' } }, session]),
  });
  const cookie = await world.login('alice');
  const id = parseCookies(cookie).find(([name]) => name === 'koa.sess')?.[1] ?? '';
  const pair = `old.sess=${id}`;
  const both = `${pair}; old.sess.sig=${new Keygrip([...world.secrets]).sign(pair)}; ${cookie}`;
  expect(await (await world.call('/', { cookie: both })).json()).toMatchObject({ principal: { subject: 'u-alice' } });
});

it('a header of nothing but semicolons is no work', async () => {
  const world = await openWorld();
  expect(parseCookies(`${';'.repeat(16_000)}a=1;b`)).toEqual([['a', '1']]);
  expect((await world.call('/', { cookie: ';'.repeat(8000) })).status).toBe(200);
});
