import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy } from '../../scripts/lib/tcp-proxy.js';
import type { ConfigInput } from '../../src/config/config.js';
import type { ForeignApp } from '../apps/app.js';
import { startExpressApp } from '../apps/express-app.js';
import { startPhpApp } from '../apps/php-app.js';
import { runCli } from '../support/cli.js';
import { expectError } from '../support/expect-error.js';
import { writeKey } from '../support/keys.js';
import { cookiesOf, exchangeNative, postExchange, postRefresh, postReturn } from '../support/tokens.js';
import { remember } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import type { World, WorldOptions } from '../support/world.js';

const open = useWorlds();
const secrets = [randomBytes(24).toString('base64url'), randomBytes(24).toString('base64url')];

let records: PrivateRedis;
let redis: Redis;
beforeAll(async () => {
  remember(...secrets);
  records = await startRedis();
  redis = new Redis(records.url);
}, 60_000);
afterAll(async () => {
  redis.disconnect();
  await records.stop();
});
beforeEach(async () => {
  await redis.flushdb();
});

type SessionEntry = ConfigInput['sessions'][number];

async function openWith(sessions: readonly SessionEntry[], more: Partial<ConfigInput> = {}, options: WorldOptions = {}): Promise<World> {
  return await open({
    ...options,
    configure: (config) => ({ ...config, ...more, sessions: sessions.map((session) => ({ redis: { url: records.url }, ...session })) }),
    prepare(directory) {
      writeKey(join(directory, 'keys'), 'first.pem');
      writeFileSync(join(directory, 'session-secrets'), `${secrets.join('\n')}\n`);
    },
  });
}

interface Seen {
  readonly principal: { readonly subject: string; readonly sid: string; readonly expiresAt: number } | null;
  readonly rejection: { readonly reason: string } | null;
}

async function whoIs(world: World, cookie: string): Promise<Seen> {
  return JSON.parse(await (await world.call('/', { cookie })).text());
}

const EXPRESS: SessionEntry = {
  name: 'express',
  format: 'express-session',
  secretsFile: 'session-secrets',
  principal: { subject: 'passport.user', authTime: 'profile.loggedInAt' },
};
const PHP: SessionEntry = { name: 'php', format: 'php', principal: { subject: 'user.id', authTime: 'since' } };

describe('express-session', () => {
  let app: ForeignApp;
  beforeEach(async () => {
    app = await startExpressApp(records.url, secrets, { cookie: { maxAge: 60_000 } });
  });
  afterEach(async () => await app.close());

  it('C7: the expires in the JSON lies in the past, the key lives: accepted, and ends with the key', async () => {
    const world = await openWith([EXPRESS]);
    const cookie = await app.login('alice');
    const [key = ''] = await redis.keys('sess:*');
    const record = JSON.parse((await redis.get(key)) ?? '{}');
    record.cookie.expires = new Date(Date.now() - 3_600_000).toISOString();
    await redis.set(key, JSON.stringify(record), 'EX', 500);
    const { principal } = await whoIs(world, cookie);
    expect(principal?.subject).toBe('u-alice');
    expect((principal?.expiresAt ?? 0) - Date.now() / 1000).toBeGreaterThan(400);
    expect(await app.greeting(cookie)).toBe('hello, u-alice');
  });

  it('C8: a cookie that was signed with the secret before the rotation is accepted', async () => {
    const world = await openWith([EXPRESS]);
    const old = await startExpressApp(records.url, secrets.slice(1));
    try {
      expect(await (await world.call('/', { cookie: await old.login('alice') })).json()).toMatchObject({ principal: { subject: 'u-alice' } });
    } finally {
      await old.close();
    }
  });

  it('X2, X15: no cookie that the app has not signed reaches the store, whatever it names', async () => {
    const store = await startTcpProxy(records.url);
    const world = await openWith([{ ...EXPRESS, redis: { url: store.url } }]);
    const good = await app.login('alice');
    await redis.set('sess:../x', '{"cookie":{},"passport":{"user":"u-alice"}}');
    const [, signature] = /\.([^.]+)$/.exec(good) ?? [];
    for (const value of [
      's%3A..%2Fx.c2ln',
      `s%3A${'a'.repeat(32)}.${signature}`,
      's%3A',
      's%3A.',
      '%',
      '%E0%A4%A',
      'plain',
      good.slice(12).replace('s%3A', ''),
      `${good.slice(12)}=`,
      `s%3A${'x'.repeat(5000)}.x`,
    ]) {
      const before = store.sentBytes;
      const { result, handlerReached } = await world.watching(() => world.call('/me', { cookie: `connect.sid=${value}` }));
      expect(result.status, value.slice(0, 40)).toBe(401);
      expect({ handlerReached, sent: store.sentBytes }).toEqual({ handlerReached: false, sent: before });
      await expectError(await postExchange(world, `connect.sid=${value}`), 400, 'invalid_request');
    }
    expect((await world.call('/me', { cookie: good })).status).toBe(200);
    await store.close();
  });
});

describe('PHP', () => {
  const start = async (options?: { notesTime?: boolean }) => await startPhpApp(records.port, 'php', options);

  it('G4: the same id is used by the next login of the same person: accepted with a newer authTime, and the old tokens stay dead', async () => {
    const app = await start();
    try {
      const world = await openWith([PHP]);
      const cookie = await app.login('alice');
      const { access } = await exchangeNative(world, cookie);
      await app.logout(cookie);
      await expect.poll(async () => (await world.call('/me', { bearer: access })).status).toBe(401);
      const again = await app.login('alice', cookie);
      expect(again).toBe(cookie);
      const next = await exchangeNative(world, again);
      expect((await world.call('/me', { bearer: next.access })).status).toBe(200);
      expect((await world.call('/me', { bearer: access })).status).toBe(401);
    } finally {
      await app.close();
    }
  });

  it('G4: without an authTime, a login under the same id is accepted once resurrectionSeconds are over', async () => {
    const app = await start({ notesTime: false });
    try {
      const world = await openWith([{ ...PHP, principal: { subject: 'user.id' } }], { tokens: { resurrectionSeconds: 2 } });
      const cookie = await app.login('alice');
      const { access } = await exchangeNative(world, cookie);
      await app.logout(cookie);
      await expect.poll(async () => (await world.call('/me', { bearer: access })).status).toBe(401);
      await app.login('alice', cookie);
      expect(await (await world.call('/', { cookie })).json()).toMatchObject({ rejection: { reason: 'logged-out' } });
      await expectError(await postExchange(world, cookie), 400, 'invalid_request');
      await expect.poll(async () => (await postExchange(world, cookie)).status, { timeout: 5000 }).toBe(200);
      expect((await world.call('/me', { bearer: access })).status).toBe(401);
    } finally {
      await app.close();
    }
  });

  it('G5: the same id is used by another person: Alice’s family ends, Bob is Bob', async () => {
    const app = await start();
    try {
      const world = await openWith([PHP]);
      const cookie = await app.login('alice');
      const { access } = await exchangeNative(world, cookie);
      await app.login('bob', cookie);
      await expect.poll(async () => (await world.call('/me', { bearer: access })).status).toBe(401);
      expect(await (await world.call('/', { cookie })).json()).toMatchObject({ principal: { subject: 'u-bob' } });
      expect((await exchangeNative(world, cookie)).access).not.toBe('');
    } finally {
      await app.close();
    }
  });

  it('a session that holds an object is not read: anonymous, with the reason, and 400 at the exchange', async () => {
    const app = await start();
    try {
      const world = await openWith([PHP]);
      const cookie = await app.login('alice');
      await fetch(`${app.url}/login`, { method: 'POST', headers: { cookie }, body: new URLSearchParams({ name: 'alice', with: 'object' }) });
      expect(await app.greeting(cookie)).toBe('hello, u-alice');
      expect(await (await world.call('/', { cookie })).json()).toMatchObject({ principal: null, rejection: { reason: 'unreadable-record' } });
      await expectError(await postExchange(world, cookie), 400, 'invalid_request');
    } finally {
      await app.close();
    }
  });

  it('two persons whose names are no UTF-8 are not one: neither of them is read', async () => {
    const world = await openWith([{ ...PHP, principal: { subject: 'login' } }]);
    for (const [id, byte] of [
      ['a'.repeat(26), 0xfc],
      ['b'.repeat(26), 0xf6],
    ] as const) {
      await redis.set(`PHPREDIS_SESSION:${id}`, Buffer.concat([Buffer.from('login|s:6:"m'), Buffer.from([byte]), Buffer.from('ller";')]));
      expect(await whoIs(world, `PHPSESSID=${id}`)).toMatchObject({ principal: null, rejection: { reason: 'unmappable-record' } });
    }
    await redis.set(`PHPREDIS_SESSION:${'c'.repeat(26)}`, Buffer.from('login|s:7:"müller";'));
    expect(await whoIs(world, `PHPSESSID=${'c'.repeat(26)}`)).toMatchObject({ principal: { subject: 'müller' } });
  });

  it('a list with gaps, as array_filter leaves it, is a list of roles', async () => {
    const world = await openWith([{ ...PHP, principal: { subject: 'id', roles: 'roles' } }]);
    const id = 'd'.repeat(26);
    await redis.set(`PHPREDIS_SESSION:${id}`, 'id|s:1:"u";roles|a:2:{i:0;s:5:"admin";i:2;s:1:"x";}');
    expect(await whoIs(world, `PHPSESSID=${id}`)).toMatchObject({ principal: { roles: ['admin', 'x'] } });
    await redis.set(`PHPREDIS_SESSION:${id}`, 'id|s:1:"u";roles|a:1:{s:5:"admin";b:1;}');
    expect(await whoIs(world, `PHPSESSID=${id}`)).toMatchObject({ rejection: { reason: 'unmappable-record' } });
  });

  it('F10: a record that is there and cannot be read is not brought back from its copy: whoever it is may have logged out', async () => {
    const world = await openWith([{ ...PHP, principal: { subject: 'login' } }]);
    const id = 'e'.repeat(26);
    await redis.set(`PHPREDIS_SESSION:${id}`, 'login|s:7:"u-alice";', 'EX', 600);
    const { refresh } = await exchangeNative(world, `PHPSESSID=${id}`);
    await redis.set(`PHPREDIS_SESSION:${id}`, 'flash|O:8:"stdClass":0:{}', 'EX', 600);
    const before = await redis.keys('*');
    await expectError(await postReturn(world, refresh), 503, 'temporarily_unavailable');
    expect(await redis.keys('*')).toEqual(before);
    // Nobody is locked out by it either.
    expect((await postRefresh(world, refresh)).status).toBe(200);
  });

  it('X15: an id that PHP would not make is refused unread', async () => {
    const world = await openWith([PHP]);
    await redis.set('PHPREDIS_SESSION:short', 'user|a:1:{s:2:"id";s:7:"u-alice";}');
    await redis.set('PHPREDIS_SESSION:aaaaaaaaaaaaaaaaaaaaaaaaaa_LOCK', 'user|a:1:{s:2:"id";s:7:"u-alice";}');
    for (const id of ['short', 'aaaaaaaaaaaaaaaaaaaaaaaaaa_LOCK', '..%2F..%2Fxxxxxxxxxxxxxxxxxxxxxx', `${'a'.repeat(30)}*`])
      expect(await (await world.call('/', { cookie: `PHPSESSID=${id}` })).json()).toMatchObject({ rejection: { reason: 'bad-id' } });
  });
});

describe('home-made sessions', () => {
  const entry: SessionEntry = {
    name: 'json',
    format: 'json',
    cookie: 'sid',
    signed: false,
    json: { key: 'app:{id}', expiresAt: 'until' },
    principal: { subject: 'user' },
  };
  const ID = 'k3J9x0aQ2vT7mB5w';

  it('end at the time that they say, also where their key has none; without that time they are none', async () => {
    const world = await openWith([entry]);
    const reasonOf = async (record: unknown) => {
      await redis.set(`app:${ID}`, JSON.stringify(record));
      return (await whoIs(world, `sid=${ID}`)).rejection?.reason;
    };
    const soon = Date.now() + 60_000;
    for (const until of [soon, Math.floor(soon / 1000), String(soon), new Date(soon).toISOString()])
      expect(await reasonOf({ user: 'u-alice', until }), String(until)).toBeUndefined();
    const ago = Date.now() - 60_000;
    for (const until of [ago, Math.floor(ago / 1000), new Date(ago).toISOString()])
      expect(await reasonOf({ user: 'u-alice', until })).toBe('expired');
    for (const until of [undefined, null, '', 'soon', {}]) expect(await reasonOf({ user: 'u-alice', until })).toBe('unreadable-record');
  });

  it('X14, X15: an unsigned cookie reaches no other key, type or kind of value', async () => {
    const world = await openWith([entry]);
    const record = JSON.stringify({ user: 'u-alice', until: Date.now() + 60_000 });
    await redis.set('app:cart:0123456789abcdef', record);
    await redis.set('app:short', record);
    await redis.lpush('app:aaaaaaaaaaaaaaaa', 'x');
    await redis.set('app:bbbbbbbbbbbbbbbb', '["user"]');
    await redis.set('app:cccccccccccccccc', '{"__proto__":{"user":"u-alice"},"until":99999999999}');
    for (const [id, reason] of [
      ['cart:0123456789abcdef', 'bad-id'],
      ['short', 'bad-id'],
      ['..%2F..%2Fxxxxxxxxxxxxxx', 'bad-id'],
      ['aaaaaaaaaaaaaaaa', 'unknown-session'],
      ['bbbbbbbbbbbbbbbb', 'unreadable-record'],
      ['cccccccccccccccc', 'unreadable-record'],
    ])
      expect(await (await world.call('/', { cookie: `sid=${id}` })).json(), id).toMatchObject({ principal: null, rejection: { reason } });
  });

  it('a hash is no string and a string no hash, and a field that is no JSON is text', async () => {
    const world = await openWith([{ ...entry, json: { key: 'app:{id}', storage: 'hash' }, principal: { subject: 'user', roles: 'roles' } }]);
    const seen = async () => await (await world.call('/', { cookie: `sid=${ID}` })).json();
    await redis.set(`app:${ID}`, '{"user":"u-alice"}');
    expect(await seen()).toMatchObject({ rejection: { reason: 'unreadable-record' } });
    await redis.del(`app:${ID}`);
    expect(await seen()).toMatchObject({ rejection: { reason: 'unknown-session' } });
    await redis.hset(`app:${ID}`, { user: '007', roles: '["a","b"]', note: 'null' });
    expect(await seen()).toMatchObject({ principal: { subject: '007', roles: ['a', 'b'] } });
    // What only looks like JSON is text, wherever it stands, and no logout.
    await redis.hset(`app:${ID}`, { roles: '["a"],"x":"b"', team: '[TEAM] Bob', name: '{x} Bob' });
    expect(await seen()).toMatchObject({ principal: { subject: '007', roles: ['["a"],"x":"b"'] } });
  });

  it('law 2: a time without a zone is UTC, whatever the zone of this machine is', async () => {
    const world = await openWith([entry]);
    const before = process.env['TZ'];
    process.env['TZ'] = 'America/New_York';
    try {
      const utc = (ms: number) => new Date(ms).toISOString().replace('Z', '');
      await redis.set(`app:${ID}`, JSON.stringify({ user: 'u-alice', until: utc(Date.now() - 60_000) }));
      expect((await whoIs(world, `sid=${ID}`)).rejection?.reason).toBe('expired');
      await redis.set(`app:${ID}`, JSON.stringify({ user: 'u-alice', until: utc(Date.now() + 60_000) }));
      expect((await whoIs(world, `sid=${ID}`)).principal?.subject).toBe('u-alice');
    } finally {
      if (before === undefined) delete process.env['TZ'];
      else process.env['TZ'] = before;
    }
  });

  it('law 2: a session whose end would not be read as it was written is not brought back', async () => {
    // What comes back ends with the family, before the session itself would have.
    const world = await openWith([{ ...entry, rolling: true }], { tokens: { refreshAbsoluteSeconds: 600 } });
    const later = Math.floor(Date.now() / 1000) + 3600;
    for (const text of [
      `{"until":1,"user":"u-alice","until":${later}}`,
      `{"user":"u-alice","a":${'['.repeat(20_000)}${']'.repeat(20_000)},"until":${later}}`,
    ]) {
      await redis.set(`app:${ID}`, text);
      const { refresh } = await exchangeNative(world, `sid=${ID}`);
      await redis.flushdb();
      await expectError(await postReturn(world, refresh), 400, 'unauthorized_client');
      expect(await redis.keys('*')).toEqual([]);
    }
  });

  it('law 2: a name that somebody has chosen makes nobody else of them on the way back', async () => {
    const json = { key: 'field:{id}', storage: 'hash', field: 'data', expiresAt: 'until' } as const;
    const world = await openWith([{ ...entry, json, rolling: true }]);
    for (const user of ['šdmin', 'xĢĬĢuserĢĺĢadmin', 'Zoë 😀']) {
      await redis.hset(`field:${ID}`, { data: JSON.stringify({ user, until: Date.now() + 3_600_000 }) });
      const { refresh } = await exchangeNative(world, `sid=${ID}`);
      await redis.flushdb();
      expect(await whoIs(world, cookiesOf(await postReturn(world, refresh)))).toMatchObject({ principal: { subject: user } });
      await redis.flushdb();
    }
  });

  it('law 5: what comes back is what was there, to the byte, but for the time', async () => {
    const world = await openWith([
      { ...entry, rolling: true },
      { ...entry, name: 'hash', cookie: 'hid', json: { key: 'hash:{id}', storage: 'hash', expiresAt: 'until' } },
      { ...entry, name: 'field', cookie: 'fid', json: { key: 'field:{id}', storage: 'hash', field: 'data', expiresAt: 'meta.until' } },
    ]);
    const until = new Date(Date.now() + 3_600_000).toISOString();
    const restored = async (cookie: string) => {
      const { refresh } = await exchangeNative(world, cookie);
      await redis.flushdb();
      expect((await postReturn(world, refresh)).status).toBe(204);
      const [key = ''] = await redis.keys('*');
      return key;
    };
    const text = (time: string) => `{ "user": "u-alice", "big": 9007199254740993, "float": 10.0,\n  "until": "${time}" }`;
    for (const spelled of [
      until,
      until.replace('Z', '+00:00'),
      until.replace('Z', '+00'),
      until.replace('Z', ''),
      until.replace('T', ' ').replace(/\.\d+Z/, ''),
    ]) {
      await redis.set(`app:${ID}`, text(spelled));
      const now = (await redis.get(await restored(`sid=${ID}`))) ?? '';
      const [, time = ''] = /"until": "([^"]*)"/.exec(now) ?? [];
      expect(now).toBe(text(time));
      expect(time.replace(/\d/g, '0')).toBe(spelled.replace(/\d/g, '0'));
    }
    await redis.flushdb();
    const raw = Buffer.from([0xff, 0xfe, 0x00, 0x80, 0x41]);
    await redis.hset(`hash:${ID}`, { user: 'u-alice', raw, name: 'Zoë', until });
    expect(await redis.hgetallBuffer(await restored(`hid=${ID}`))).toMatchObject({ raw, name: Buffer.from('Zoë'), user: Buffer.from('u-alice') });
    await redis.flushdb();
    const data = `{"user":"u-alice","note":"Zoë \\"x\\"","meta":{"until":${Math.floor(Date.parse(until) / 1000)},"n":1.50}}`;
    await redis.hset(`field:${ID}`, { data, raw });
    const now = await redis.hgetallBuffer(await restored(`fid=${ID}`));
    expect([now['raw'], String(now['data']).replace(/"until":\d{10}/, '')]).toEqual([raw, data.replace(/"until":\d{10}/, '')]);
    expect(String(now['data'])).toMatch(/"until":\d{10},/);
  });
});

describe('several formats at once', () => {
  it('are tried in order; the cookies of two persons are a conflict, those of one are not', async () => {
    const express = await startExpressApp(records.url, secrets);
    const php = await startPhpApp(records.port, 'php');
    try {
      const world = await openWith([EXPRESS, PHP]);
      const alice = await express.login('alice');
      const alsoAlice = await php.login('alice');
      const bob = await php.login('bob');
      const sidOf = async (cookie: string) => (await whoIs(world, cookie)).principal?.sid;
      for (const cookie of [alice, alsoAlice, bob]) expect((await world.call('/auth/verify', { cookie })).status).toBe(200);
      expect(await sidOf(`${alsoAlice}; ${alice}`)).toBe(await sidOf(alice));
      const { result, handlerReached } = await world.watching(() => world.call('/', { cookie: `${alice}; ${bob}` }));
      await expectError(result, 400, 'invalid_request');
      expect(handlerReached).toBe(false);
      expect((await world.call('/auth/verify', { cookie: `${alice}; ${bob}` })).status).toBe(401);
      await expectError(await postExchange(world, `${alice}; ${bob}`), 400, 'invalid_request');
      // A logout by the bridge ends what all cookies of the request name.
      const { access } = await exchangeNative(world, alice);
      expect(
        (await world.post('/auth/logout', {}, { cookie: `${alice}; ${alsoAlice}`, headers: { origin: 'https://app.example.com' } })).status,
      ).toBe(204);
      expect((await world.call('/me', { bearer: access })).status).toBe(401);
      expect([await express.greeting(alice), await php.greeting(alsoAlice)]).toEqual(['hello, stranger', 'hello, stranger']);
    } finally {
      await express.close();
      await php.close();
    }
  });
});

describe('crossfade check --sample', () => {
  it('names the formats that it finds, and what it does not read; warns where ids are used again', async () => {
    const express = await startExpressApp(records.url, secrets);
    const php = await startPhpApp(records.port, 'php');
    try {
      await express.login('alice');
      await express.login('bob');
      await php.login('alice');
      await redis.set('sess:django', Buffer.from([0x80, 0x04, 0x95, 0x00]));
      await redis.set('rails', Buffer.from([0x04, 0x08, 0x7b]));
      await redis.set('spring', Buffer.from([0xac, 0xed, 0x00, 0x05]));
      await redis.set('PHPREDIS_SESSION:with-object', 'cart|O:8:"stdClass":0:{}');
      await redis.set('config', '{"theme":"dark"}');
      await redis.set('empty', '');
      await redis.set('cache', 'a:1:{s:1:"x";i:1;}');
      await redis.hset('home', { passport: '{"user":"u-carol"}' });
      await redis.hset('spring:session:sessions:1', { 'sessionAttr:x': Buffer.from([0xac, 0xed, 0x00, 0x05]) });
      const sample = async (...args: string[]) => await runCli(['check', '--redis', records.url, ...args]);
      const passport = await sample('--subject', 'passport.user');
      expect(passport.stdout).toContain('2 express-session');
      for (const name of [
        'pickle (Python)',
        'Marshal (Ruby)',
        'Java serialization',
        'Java serialization in a hash',
        'php with objects',
        'json (storage: hash)',
      ])
        expect(passport.stdout).toContain(`1 ${name}`);
      expect(passport.stdout).toMatch(/3 of 4 map; 1 has no passport\.user/);
      const { stdout } = await sample('--subject', 'user.id', '--key-prefix', 'PHPREDIS_SESSION:');
      expect(stdout).toContain('1 php');
      expect(stdout).toContain('Warning: php: an id may serve the next login as well');
      const timed = await sample('--subject', 'user.id', '--key-prefix', 'PHPREDIS_SESSION:', '--auth-time', 'since', '--json');
      expect(JSON.parse(timed.stdout).reports[0]).toMatchObject({ formats: { php: 1 }, mapped: 1, warnings: [] });
    } finally {
      await express.close();
      await php.close();
    }
  });

  it('with a configuration: says of each entry what is there instead of the format that it names', async () => {
    const express = await startExpressApp(records.url, secrets);
    try {
      await express.login('alice');
      const world = await openWith([PHP, EXPRESS]);
      const file = join(world.directory, 'crossfade.yaml');
      writeFileSync(file, JSON.stringify({ ...world.config, sessions: world.config.sessions.map((entry) => ({ ...entry, keyPrefix: 'sess:' })) }));
      const { stdout, status } = await runCli(['check', '--sample', '10', '--config', file]);
      expect(stdout).toMatch(/php: 0 sessions among 1 key; nothing was written\.\n {2}Beside them, or instead: 1 express-session/);
      expect(stdout).toMatch(/express: 1 session among 1 key; nothing was written\.\n {2}1 express-session\.\n {2}1 of 1 map\./);
      expect(status).toBe(1);
    } finally {
      await express.close();
    }
  });
});
