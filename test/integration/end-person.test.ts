import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { runCli } from '../support/cli.js';
import { expectError } from '../support/expect-error.js';
import type { Instance } from '../support/instance.js';
import { rawRequest } from '../support/raw-request.js';
import { ADMIN_TOKEN, ofFleetOf, type Service, startService } from '../support/serve.js';
import { exchangeNative, postExchange, postRefresh, postReturn, readTokens, type Tokens } from '../support/tokens.js';
import { remember } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, sharedRedisUrl, type World } from '../support/world.js';

const open = useWorlds();

let world: World;
let other: Instance;
let service: Service;
beforeAll(async () => {
  remember(ADMIN_TOKEN);
  // Records of its own: what others have written says nothing of these.
  const storePrefix = `ended-${randomUUID()}:`;
  world = await createWorld({
    legacy: { redisUrl: sharedRedisUrl(), secrets: ['a-secret-of-the-ends-5b7d20'], storePrefix },
    configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, keyPrefix: storePrefix })) }),
  });
  other = await world.another();
  service = await startService(world, ofFleetOf(world));
});
afterAll(async () => {
  await service.stop();
  await world.close();
});

/** Everybody here is somebody of their own: to end a person ends all of what other tests hold of them. */
let people = 0;
function somebody(): { name: string; subject: string } {
  people += 1;
  return { name: `person-${people}`, subject: `u-person-${people}` };
}

async function me(at: Instance, credential: { cookie?: string; bearer?: string }): Promise<number> {
  return (await at.call('/me', credential)).status;
}

/** Everything that was issued before is over, on both sides and every instance. */
async function expectEnded(cookie: string, tokens: Tokens): Promise<void> {
  for (const at of [world, other]) {
    await expect.poll(async () => await me(at, { bearer: tokens.access })).toBe(401);
    await expect.poll(async () => await me(at, { cookie })).toBe(401);
    await expectError(await postExchange(at, cookie), 400, 'invalid_request');
    await expectError(await postRefresh(at, tokens.refresh), 400, 'invalid_grant');
  }
}

describe('ending a person', () => {
  it('G8: everything issued before is refused on both sides, what is issued in the same second after is accepted', async () => {
    const { name, subject } = somebody();
    const cookie = await world.login(name);
    const tokens = await exchangeNative(world, cookie);
    // A login that the bridge never made tokens of.
    const unseen = await world.login(name);
    const sessions = await world.bridge.endSubject(subject, { why: 'password changed' });
    const again = await world.login(name);
    const fresh = await exchangeNative(other, again);
    expect(sessions).toBe(1);
    for (const at of [world, other]) {
      expect(await me(at, { cookie: again })).toBe(200);
      expect(await me(at, { bearer: fresh.access })).toBe(200);
    }
    expect((await postRefresh(world, fresh.refresh)).status).toBe(200);
    await expectEnded(cookie, tokens);
    for (const at of [world, other]) {
      await expect.poll(async () => await me(at, { cookie: unseen })).toBe(401);
      await expectError(await postExchange(at, unseen), 400, 'invalid_request');
    }
    expect(world.log.audits('person.ended').at(-1)).toMatchObject({ why: 'password changed', sessions: 1 });
  });

  it('B10, by person: ends all clients and families, and leaves the session that is excepted, and everybody else', async () => {
    const { name, subject } = somebody();
    const here = await world.login(name);
    const kept = await exchangeNative(world, here);
    const there = await world.login(name);
    const ended = await exchangeNative(world, there, { client_id: 'ios' });
    const bob = await exchangeNative(world, await world.login('bob'));
    expect(await world.bridge.endSubject(subject, { why: 'test', exceptSid: kept.sid })).toBe(1);
    for (const at of [world, other]) {
      await expect.poll(async () => await me(at, { bearer: ended.access })).toBe(401);
      expect(await me(at, { cookie: here })).toBe(200);
      expect(await me(at, { bearer: kept.access })).toBe(200);
      expect(await me(at, { bearer: bob.access })).toBe(200);
    }
    expect((await postRefresh(world, kept.refresh)).status).toBe(200);
    expect((await postExchange(world, here)).status).toBe(200);
  });

  it('B10, by person: also where Redis has lost which sessions the person has', async () => {
    const { name, subject } = somebody();
    const tokens = await exchangeNative(world, await world.login(name));
    const record = world.legacy.keys.at(-1) ?? '';
    await Promise.all((await world.legacy.redis.keys(`${world.prefix}subject:*`)).map(async (key) => await world.legacy.redis.del(key)));
    // This instance knows it all the same.
    expect(await world.bridge.endSubject(subject, { why: 'test' })).toBe(1);
    expect(await world.legacy.redis.exists(record)).toBe(0);
    for (const at of [world, other]) {
      const reached = at.reached();
      await expect.poll(async () => await me(at, { bearer: tokens.access })).toBe(401);
      expect(at.reached() - reached).toBeLessThanOrEqual(1);
    }
    await expectError(await postRefresh(other, tokens.refresh), 400, 'invalid_grant');
  });

  it('a session that was spared, and whose record is gone, is not closed by a way back that could not be opened', async () => {
    const rolling = await open({
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((one) => ({ ...one, rolling: true })) }),
    });
    const cookie = await rolling.login('alice');
    const key = rolling.legacy.keys.at(-1) ?? '';
    await rolling.legacy.redis.pexpire(key, 1500);
    const { refresh, sid } = await exchangeNative(rolling, cookie);
    await rolling.bridge.endSubject('u-alice', { why: 'password changed', exceptSid: sid });
    await rolling.legacy.redis.pexpire(key, 1);
    await expect.poll(async () => await rolling.legacy.redis.exists(key)).toBe(0);
    await expectError(await postReturn(rolling, refresh), 400, 'unauthorized_client');
    expect((await postRefresh(rolling, refresh)).status).toBe(200);
  });

  it('a second end that spares another session does not undo the first', async () => {
    const { name, subject } = somebody();
    const [one, two] = [await world.login(name), await world.login(name)];
    const { sid } = await exchangeNative(world, two);
    await world.bridge.endSubject(subject, { why: 'first' });
    await world.bridge.endSubject(subject, { why: 'second', exceptSid: sid });
    for (const cookie of [one, two]) expect(await me(world, { cookie })).toBe(401);
  });

  it('a login that is older than the end of its person is not issued for', async () => {
    const { subject } = somebody();
    await world.bridge.endSubject(subject, { why: 'ban' });
    const before = { subject, authTime: Date.now() / 1000 - 60 };
    await expect(world.bridge.issueFor(before, { client: 'android' })).rejects.toMatchObject({ code: 'invalid_request' });
    const { accessToken } = await world.bridge.issueFor({ subject }, { client: 'android' });
    expect(await me(world, { bearer: accessToken })).toBe(200);
  });

  it('holds for an instance that starts afterwards', async () => {
    const { name, subject } = somebody();
    const cookie = await world.login(name);
    const tokens = await exchangeNative(world, cookie);
    const unseen = await world.login(name);
    await world.bridge.endSubject(subject, { why: 'test' });
    const late = await world.another();
    expect(await me(late, { bearer: tokens.access })).toBe(401);
    expect(await me(late, { cookie: unseen })).toBe(401);
    // Also once the stream no longer says so: a login outlives it.
    await world.legacy.redis.del(`${world.prefix}events`);
    const later = await world.another();
    expect(await me(later, { cookie: unseen })).toBe(401);
    expect(await me(later, { cookie: await world.login(name) })).toBe(200);
  });

  it('by an exchange at the same moment, 50 times, leaves no live token of an older login', async () => {
    const survivors: Tokens[] = [];
    for (let round = 0; round < 50; round++) {
      const { name, subject } = somebody();
      const cookie = await world.login(name);
      const [response] = await Promise.all([postExchange(other, cookie), world.bridge.endSubject(subject, { why: 'race' })]);
      if (response.status === 200) {
        survivors.push(await readTokens(response));
      }
    }
    for (const { access, refresh } of survivors) {
      await expect.poll(async () => await me(other, { bearer: access })).toBe(401);
      await expectError(await postRefresh(world, refresh), 400, 'invalid_grant');
    }
  });

  it('with Redis away rejects, and does it all when it is tried again', async () => {
    const own = await startTcpProxy(sharedRedisUrl());
    const cut = await open({ redisUrl: own.url });
    const tokens = await exchangeNative(cut, await cut.login('alice'));
    await own.cut();
    await expect(cut.bridge.endSubject('u-alice', { why: 'test' })).rejects.toMatchObject({ code: 'temporarily_unavailable', status: 503 });
    await own.restore();
    await expect.poll(async () => await cut.bridge.endSubject('u-alice', { why: 'test' }).catch(() => 'away')).not.toBe('away');
    expect(await me(cut, { bearer: tokens.access })).toBe(401);
    await own.close();
  });
});

describe('bridge.onEnded', () => {
  it('calls back on every instance, whoever ended the session, until it is told to stop', async () => {
    const cookie = await world.login('alice');
    const { sid } = await exchangeNative(world, cookie);
    let [told, stopped] = [0, 0];
    const stop = other.bridge.onEnded(sid, () => {
      stopped += 1;
    });
    other.bridge.onEnded(sid, () => {
      told += 1;
    });
    stop();
    await world.legacy.logout(cookie);
    await expect.poll(() => told).toBe(1);
    expect(stopped).toBe(0);
  });
});

it('bridge.onEnded: a callback that throws takes nothing from the logout, here or elsewhere', async () => {
  const cookie = await world.login('alice');
  const { sid, access } = await exchangeNative(world, cookie);
  let told = 0;
  for (const at of [world, other]) {
    at.bridge.onEnded(sid, () => {
      throw new Error('a callback of the app');
    });
    at.bridge.onEnded(sid, async () => await Promise.reject(new Error('another one')));
    at.bridge.onEnded(sid, () => {
      told += 1;
    });
  }
  const response = await world.post('/auth/logout', {}, { bearer: access });
  expect(response.status).toBe(204);
  for (const at of [world, other]) await expect.poll(async () => await me(at, { bearer: access })).toBe(401);
  await expect.poll(() => told).toBe(2);
});

it('bridge.onEnded: is called for the end of a family, and not with the principal of another person', async () => {
  const { refresh, sid } = await exchangeNative(world, await world.login('alice'));
  const told: string[] = [];
  other.bridge.onEnded(sid, () => void told.push('by sid'));
  other.bridge.onEnded({ sid, subject: 'u-bob' }, () => void told.push('bob'));
  await world.post('/auth/revoke', { client_id: 'android', token: refresh });
  await expect.poll(() => told).toContain('by sid');
  await world.bridge.endSubject('u-alice', { why: 'test' });
  await expect.poll(() => told.filter((one) => one === 'by sid').length).toBe(2);
  expect(told.filter((one) => one === 'bob')).toHaveLength(1);
});

it('bridge.onEnded: given the principal, is called for a session without tokens when its person is ended', async () => {
  const { name, subject } = somebody();
  const cookie = await world.login(name);
  const { principal } = z
    .object({ principal: z.object({ sid: z.string(), subject: z.string() }) })
    .parse(await (await other.call('/me', { cookie })).json());
  let told = 0;
  other.bridge.onEnded(principal, () => {
    told += 1;
  });
  await world.bridge.endSubject(subject, { why: 'test' });
  await expect.poll(() => told).toBe(1);
});

describe('POST /api/subjects/end', () => {
  const end = async (body: unknown, headers: Record<string, string> = { authorization: `Bearer ${ADMIN_TOKEN}` }) =>
    await fetch(`${service.admin}/api/subjects/end`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    });

  it('ends a person on every instance', async () => {
    const { name, subject } = somebody();
    const cookie = await world.login(name);
    const tokens = await exchangeNative(world, cookie);
    const response = await end({ subject, why: 'ban' });
    expect([response.status, await response.json()]).toEqual([200, { sessions: 1 }]);
    await expectEnded(cookie, tokens);
  });

  it('needs the token of admin.tokenFile, and is nowhere on the public port', async () => {
    const { name, subject } = somebody();
    const tokens = await exchangeNative(world, await world.login(name));
    await expectError(await end({ subject, why: 'x' }, {}), 401, 'missing_credential');
    await expectError(await end({ subject, why: 'x' }, { authorization: 'Bearer wrong' }), 401, 'invalid_token');
    const onPublic = await fetch(`${service.url}/api/subjects/end`, { method: 'POST', headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });
    expect(onPublic.status).toBe(404);
    expect(await me(world, { bearer: tokens.access })).toBe(200);
  });

  it('answers no Host but its own', async () => {
    const { port } = new URL(service.admin);
    const ask = async (host: string) =>
      await rawRequest(`${service.admin}/api/subjects/end`, {
        method: 'POST',
        headers: { host, authorization: `Bearer ${ADMIN_TOKEN}`, 'content-type': 'application/json' },
        body: '{}',
      });
    expect((await ask(`evil.example:${port}`)).status).toBe(403);
    for (const host of [`localhost:${port}`, `127.0.0.1:${port}`, `[::1]:${port}`]) expect((await ask(host)).status).toBe(400);
  });

  it('refuses what it does not understand, and says which member', async () => {
    for (const body of [{}, { subject: 'u1' }, { subject: '', why: 'x' }, { subject: 'u1', why: 'x', tenant: 'acme' }, []]) {
      await expectError(await end(body), 400, 'invalid_request');
    }
    const get = await fetch(`${service.admin}/api/subjects/end`, { headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });
    expect([get.status, get.headers.get('allow')]).toEqual([405, 'POST']);
    const nothing = await fetch(`${service.admin}/api/nothing`, { headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });
    expect(nothing.status).toBe(404);
    await service.cli.logged('operator.refused');
  });
});

describe('crossfade end', () => {
  it('ends a person on every instance, by Redis alone, and says what it did', async () => {
    const { name, subject } = somebody();
    const cookie = await world.login(name);
    const tokens = await exchangeNative(world, cookie);
    const result = await runCli(['end', '--subject', subject, '--why', 'ban', '--config', service.configFile, '--json']);
    expect(result.status).toBe(0);
    expect(JSON.parse(result.stdout)).toMatchObject({ sessions: 1, missing: [], untimed: [] });
    expect(result.stderr).toContain('person.ended');
    await expectEnded(cookie, tokens);
  });

  it('without a reason, or without Redis, says so and does nothing', async () => {
    const noWhy = await runCli(['end', '--subject', 'u1', '--config', service.configFile]);
    expect([noWhy.status, noWhy.stderr]).toEqual([1, expect.stringContaining('--why')]);
    const noConfig = await runCli(['end', '--subject', 'u1', '--why', 'x', '--config', '/nowhere/crossfade.yaml']);
    expect([noConfig.status, noConfig.stderr]).toEqual([2, expect.stringContaining('cannot be read')]);
  });
});
