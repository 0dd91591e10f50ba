import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { resolveConfig } from '../../src/config/load.js';
import { describeDrift, describeGroup, digestSettings, findDrift } from '../../src/fleet/drift.js';
import { describeSkipped } from '../../src/fleet/stored-forms.js';
import { makeSecret } from '../support/fleet-secrets.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'crossfade-drift-'));
  for (const [name, text] of Object.entries({
    fleet: makeSecret().reveal(),
    cookies: 'one-secret-of-the-app\n',
    others: 'another-secret\n',
    same: '\none-secret-of-the-app\n\n',
    password: 'x',
    token: 'a-token-of-twenty-characters',
  }))
    writeFileSync(join(directory, name), text);
});
afterEach(() => rmSync(directory, { recursive: true }));

const BASE = {
  issuer: 'https://app.example.com',
  audience: ['https://api.example.com'],
  fleetSecretFile: 'fleet',
  redis: { url: 'redis://:secret@127.0.0.1:6379/0' },
  sessions: [{ name: 'web', format: 'koa-session', secretsFile: 'cookies', principal: { subject: 'user.id' } }],
};

function digestsOf(config: object): Record<string, string> {
  return digestSettings(Buffer.from('key'), resolveConfig(config, { baseDir: directory }).readWritten());
}

const driftOf = (...configs: object[]) =>
  describeDrift(findDrift(configs.map((config, at) => ({ name: `web-${at + 1}`, settings: digestsOf(config) }))));

describe('drift of the configuration', () => {
  const [session] = BASE.sessions;

  it.each<[string, object, string[]]>([
    ['nothing', {}, []],
    ['a secret file with the same content', { sessions: [{ ...session, secretsFile: 'same' }] }, []],
    ['another cookie secret', { sessions: [{ ...session, secretsFile: 'others' }] }, ['sessions[0].secretsFile differs: web-1 / web-2']],
    ['a port', { listen: { port: 1 }, admin: { port: 2, tokenFile: 'token' } }, []],
    [
      'a password of Redis',
      { redis: { url: 'redis://127.0.0.1:6379/0', username: 'app', passwordFile: 'password' } },
      ['redis.username differs: web-1 / web-2'],
    ],
    ['another Redis', { redis: { url: 'redis://127.0.0.1:6379/1' } }, ['redis.url differs: web-1 / web-2']],
    ['a setting that is written', { tokens: { accessTtlSeconds: 300 } }, ['tokens.accessTtlSeconds differs: web-1 / web-2']],
    ['a client', { clients: [{ id: 'web', type: 'public' }] }, ['clients[0].id differs: web-1 / web-2', 'clients[0].type differs: web-1 / web-2']],
    ['the order of members', { sessions: [{ principal: { subject: 'user.id' }, secretsFile: 'cookies', format: 'koa-session', name: 'web' }] }, []],
  ])('%s', (_, change, expected) => {
    expect(driftOf(BASE, { ...BASE, ...change })).toEqual(expected);
  });

  it('tells a large configuration by entries', () => {
    const clients = Array.from({ length: 150 }, (_, n) => ({ id: `c${n}`, type: 'public', exchanges: true }));
    const changed = clients.map((client, n) => (n === 7 ? { ...client, exchanges: false } : client));
    expect(driftOf({ ...BASE, clients }, { ...BASE, clients: changed })).toEqual(['clients[7] differs: web-1 / web-2']);
  });

  it('holds no value and no secret', () => {
    const text = JSON.stringify(digestsOf(BASE));
    for (const value of ['one-secret', 'secret@', 'user.id', 'app.example']) expect(text).not.toContain(value);
  });

  it('leaves out an instance of a release that does not say', () => {
    expect(
      findDrift([
        { name: 'a', settings: { x: '1' } },
        { name: 'b', settings: undefined },
      ]),
    ).toEqual([]);
  });

  it('names groups in a row by the first and the last', () => {
    const names = Array.from({ length: 10 }, (_, n) => ({ name: `web-${n + 1}`, settings: { 'sessions[0].secretsFile': n === 9 ? 'b' : 'a' } }));
    expect(describeDrift(findDrift(names))).toEqual(['sessions[0].secretsFile differs: web-1 to web-9 / web-10']);
    expect(describeGroup(['a-1', 'a-2', 'b', 'c-9', 'c-10', 'c-11'])).toBe('a-1, a-2, b, c-9 to c-11');
  });
});

describe('a release that is skipped', () => {
  const other = (reads: number | undefined, startedAt = 1) => ({ host: 'web-1', version: '9', startedAt, reads });

  it.each<[string, ReturnType<typeof other>, RegExp | undefined]>([
    ['the same', other(2), undefined],
    ['the last one', other(undefined), undefined],
    ['the next one', other(3), undefined],
    ['the one after the next', other(4), /writes what this release does not read/],
    ['the one after the next, which has started since', other(4, 3), undefined],
  ])('beside %s', (_, one, expected) => {
    const found = describeSkipped([one], 2, { writes: 1, reads: 2 });
    if (expected) expect(found.join()).toMatch(expected);
    else expect(found).toEqual([]);
  });

  it('beside one that does not read what this one writes', () => {
    expect(describeSkipped([other(undefined)], 2, { writes: 2, reads: 3 }).join()).toMatch(/writes what web-1 \(9\) does not read/);
  });
});
