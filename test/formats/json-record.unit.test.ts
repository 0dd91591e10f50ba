import { expect, it } from 'vitest';
import { readJsonRecord } from '../../src/formats/json-record.js';

it.each<[string, string]>([
  ['of letters', 'x'.repeat(9_000_000)],
  ['of escapes', '\\n'.repeat(3_000_000)],
])('reads a whole number beyond 2^53 beside a long string %s', (_, long) => {
  expect(readJsonRecord(`{"note":"${long}","id":9007199254740993}`)?.['id']).toBe('9007199254740993');
});
