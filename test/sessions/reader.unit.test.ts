import Keygrip from 'keygrip';
import { describe, expect, it } from 'vitest';
import { Secret } from '../../src/config/secret.js';
import { createCookieScheme } from '../../src/formats/cookie-scheme.js';
import { type CookiePairs, parseCookies } from '../../src/formats/cookies.js';
import { createKeyedFormat, SIGNED_ID } from '../../src/formats/keyed-format.js';
import { koaSessionShape } from '../../src/formats/koa-session.js';
import { toStored } from '../../src/formats/record-store.js';
import { sidOf } from '../../src/formats/sid.js';
import { readTime } from '../../src/formats/time.js';
import { createPathMapping } from '../../src/sessions/mapping.js';

const NOW = 1_800_000_000_000;

describe('cookies', () => {
  it('keeps every pair of a name, and reads quotes, spaces and odd pairs as browsers send them', () => {
    expect(parseCookies('a=1; a=2;b="x y" ; c; =d; e=f=g')).toEqual([
      ['a', '1'],
      ['a', '2'],
      ['b', 'x y'],
      ['e', 'f=g'],
    ]);
  });
});

const X = { name: 'x', secret: new Secret('x') };
const SECRETS = { verifying: [X], signing: X };

describe('koa-session records', () => {
  const format = createKeyedFormat({
    entry: 'web',
    scheme: createCookieScheme({ cookie: 'koa.sess', signedBy: 'keygrip' }, SECRETS),
    shape: koaSessionShape,
    keyOf: { before: '', behind: '' },
    idPattern: SIGNED_ID,
    reservedPrefix: 'crossfade:',
  });
  const parse = (record: unknown, ttlMs = -1) => format.parse({ text: JSON.stringify(record), ttlMs }, NOW);

  it('end at _expire or with their key, whichever is earlier', () => {
    expect(parse({ _expire: NOW + 1000 })).toMatchObject({ expiresAtMs: NOW + 1000 });
    expect(parse({ _expire: NOW + 1000 }, 500)).toMatchObject({ expiresAtMs: NOW + 500 });
    expect(parse({ _expire: NOW + 1000 }, 11_000)).toMatchObject({ expiresAtMs: NOW + 1000 });
    expect(parse({ _session: true }, 500)).toMatchObject({ expiresAtMs: NOW + 500 });
    expect(parse({ _session: true })).toEqual({ record: { _session: true } });
  });

  it('heed _expire only if it is a number, as koa-session does', () => {
    expect(parse({ _expire: String(NOW - 1), user: 1 }, 500)).toMatchObject({ expiresAtMs: NOW + 500 });
    expect(parse({ _expire: NOW - 1 }, 500)).toEqual({ rejected: 'expired' });
  });

  it('whose time is over between the two replies of Redis are gone, and do not count as ones that never end', () => {
    expect(toStored('text', [null, '{}'], [null, -2])).toBe('unknown-session');
    expect(toStored('text', [null, '{}'], [null, -1])).toEqual({ text: '{}', ttlMs: -1 });
    expect(toStored('text', [null, '{}'], [null, 0])).toEqual({ text: '{}', ttlMs: 0 });
  });

  it('the signature of a cookie that is known is not computed again; a forged one is never taken for known', () => {
    let computed = 0;
    const scheme = createCookieScheme({ cookie: 'koa.sess', signedBy: 'keygrip' }, SECRETS);
    const counting = {
      ...scheme,
      read: (cookies: CookiePairs) =>
        scheme.read(cookies).map((presented) => ({
          ...presented,
          signer() {
            computed += 1;
            return presented.signer();
          },
        })),
    };
    const counted = createKeyedFormat({
      entry: 'web',
      scheme: counting,
      shape: koaSessionShape,
      keyOf: { before: '', behind: '' },
      idPattern: SIGNED_ID,
      reservedPrefix: 'crossfade:',
    });
    const signer = new Keygrip(['x']);
    const signed = parseCookies(`koa.sess=id-1; koa.sess.sig=${signer.sign('koa.sess=id-1')}`);
    for (let n = 0; n < 3; n++) expect(counted.locate(signed)).toEqual([{ key: 'id-1', sid: sidOf('web', 'id-1'), signer: 'x' }]);
    expect(computed).toBe(1);
    const [sig] = [signer.sign('koa.sess=id-1')];
    for (const forged of [`koa.sess=id-2; koa.sess.sig=${sig}`, `koa.sess=id-1; koa.sess.sig=${'A'.repeat(27)}`, 'koa.sess=id-1'])
      for (let n = 0; n < 2; n++) expect(counted.locate(parseCookies(forged))).toEqual([{ rejected: 'bad-signature' }]);
    expect(computed).toBe(7);
  });

  it('of many cookies of one name the signed ones count, and at most 16 records are read', () => {
    const signer = new Keygrip(['x']);
    const junk = Array.from({ length: 30 }, (_, n) => `koa.sess=junk-${n}; koa.sess.sig=${'A'.repeat(27)}`);
    const signed = Array.from({ length: 18 }, (_, n) => `koa.sess=id-${n}; koa.sess.sig=${signer.sign(`koa.sess=id-${n}`)}`);
    expect(format.locate(parseCookies([...junk, ...signed.slice(0, 1)].join('; ')))).toEqual([
      { key: 'id-0', sid: sidOf('web', 'id-0'), signer: 'x' },
    ]);
    expect(format.locate(parseCookies([...junk, ...signed].join('; ')))).toHaveLength(16);
  });
});

describe('times', () => {
  it.each([
    ['2026-01-01T10:00:00Z', '2026-01-01T10:00:00.000Z'],
    ['2026-01-01 10:00:00', '2026-01-01T10:00:00.000Z'],
    ['2026-01-01 10:00:00+05', '2026-01-01T05:00:00.000Z'],
    ['2026-01-01 10:00:00-05', '2026-01-01T15:00:00.000Z'],
    ['2026-01-01 10:00:00.123456+02', '2026-01-01T08:00:00.123Z'],
    ['2026-01-01T10:00:00,5+0530', '2026-01-01T04:30:00.500Z'],
    ['2026-01-01T10:00+01:00', '2026-01-01T09:00:00.000Z'],
    ['2026-01-01', '2026-01-01T00:00:00.000Z'],
    ['1767261600', '2026-01-01T10:00:00.000Z'],
  ])('%s is %s', (text, iso) => {
    expect(new Date(readTime(text, 'first') ?? 0).toISOString()).toBe(iso);
  });

  it.each([
    '2026-01-01 (x) 5:00',
    '2026-01-01T10:00:00 GMT+5',
    '2026-13-01',
    '2026-01-01T25:00:00Z',
    '2026-01-01T10:00:00+99',
    'tomorrow',
    '',
    '-5',
    '1e9',
  ])('%j is no time', (text) => {
    expect(readTime(text, 'first')).toBeUndefined();
  });
});

describe('mapping by paths', () => {
  const map = createPathMapping({ subject: 'user.id', tenant: 'user.tenant', roles: 'user.roles', scope: 'user.scope', authTime: 'at' });

  it.each([
    [{ user: { id: 7 } }, { subject: '7', roles: [], scope: [] }],
    [
      { user: { id: 'a', tenant: 3, roles: 'team lead', scope: 'a b' }, at: 1_700_000_000 },
      { subject: 'a', tenant: '3', roles: ['team lead'], scope: ['a', 'b'], authTime: 1_700_000_000, authTimeMs: 1_700_000_000_999 },
    ],
    [{ user: { id: 'a', roles: [8, '9007199254740993'], scope: 7 } }, { subject: 'a', roles: ['8', '9007199254740993'], scope: ['7'] }],
    [
      { user: { id: 'a', roles: ['x', 'y'], scope: ['s'] }, at: 1_700_000_000_999 },
      { subject: 'a', roles: ['x', 'y'], scope: ['s'], authTime: 1_700_000_000, authTimeMs: 1_700_000_000_999 },
    ],
    [
      { user: { id: 'a', tenant: null, roles: null, scope: '' }, at: '2026-11-22T00:00:00Z' },
      { subject: 'a', roles: [], scope: [], authTime: 1_795_305_600, authTimeMs: 1_795_305_600_999 },
    ],
  ])('%j', async (record, identity) => {
    expect(await map(record)).toEqual({ identity });
  });

  it.each([
    [{}, 'nobody-logged-in', 'no user.id'],
    [{ user: null }, 'nobody-logged-in', 'no user.id'],
    [{ user: { id: '' } }, 'nobody-logged-in', 'no user.id'],
    [{ user: { id: 1.5 } }, 'unmappable-record', 'user.id is not a string with visible characters, or a whole number'],
    [{ user: { id: true } }, 'unmappable-record', 'user.id is not a string with visible characters, or a whole number'],
    [{ user: { id: '\ud800' } }, 'unmappable-record', 'user.id is not a string with visible characters, or a whole number'],
    [{ user: { id: 'a', tenant: {} } }, 'unmappable-record', 'user.tenant is not a string with visible characters, or a whole number'],
    [{ user: { id: 'a', roles: [true] } }, 'unmappable-record', 'user.roles is not a list of strings or whole numbers'],
    [{ user: { id: 'a', roles: [1.5] } }, 'unmappable-record', 'user.roles is not a list of strings or whole numbers'],
    [{ user: { id: 'a', scope: ['a b'] } }, 'unmappable-record', 'user.scope is not a scope (RFC 6749, section 3.3)'],
    [{ user: { id: 'a' }, at: 1e300 }, 'unmappable-record', 'at is not a time'],
    [{ user: { id: 'a' }, at: 'yesterday' }, 'unmappable-record', 'at is not a time'],
  ])('%j is refused', async (record, rejected, why) => {
    expect(await map(record)).toEqual({ rejected, why });
  });
});

it('a sid is 32 characters and differs by entry and by key', () => {
  expect(sidOf('web', 'a')).toMatch(/^[\w-]{32}$/);
  expect(new Set([sidOf('web', 'a'), sidOf('web', 'b'), sidOf('old', 'a')]).size).toBe(3);
});
