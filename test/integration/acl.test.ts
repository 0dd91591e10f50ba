import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { expect, it } from 'vitest';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { runCli } from '../support/cli.js';
import { startService } from '../support/serve.js';
import { exchangeNative, postAsBrowser, postExchange, postRefresh, refreshNative } from '../support/tokens.js';
import { createWorld } from '../support/world.js';

const ACL = readFileSync(new URL('../../docs/deploy/redis/users.acl', import.meta.url), 'utf8');

it('docs/deploy/redis/users.acl: with exactly these users everything works, Redis refuses nothing of it, and all else', async () => {
  const [own, records] = [await startRedis(), await startRedis()];
  const admins = [new Redis(own.url), new Redis(records.url)] as const;
  const lines = [...ACL.matchAll(/^user (bridge|records) (.*)$/gm)].map(([, name = '', rules = '']) => ({ name, rules }));
  expect(lines.map(({ name }) => name)).toEqual(['bridge', 'records']);
  for (const [at, { name, rules }] of lines.entries()) {
    const mine = rules.replace('PASSWORD', 'secret').replace('~crossfade:*', '~crossfade-test-*').split(' ');
    await admins[at]?.call('ACL', 'SETUSER', name, ...mine);
  }
  const as = (url: string, user: string) => url.replace('redis://', `redis://${user}:secret@`);
  const world = await createWorld({
    legacy: { redisUrl: records.url, storePrefix: 'sess:' },
    configure: (config) => ({
      ...config,
      redis: { ...config.redis, url: as(own.url, 'bridge') },
      sessions: (config.sessions ?? []).map((session) => ({ ...session, keyPrefix: 'sess:', redis: { url: as(records.url, 'records') } })),
    }),
  });
  try {
    const cookie = await world.login('alice');
    const { refresh } = await exchangeNative(world, cookie);
    const { access } = await refreshNative(world, refresh);
    expect(await world.metrics()).toContain('crossfade_tracking_up{connection="web"} 1');
    expect(await world.bridge.readiness()).toMatchObject({ ready: true, canIssue: true, parts: { redis: 'up', records: 'up' } });
    await world.legacy.logout(cookie);
    await expect.poll(async () => (await world.call('/me', { bearer: access })).status).toBe(401);
    const again = await world.login('alice');
    expect((await postExchange(world, again)).status).toBe(200);
    expect((await postAsBrowser(world, '/auth/logout', again)).status).toBe(204);
    expect((await postRefresh(world, refresh)).status).toBe(400);
    await world.bridge.endSubject('u-alice', { why: 'test' });
    const service = await startService(world);
    const checked = await runCli(['check', '--config', service.configFile]);
    await service.stop();
    expect(checked.stdout).not.toContain('Redis');
    for (const admin of admins) {
      const refused = await admin.call('ACL', 'LOG');
      expect(JSON.stringify(refused)).toBe('[]');
    }
    for (const [url, commands] of [
      [
        as(records.url, 'records'),
        [['get', 'cart:1'], ['keys', '*'], ['flushall'], ['scan', '0'], ['config', 'get', '*'], ['eval', 'return 1', '0']],
      ],
      [
        as(own.url, 'bridge'),
        [
          ['get', 'sess:1'],
          ['flushall'],
          ['config', 'get', '*'],
          ['acl', 'list'],
          ['scan', '0'],
          ['randomkey'],
          ['dbsize'],
          ['function', 'flush'],
          ['script', 'flush'],
        ],
      ],
    ] as const) {
      const client = new Redis(url);
      for (const [command, ...args] of commands) await expect(client.call(command, ...args), command).rejects.toThrow(/NOPERM/);
      client.disconnect();
    }
  } finally {
    await world.close();
    for (const admin of admins) admin.disconnect();
    await own.stop();
    await records.stop();
  }
}, 40_000);

it('docs/deploy/redis/users.acl is a file that Redis starts with', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-acl-'));
  const file = join(directory, 'users.acl');
  writeFileSync(file, ACL.replaceAll('>PASSWORD', '>secret').replace('user default off', 'user default on nopass ~* &* +@all'));
  const redis = await startRedis({ args: ['--aclfile', file] });
  const client = new Redis(redis.url);
  expect(await client.call('ACL', 'USERS')).toEqual(['bridge', 'default', 'records']);
  client.disconnect();
  await redis.stop();
  rmSync(directory, { recursive: true, force: true });
});
