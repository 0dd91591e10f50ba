import { describe, expect, it } from 'vitest';
import type { StoredKey } from '../../src/keys/jwks.js';
import { chooseActive, mergeKeys, uniteKeys } from '../../src/keys/rotation.js';

const NOW = 1_800_000_000_000;
const PUBLISH = 900_000;

function stored(kid: string, firstSeenAt: number, signedAt?: number, lastSeenAt = NOW): StoredKey {
  const jwk = { kty: 'OKP', alg: 'EdDSA', kid, use: 'sig', crv: 'Ed25519', x: '' } as const;
  return { jwk, firstSeenAt, lastSeenAt, ...(signedAt === undefined ? {} : { signedAt }) };
}

const choose = (candidates: { kid: string; signsFrom?: number }[], known: StoredKey[]) =>
  chooseActive({ candidates, stored: known, nowMs: NOW, publishMs: PUBLISH });

describe('which key signs', () => {
  it('the first key of a fleet in which none has signed does so at once', () => {
    expect(choose([{ kid: 'a' }], [])).toBe('a');
  });

  it('a new key waits until it has been published long enough; the old one goes on', () => {
    const old = stored('old', NOW - 10_000_000, NOW - 10_000_000);
    expect(choose([{ kid: 'old' }, { kid: 'new' }], [old, stored('new', NOW - PUBLISH + 1)])).toBe('old');
    expect(choose([{ kid: 'old' }, { kid: 'new' }], [old, stored('new', NOW - PUBLISH)])).toBe('new');
  });

  it('a new key alone waits too: others do not verify with it yet', () => {
    expect(choose([{ kid: 'new' }], [stored('old', NOW - 10_000_000, NOW - 10_000_000)])).toBeUndefined();
  });

  it('a key that has signed never waits again', () => {
    expect(choose([{ kid: 'a' }], [stored('a', NOW - 1, NOW - 1)])).toBe('a');
    expect(choose([{ kid: 'a' }], [stored('a', NOW + 3_600_000, NOW + 3_600_000)]), 'nor where a clock was ahead').toBe('a');
  });

  it('the time in the name decides over the time of the first sight, and is waited for', () => {
    const a = stored('a', NOW - 5_000_000);
    const b = stored('b', NOW - 4_000_000, NOW - 4_000_000);
    expect(choose([{ kid: 'a', signsFrom: NOW - 1 }, { kid: 'b' }], [a, b])).toBe('a');
    expect(choose([{ kid: 'a', signsFrom: NOW + 1 }, { kid: 'b' }], [a, b])).toBe('b');
  });

  it('a tie goes by kid, so that all instances choose alike', () => {
    expect(choose([{ kid: 'a' }, { kid: 'b' }], [])).toBe(choose([{ kid: 'b' }, { kid: 'a' }], []));
  });
});

describe('what the fleet knows of its keys', () => {
  it('keeps when a key was first seen and first signed, and renews when it was last seen', () => {
    const before = stored('a', NOW - 1000, NOW - 900, NOW - 800);
    expect(mergeKeys({ stored: [before], own: [before.jwk], nowMs: NOW, keepMs: 1 })).toEqual([{ ...before, lastSeenAt: NOW }]);
  });

  it('keeps a key that nobody has any more for as long as its tokens may live', () => {
    const gone = stored('gone', NOW - 9000, NOW - 9000, NOW - 5000);
    const own = stored('own', NOW, NOW).jwk;
    const kids = (keepMs: number) => mergeKeys({ stored: [gone], own: [own], nowMs: NOW, keepMs }).map(({ jwk }) => jwk.kid);
    expect(kids(5001)).toEqual(['gone', 'own']);
    expect(kids(4999)).toEqual(['own']);
  });

  it('of two accounts nothing is lost: the earliest sight, the earliest signature, the latest sign of life', () => {
    const one = [stored('a', 5, 7, 9), stored('b', 1)];
    const other = [stored('a', 4, undefined, 10), stored('c', 2, 3)];
    expect(uniteKeys(one, other)).toEqual([stored('a', 4, 7, 10), stored('b', 1), stored('c', 2, 3)]);
  });

  it('an instance without keys of its own drops nothing', () => {
    const gone = stored('gone', 0, 0, 0);
    expect(mergeKeys({ stored: [gone], own: [], nowMs: NOW, keepMs: 1 })).toEqual([gone]);
  });
});
