import { describe, expect, it } from 'vitest';
import { areTwoPersons, type Ended, endsFamily, endsLogin, isSameLogin, madeAt, refusesRecord, samePerson } from '../src/login.js';

const SUBJECTS = ['alice', 'bob'];
const TENANTS = [undefined, 'acme', 'initech'];
const TIMES = [undefined, 1000, 2000, 3000];
const SIDS = ['s1', 's2'];
const LOGINS = SUBJECTS.flatMap((subject) => TENANTS.flatMap((tenant) => TIMES.map((authTimeMs) => ({ subject, tenant, authTimeMs }))));
const pairs = LOGINS.flatMap((one) => LOGINS.map((other) => [one, other] as const));

describe('two logins', () => {
  it.each([
    // subject, tenant, time; twice: same person, same login
    [['alice', 'acme', 1000], ['alice', 'acme', 1000], true, true],
    [['alice', 'acme', 1000], ['alice', 'acme', 2000], true, true],
    [['alice', 'acme', undefined], ['alice', 'acme', 1000], true, true],
    [['alice', 'acme', 1000], ['alice', 'initech', 1000], false, true],
    [['alice', 'acme', 1000], ['alice', 'initech', 2000], false, false],
    [['alice', 'acme', undefined], ['alice', 'initech', undefined], false, false],
    [['alice', undefined, 1000], ['alice', 'acme', 1000], false, true],
    [['alice', undefined, undefined], ['alice', 'acme', undefined], false, false],
    [['alice', undefined, undefined], ['alice', undefined, undefined], true, true],
    [['alice', 'acme', 1000], ['bob', 'acme', 1000], false, false],
  ] as const)('%j and %j: of the same person %s, the same login %s', ([subject, tenant, authTimeMs], [subject2, tenant2, time2], person, login) => {
    const [one, other] = [
      { subject, tenant, authTimeMs },
      { subject: subject2, tenant: tenant2, authTimeMs: time2 },
    ];
    expect([samePerson(one, other), isSameLogin(one, other)]).toEqual([person, login]);
  });

  it.each([
    ['alice', 'acme', 's1', 'alice', 'acme', 's2', false],
    ['alice', 'acme', 's1', 'alice', 'initech', 's1', false],
    ['alice', 'acme', 's1', 'alice', 'initech', 's2', true],
    ['alice', undefined, 's1', 'alice', 'acme', 's2', true],
    ['alice', undefined, 's1', 'alice', 'acme', 's1', false],
    ['alice', 'acme', 's1', 'bob', 'acme', 's1', true],
  ] as const)('%s of %s in %s beside %s of %s in %s: two persons %s', (subject, tenant, sid, subject2, tenant2, sid2, two) => {
    expect(areTwoPersons({ subject, tenant, sid }, { subject: subject2, tenant: tenant2, sid: sid2 })).toBe(two);
  });

  it('in every case: symmetric, of one subject, and no rule looser than it may be', () => {
    for (const [one, other] of pairs) {
      const words = JSON.stringify([one, other]);
      for (const rule of [samePerson, isSameLogin]) {
        expect(rule(one, other), words).toBe(rule(other, one));
        expect(rule(one, one)).toBe(true);
        if (one.subject !== other.subject) expect(rule(one, other), words).toBe(false);
      }
      // Who is the same person by name and tenant may have logged in twice: that is judged by the tombstone, not here.
      if (samePerson(one, other)) expect(isSameLogin(one, other), words).toBe(true);
      if (isSameLogin(one, other) && !samePerson(one, other))
        expect([one.authTimeMs, one.tenant === other.tenant], words).toEqual([other.authTimeMs, false]);
      for (const [sid, sid2] of SIDS.flatMap((first) => SIDS.map((second) => [first, second] as const))) {
        const two = areTwoPersons({ ...one, sid }, { ...other, sid: sid2 });
        expect(two).toBe(areTwoPersons({ ...other, sid: sid2 }, { ...one, sid }));
        if (one.subject !== other.subject) expect(two, words).toBe(true);
        if (samePerson(one, other)) expect(two, words).toBe(false);
        if (one.subject === other.subject) expect(two, words).toBe(sid !== sid2 && one.tenant !== other.tenant);
      }
    }
  });
});

describe('a record that is found after a logout', () => {
  const ENDED = 10_000;
  it.each<[ended: Omit<Ended, 'endedAt'>, record: { subject: string; authTimeMs?: number }, nowMs: number, reusesIds: boolean, refused: boolean]>([
    [{ subject: 'alice', authTimeMs: 1000 }, { subject: 'alice', authTimeMs: 1000 }, 99_000, true, true],
    [{ subject: 'alice', authTimeMs: 1000 }, { subject: 'alice', authTimeMs: 999 }, 99_000, true, true],
    [{ subject: 'alice', authTimeMs: 1000 }, { subject: 'alice', authTimeMs: 1001 }, 10_001, true, false],
    [{ subject: 'alice', authTimeMs: 1000 }, { subject: 'bob', authTimeMs: 1000 }, 10_001, true, false],
    [{ subject: 'alice' }, { subject: 'alice', authTimeMs: 10_000 }, 99_000, true, true],
    [{ subject: 'alice' }, { subject: 'alice', authTimeMs: 10_001 }, 10_001, true, false],
    // Without a time: for as long as a slow request may write it again (5 s here).
    [{ subject: 'alice', authTimeMs: 1000 }, { subject: 'alice' }, 14_999, true, true],
    [{ subject: 'alice', authTimeMs: 1000 }, { subject: 'alice' }, 15_000, true, false],
    [{ subject: 'alice' }, { subject: 'alice' }, 14_999, false, true],
    [{ subject: 'alice' }, { subject: 'alice' }, 15_000, false, false],
    // A record that was never deleted, under an id that no other login gets.
    [{ subject: 'alice', unfinished: true }, { subject: 'alice' }, 99_000, false, true],
    [{ subject: 'alice', unfinished: true }, { subject: 'alice' }, 99_000, true, false],
    [{ subject: 'alice', unfinished: true }, { subject: 'alice', authTimeMs: 10_001 }, 99_000, false, false],
    [{ subject: 'alice', unfinished: true }, { subject: 'bob' }, 99_000, false, false],
    // Nobody knows whose it was.
    [{ subject: '', unfinished: true }, { subject: 'bob' }, 99_000, false, true],
    [{ subject: '', unfinished: true }, { subject: 'bob', authTimeMs: 9000 }, 99_000, true, true],
    [{ subject: '', unfinished: true }, { subject: 'bob', authTimeMs: 10_001 }, 99_000, true, false],
    // The tenant says nothing here.
    [{ subject: 'alice', tenant: 'acme', authTimeMs: 1000 }, { subject: 'alice', authTimeMs: 1000 }, 99_000, true, true],
  ])('ended %j; found %j at %i, ids used again %s: refused %s', (ended, record, nowMs, reusesIds, refused) => {
    expect(refusesRecord({ ...ended, endedAt: ENDED }, record, nowMs, 5, reusesIds)).toBe(refused);
  });

  it('in every case: a later login is let in, and time makes nothing stricter', () => {
    for (const [ended, record] of pairs) {
      for (const reusesIds of [true, false]) {
        for (const unfinished of [true, undefined]) {
          const at = (nowMs: number) => refusesRecord({ ...ended, endedAt: ENDED, unfinished }, record, nowMs, 5, reusesIds);
          const words = JSON.stringify([ended, record, reusesIds, unfinished]);
          if (record.subject !== ended.subject) expect(at(ENDED), words).toBe(false);
          if (!at(ENDED)) expect(at(ENDED + 99_000), words).toBe(false);
          if ((record.authTimeMs ?? 0) > (ended.authTimeMs ?? ENDED)) expect(at(ENDED), words).toBe(false);
        }
      }
    }
  });
});

describe('the end of a person', () => {
  it.each([
    [{ notBefore: 2000 }, 's1', 1000, true],
    [{ notBefore: 2000 }, 's1', 2000, true],
    [{ notBefore: 2000 }, 's1', 2001, false],
    // A login without a time is not judged by it.
    [{ notBefore: 2000 }, 's1', undefined, false],
    [{ notBefore: 2000, exceptSid: 's1' }, 's1', 1000, false],
    [{ notBefore: 2000, exceptSid: 's1' }, 's2', 1000, true],
    [{ notBefore: 2000, exceptSid: 's1' }, '', 1000, true],
  ] as const)('%j ends the login in %s at %s: %s', (end, sid, authTimeMs, ends) => {
    expect(endsLogin(end, sid, { subject: 'alice', ...(authTimeMs === undefined ? {} : { authTimeMs }) })).toBe(ends);
  });
});

describe('a family and a logout', () => {
  it.each([
    ['alice', '0000000009999AbCdEfGhIjKlMnOp', true],
    ['alice', '0000000010000AbCdEfGhIjKlMnOp', true],
    ['alice', '0000000010001AbCdEfGhIjKlMnOp', false],
    ['bob', '0000000009999AbCdEfGhIjKlMnOp', false],
    // Of a release that had no families: no one can tell.
    ['alice', '', true],
  ])('of %s, made as %j says: ended %s', (subject, family, ended) => {
    expect(endsFamily({ subject: 'alice', endedAt: 10_000 }, subject, family)).toBe(ended);
  });
});

describe('the time of a family', () => {
  it('is what its id starts with', () => {
    expect(madeAt('1800000000000AbCdEfGhIjKlMnOp')).toBe(1_800_000_000_000);
    expect(madeAt('')).toBeNaN();
  });
});
