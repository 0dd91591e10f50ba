import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type PackedRelease, unpackLastRelease } from '../support/last-release.js';
import { ofFleetOf, type Service, startService } from '../support/serve.js';
import { rememberRefresh, SESSION_TYPE, TOKEN_EXCHANGE } from '../support/tokens.js';
import { rememberToken } from '../support/transcript.js';
import { createWorld, type World } from '../support/world.js';

let release: PackedRelease;
let world: World;
let last: Service;
let next: Service;
beforeAll(async () => {
  release = unpackLastRelease();
  world = await createWorld({
    configure: (config) => ({ ...config, limits: { ...config.limits, exchangePerSessionPerMinute: 1_000_000 } }),
  });
  last = await startService(world, ofFleetOf(world), release.main);
  next = await startService(world, ofFleetOf(world));
});
afterAll(async () => {
  await next.stop();
  await last.stop();
  await world.close();
  release.remove();
});

const answerSchema = z.object({ access_token: z.string(), refresh_token: z.string() });

interface Given {
  readonly access: string;
  readonly refresh: string;
}

async function post(at: Service, form: Record<string, string>): Promise<Response> {
  return await fetch(`${at.url}/auth/token`, { method: 'POST', body: new URLSearchParams({ client_id: 'android', ...form }) });
}

async function read(answer: Response): Promise<Given> {
  expect(answer.status).toBe(200);
  const { access_token: access, refresh_token: refresh } = answerSchema.parse(await answer.json());
  rememberToken(access);
  rememberRefresh(refresh);
  return { access, refresh };
}

async function exchange(at: Service): Promise<Given> {
  const cookie = await world.login('alice');
  return await read(await post(at, { grant_type: TOKEN_EXCHANGE, subject_token: cookie, subject_token_type: SESSION_TYPE }));
}

const refresh = async (at: Service, { refresh: token }: Given) => await post(at, { grant_type: 'refresh_token', refresh_token: token });

describe('a family on a fleet of two releases', () => {
  it.each<[string, () => readonly [Service, Service]]>([
    ['the last release', () => [last, next]],
    ['this release', () => [next, last]],
  ])('that %s has opened refreshes on both, in turn', async (_, sides) => {
    const [opener, other] = sides();
    let tokens = await exchange(opener);
    for (const at of [other, opener, other, other, opener, opener, other]) tokens = await read(await refresh(at, tokens));
  });

  it.each<[string, () => readonly [Service, Service]]>([
    ['the last release and retried on this one', () => [last, next]],
    ['this release and retried on the last one', () => [next, last]],
  ])('that was refreshed on %s has one successor', async (_, sides) => {
    const [first, second] = sides();
    for (const opener of sides()) {
      const start = await exchange(opener);
      const one = await read(await refresh(first, start));
      const two = await read(await refresh(second, start));
      expect(two.refresh).toBe(one.refresh);
      await read(await refresh(second, one));
    }
  });

  it('that the last release has rotated since adopts no dead part: reuse ends it on both [W7]', async () => {
    let tokens = await exchange(next);
    for (let turn = 0; turn < 3; turn++) tokens = await read(await refresh(next, tokens));
    const dead = tokens;
    const used = await read(await refresh(last, tokens));
    const newest = await read(await refresh(last, used));
    const [, sid = '', family = ''] = dead.refresh.split('.');
    const key = `${world.prefix}{${sid}}:family:${family}`;
    const older: [string, string, number][] = JSON.parse((await world.legacy.redis.hget(key, 'older')) ?? '[]');
    await world.legacy.redis.hset(key, 'older', JSON.stringify(older.map(([hash, sealed, until]) => [hash, sealed, until === 0 ? 0 : 1])));
    expect((await refresh(next, dead)).status).toBe(400);
    for (const at of [next, last]) expect((await refresh(at, newest)).status).toBe(400);
    expect(await world.legacy.redis.hget(key, 'ended')).toBe('reused');
  });

  it('a part of the last release that is under way while this one adopts a newer part goes on with it', async () => {
    const given = await exchange(last);
    const [, sid = '', family = ''] = given.refresh.split('.');
    const key = `${world.prefix}{${sid}}:family:${family}`;
    const before = await world.legacy.redis.dumpBuffer(key);
    const second = await read(await refresh(next, await read(await refresh(next, given))));
    await world.legacy.redis.restore(key, 600_000, before, 'REPLACE');
    const adopted = await read(await refresh(next, second));
    expect((await read(await refresh(next, given))).refresh).toBe(adopted.refresh);
    await read(await refresh(next, adopted));
  });
});
