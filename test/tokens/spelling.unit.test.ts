import { describe, expect, it } from 'vitest';
import { decodeOneSpelling } from '../../src/tokens/spelling.js';

const b64 = (text: string | Buffer) => Buffer.from(text).toString('base64url');
const token = (payload: string | Buffer, header = '{"alg":"ES256"}') => `${b64(header)}.${b64(payload)}.AAAA`;

describe('one token, one spelling', () => {
  it.each([
    ['compact JSON', '{"iss":"a","n":{"x":1,"y":[{"x":1},{"x":2}]}}'],
    ['JSON with white space', '{ "iss" : "a",\n "x": [1, 2] }'],
    ['the same name in different objects', '{"x":{"x":{"x":1}},"y":{"x":2}, "z":"x"}'],
    ['a string that looks like a member', '{"a":"{\\"a\\":1", "b":"a\\":"}'],
    ['numbers in another spelling', '{"exp":1.0e3}'],
  ])('reads %s', (_what, payload) => {
    expect(decodeOneSpelling(token(payload))?.payload).toEqual(JSON.parse(payload));
  });

  it.each([
    ['two parts', 'e30.e30'],
    ['four parts', 'e30.e30.AAAA.AAAA'],
    ['padding', `${token('{}')}=`],
    ['spare bits', 'e31.e30.AAAA'],
    ['base64 letters', 'e30.e30.AA+A'],
    ['white space', 'e30. e30.AAAA'],
    ['an empty part', '.e30.AAAA'],
    ['no object', token('[]')],
    ['null', token('null')],
    ['no JSON', token('{')],
    ['a BOM', token('\ufeff{}')],
    ['bad UTF-8', token(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]))],
    ['duplicate members', token('{"iss":"a","iss":"b"}')],
    ['duplicate members, one of them escaped', token(String.raw`{"iss":"a","\u0069ss":"b"}`)],
    ['duplicate members further in', token('{"a":[{"b":1, "b":1}]}')],
    ['duplicate members in the header', token('{}', '{"alg":"ES256","alg":"none"}')],
  ])('refuses %s', (_what, text) => {
    expect(decodeOneSpelling(text)).toBeUndefined();
  });

  it('a member named __proto__ reaches no prototype', () => {
    const payload = decodeOneSpelling(token('{"__proto__":{"iss":"a"}}'))?.payload ?? {};
    expect(payload['iss']).toBeUndefined();
  });
});
