import { describe, expect, it } from 'vitest';
import { pseudonymsOf } from '../../src/config/secret.js';
import { chooseWriting, FleetSecrets, nameOfSecret, type Opener } from '../../src/redis/fleet-keyring.js';
import { holdSecrets, makeSecret } from '../support/fleet-secrets.js';

const [first, second, third] = [makeSecret(), makeSecret(), makeSecret()];
const [one, two] = [nameOfSecret(first), nameOfSecret(second)];

describe('the secrets of a fleet', () => {
  it('open what any of them wrote, and say so but for the first', () => {
    const both = holdSecrets(second, first);
    const before = both.sign('context', 'text');
    expect(both.writes).toBe(one);
    expect(both.writeWith(two)).toBe(true);
    const [signed, sealed] = [both.sign('context', 'text'), both.seal('context', 'text')];
    expect([before, signed, sealed].map((text) => /^[0-9a-f]{8}:/.test(text))).toEqual([false, true, true]);
    expect([both.openSigned('context', before), both.openSigned('context', signed), both.unseal('context', sealed)]).toEqual([
      'text',
      'text',
      'text',
    ]);
    const old = holdSecrets(first);
    expect([old.openSigned('context', before), old.openSigned('context', signed), old.unseal('context', sealed)]).toEqual([
      'text',
      undefined,
      undefined,
    ]);
    expect([both.isOutdated(before), both.isOutdated(signed)]).toEqual([true, false]);
    expect(both.openSigned('another', signed)).toBeUndefined();
    expect(both.openSigned('context', `${one}:${before}`), 'a name that somebody put there').toBeUndefined();
  });

  it('name everybody alike from the first to the last of them', () => {
    const alone = holdSecrets(first);
    const both = holdSecrets(second, first);
    const after = new FleetSecrets({ secrets: [third, second], pseudonyms: pseudonymsOf(first) });
    for (const names of [both.names, after.names]) expect(names).toEqual(alone.names);
    expect(both.hasNamesOf({ secrets: [second, first], pseudonyms: pseudonymsOf(first) })).toBe(true);
    expect(both.hasNamesOf({ secrets: [second] })).toBe(false);
  });

  it('a denied one opens nothing, whatever the file says', () => {
    const both = holdSecrets(second, first);
    const before = both.seal('context', 'text');
    both.writeWith(two);
    expect(both.deny([{ name: one, isFirst: true, isRevoked: true }])).toBe(true);
    expect(both.deny([{ name: one, isFirst: true, isRevoked: true }])).toBe(false);
    both.takeFile({ secrets: [second, first], pseudonyms: pseudonymsOf(first) });
    expect([both.unseal('context', before), both.isDenied(before), both.opens]).toEqual([undefined, true, [two]]);
    expect(both.counterKeys).toHaveLength(1);
  });

  it('a denied one stays so where the file is put back to what it was, or has its lines in another order', () => {
    const denial = { name: one, isFirst: true, isRevoked: true, under: two };
    for (const secrets of [[first], [first, second], [second, first]]) {
      const both = holdSecrets(second, first);
      both.writeWith(two);
      const before = both.seal('context', 'text');
      both.deny([denial]);
      both.takeFile({ secrets, pseudonyms: pseudonymsOf(first) });
      expect([both.opens, both.writes, both.unseal('context', before), both.mayDeny(two, one), both.mayDeny(one, two)]).toEqual([
        [two],
        two,
        'text',
        true,
        false,
      ]);
    }
    // After a restart with the lines in another order the first of the fleet is the oldest all the same.
    const turned = new FleetSecrets({ secrets: [first, second], pseudonyms: pseudonymsOf(first) });
    turned.deny([denial]);
    expect([turned.opens, turned.inFile, turned.mayDeny(two, one)]).toEqual([[two], [two], true]);
  });

  it('one that the file has lost opens until the restart, and never writes again', () => {
    const both = holdSecrets(second, first);
    const before = both.sign('context', 'text');
    both.takeFile({ secrets: [second], pseudonyms: pseudonymsOf(first) });
    expect([both.openSigned('context', before), both.lost, both.inFile]).toEqual(['text', [one], [two]]);
  });
});

describe('which secret writes', () => {
  const others = (...all: Opener[]) => all;

  it.each<[string, Opener[], number, string]>([
    ['alone', [], 0, two],
    ['beside instances that have it', others({ opens: [two, one], writes: one }, { opens: [two, one], writes: one }), 0, two],
    ['beside one that lacks it', others({ opens: [two, one], writes: one }, { opens: [one], writes: one }), 0, one],
    ['beside a release that knows one only', others({ opens: [two, one], writes: one }, {}), 0, one],
    ['beside a stranger', others({ opens: [two, one], writes: one }), 1, one],
    ['beside a stranger, where the fleet has gone on', others({ opens: [two, one], writes: two }), 1, two],
  ])('%s', (_, all, strangers, expected) => {
    expect(chooseWriting(holdSecrets(second, first), all, strangers)).toBe(expected);
  });

  it('goes back to the one that a late starter has', () => {
    const both = holdSecrets(second, first);
    both.writeWith(two);
    expect(chooseWriting(both, [{ opens: [one], writes: one }], 0)).toBe(one);
  });
});

it('one that an older secret has denied before it was here is not denied once it is; one that a newer one has denied stays so', () => {
  const [newest, old] = [makeSecret(), makeSecret()];
  const late = new FleetSecrets({ secrets: [old], pseudonyms: pseudonymsOf(old) });
  late.deny([{ name: nameOfSecret(newest), isFirst: false, isRevoked: true, under: nameOfSecret(old) }]);
  late.takeFile({ secrets: [newest, old], pseudonyms: pseudonymsOf(old) });
  expect(late.opens).toEqual([nameOfSecret(newest), nameOfSecret(old)]);

  const other = new FleetSecrets({ secrets: [newest], pseudonyms: pseudonymsOf(old) });
  other.deny([{ name: nameOfSecret(old), isFirst: true, isRevoked: true, under: nameOfSecret(newest) }]);
  other.takeFile({ secrets: [newest, old], pseudonyms: pseudonymsOf(old) });
  expect(other.opens).toEqual([nameOfSecret(newest)]);
});
