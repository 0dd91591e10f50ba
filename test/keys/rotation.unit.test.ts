import { describe, expect, it } from 'vitest';
import type { StoredKey } from '../../src/keys/jwks.js';
import { chooseActive, clockAgainstMost, type FleetMember, majorityAgainst, mergeKeys, uniteKeys, whatHolds } from '../../src/keys/rotation.js';

const NOW = 1_800_000_000_000;
const PUBLISH = 900_000;

function stored(kid: string, firstSeenAt: number, signedAt?: number, lastSeenAt = NOW): StoredKey {
  const jwk = { kty: 'OKP', alg: 'EdDSA', kid, use: 'sig', crv: 'Ed25519', x: '' } as const;
  return { jwk, firstSeenAt, lastSeenAt, ...(signedAt === undefined ? {} : { signedAt }) };
}

const at = (known: StoredKey[], others: Pick<FleetMember, 'host' | 'verifies'>[] = []) => ({ stored: known, others, nowMs: NOW, publishMs: PUBLISH });
const choose = (candidates: { kid: string; signsFrom?: number }[], known: StoredKey[], others: Pick<FleetMember, 'host' | 'verifies'>[] = []) =>
  chooseActive(candidates, at(known, others));

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

  it('a key that was planned for later and had to stand in gives way to the next one all the same', () => {
    const spare = { kid: 'spare', signsFrom: NOW + 1_000_000_000 };
    const urgent = { ...at([stored('spare', NOW - 1)]), isUrgent: true };
    expect(chooseActive([spare], urgent)).toBe('spare');
    const stoodIn = stored('spare', NOW - 10_000_000, NOW - 5_000_000);
    expect(choose([spare, { kid: 'next', signsFrom: NOW - 1_000_000 }], [stoodIn, stored('next', NOW - PUBLISH)])).toBe('next');
  });

  it('a tie goes by kid, so that all instances choose alike', () => {
    expect(choose([{ kid: 'a' }, { kid: 'b' }], [])).toBe(choose([{ kid: 'b' }, { kid: 'a' }], []));
  });
});

describe('Law 9: what a key waits for', () => {
  const old = stored('old', NOW - 10_000_000, NOW - 10_000_000);
  const fresh = stored('new', NOW - PUBLISH);

  it('every live instance that does not verify it, however long it has been published', () => {
    const others = [
      { host: 'a', verifies: ['old', 'new'] },
      { host: 'b', verifies: ['old'] },
    ];
    expect(whatHolds({ kid: 'new' }, at([old, fresh], others))).toEqual({ why: 'fleet', hosts: ['b'] });
    expect(choose([{ kid: 'old' }, { kid: 'new' }], [old, fresh], others)).toBe('old');
    expect(whatHolds({ kid: 'new' }, at([old, { ...fresh, forcedAt: NOW }], others)), 'unless an operator says otherwise').toBeUndefined();
  });

  it('its publication, which nobody can force', () => {
    const young = { ...stored('new', NOW - 1), forcedAt: NOW };
    expect(whatHolds({ kid: 'new' }, at([old, young]))).toEqual({ why: 'publishing', until: NOW - 1 + PUBLISH });
  });

  it('the others, also where it is the first of its fleet; but then no cache', () => {
    expect(choose([{ kid: 'new' }], [stored('new', NOW)], [{ host: 'b', verifies: [] }])).toBeUndefined();
    expect(choose([{ kid: 'new' }], [stored('new', NOW)], [{ host: 'b', verifies: ['new'] }])).toBe('new');
  });

  it('once no key is left that has signed, as after a revocation, the next one waits for no cache', () => {
    expect(choose([{ kid: 'new' }], [stored('new', NOW - 1)], [{ host: 'b', verifies: ['new'] }])).toBe('new');
  });
});

describe('an instance whose issuer is another', () => {
  const member = (instance: string, startedAt: number, issuer = 'https://a', audience = ['x']): FleetMember => ({
    instance,
    host: instance,
    startedAt,
    issuer,
    audience,
    verifies: [],
    accepts: [],
    clockOffMs: 0,
    hasKeys: true,
  });

  it('is against most of those that live', () => {
    const [one, two, odd] = [member('one', 1), member('two', 2), member('odd', 0, 'https://b')];
    expect(majorityAgainst(odd, [one, two])).toBe(one);
    expect(majorityAgainst(one, [two, odd])).toBeUndefined();
    // Audiences are judged one by one.
    expect(majorityAgainst(member('odd', 0, 'https://a', ['y']), [one, two])).toBeUndefined();
  });

  it('is judged by those that sign: many that only verify change nothing', () => {
    const verifiers = ['a', 'b'].map((name) => ({ ...member(name, 0), hasKeys: false }));
    expect(majorityAgainst(member('signer', 1, 'https://new'), verifiers)).toBeUndefined();
  });

  it('at a tie, against the one that lives longest', () => {
    const [old, young] = [member('old', 1), member('young', 2, 'https://b')];
    expect(majorityAgainst(young, [old])).toBe(old);
    expect(majorityAgainst(old, [young])).toBeUndefined();
    expect(majorityAgainst(old, [])).toBeUndefined();
  });
});

describe('a clock that is off', () => {
  const off = (...ms: number[]) => ms.map((clockOffMs) => ({ clockOffMs }));
  it('is measured against most of the fleet, Redis among them', () => {
    expect(clockAgainstMost(120_000, off(0, 10))).toBe(120_000);
    expect(clockAgainstMost(0, off(120_000, 10))).toBe(0);
    expect(clockAgainstMost(-100_000, off(-100_000, -100_000)), 'Redis alone is off').toBe(0);
    expect(clockAgainstMost(120_000, []), 'nobody refuses what it signs').toBe(0);
  });
});

describe('what the fleet knows of its keys', () => {
  it('keeps when a key was first seen and first signed, and renews when it was last seen', () => {
    const before = stored('a', NOW - 1000, NOW - 900, NOW - 800);
    expect(mergeKeys({ stored: [before], own: [before.jwk], nowMs: NOW, keepMs: 1 })).toEqual([{ ...before, lastSeenAt: NOW, keepMs: 1 }]);
  });

  it('keeps a key that nobody has any more for as long as its tokens may live', () => {
    const gone = stored('gone', NOW - 9000, NOW - 9000, NOW - 5000);
    const own = stored('own', NOW, NOW).jwk;
    const kids = (keepMs: number) => mergeKeys({ stored: [gone], own: [own], nowMs: NOW, keepMs }).map(({ jwk }) => jwk.kid);
    expect(kids(5001)).toEqual(['gone', 'own']);
    expect(kids(4999)).toEqual(['own']);
  });

  it('keeps it as long as the longest life that any instance gave: a shorter one is for what comes', () => {
    const gone = { ...stored('gone', NOW - 9000, NOW - 9000, NOW - 5000), keepMs: 6000 };
    expect(mergeKeys({ stored: [gone], own: [stored('own', NOW).jwk], nowMs: NOW, keepMs: 10 }).map(({ jwk }) => jwk.kid)).toEqual(['gone', 'own']);
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
