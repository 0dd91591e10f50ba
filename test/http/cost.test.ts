import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { readCredentials } from '../../src/http/credentials.js';
import { loadKeyDirectory } from '../../src/keys/load.js';
import { readFlagFile } from '../../src/rollout/flag-file.js';
import { readJsonRecord } from '../../src/sessions/json-record.js';
import { readPhpSession } from '../../src/sessions/php-serialization.js';
import { decodeOneSpelling } from '../../src/tokens/spelling.js';

// What a stranger's bytes cost: each reader's worst 16 KiB beside a flat one of that length. This holds a ratio of CPU time on the same
// machine in the same moment, the least of many rounds each, with room to spare: what is superlinear exceeds it many times over.

const SIZE = 16_384;
const FACTOR = 4;
const ROUNDS = 40;

/** CPU time of the quickest of many rounds, in µs. */
async function costOf(read: () => unknown): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const before = process.cpuUsage();
    for (let n = 0; n < 5; n++) await Promise.resolve(read()).catch(() => undefined);
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, user + system);
  }
  return Math.max(least, 50);
}

const fill = (make: (n: number) => string, size = SIZE, glue = ''): string => {
  const parts: string[] = [];
  for (let n = 0, length = 0; length < size; n++) {
    const part = make(n);
    parts.push(part);
    length += part.length + glue.length;
  }
  return parts.join(glue).slice(0, size);
};
const base64 = (text: string) => Buffer.from(text).toString('base64url');
const members = (size: number) => `{${fill((n) => `"member${n}":"value ${n}"`, size - 40, ',').replace(/,?"member\d+(":?("[^"]*)?)?$/, '')}}`;
const JSON_SIZE = 12_000;
const FLAT = members(JSON_SIZE);

const brackets = (size: number) => `{"a":${'['.repeat(size / 2)}${']'.repeat(size / 2)}}`;
const braces = (size: number) => `{"a":${'{"":'.repeat(size / 5)}0${'}'.repeat(size / 5)}}`;
const WORST_JSON = [
  brackets(JSON_SIZE),
  braces(JSON_SIZE),
  '['.repeat(JSON_SIZE),
  `{"a":"${'\\u0000'.repeat(JSON_SIZE / 6)}"}`,
  `{"a":"${'\\"'.repeat(JSON_SIZE / 2)}"}`,
  `{"a":${'9'.repeat(JSON_SIZE)}}`,
  `{"a":[${fill(() => '1234567890123456789', JSON_SIZE - 20, ',').replace(/,\d*$/, '')}]}`,
  `{"a":"${'\\\\'.repeat(JSON_SIZE / 2)}1234567890123456789"}`,
];

const tokenOf = (header: string, payload: string) => `${base64(header)}.${base64(payload)}.${'A'.repeat(86)}`;
const HEADER = '{"alg":"ES256","typ":"at+jwt","kid":"k"}';
const requestWith = (name: string, value: string) => {
  const request: unknown = { headers: { [name]: value }, rawHeaders: [name, value], url: '/me' };
  return request as IncomingMessage;
};

it.each<[reader: string, flat: string, worst: readonly string[], read: (text: string) => unknown]>([
  ['the payload of a token', tokenOf(HEADER, FLAT), WORST_JSON.map((json) => tokenOf(HEADER, json)), decodeOneSpelling],
  ['the header of a token', tokenOf(FLAT, '{}'), WORST_JSON.map((json) => tokenOf(json, '{}')), decodeOneSpelling],
  [
    'cookies',
    fill((n) => `name${n}=value${n}`, SIZE, '; '),
    [
      ';'.repeat(SIZE),
      '='.repeat(SIZE),
      ' '.repeat(SIZE),
      'a=b;'.repeat(SIZE / 4),
      `${' ;'.repeat(SIZE / 2)}`,
      `a=${'"'.repeat(SIZE)}`,
      `a=${'%'.repeat(SIZE)}`,
    ],
    (text) => readCredentials(requestWith('cookie', text)),
  ],
  [
    'Authorization',
    `Bearer ${'a'.repeat(SIZE)}`,
    [`Bearer${' '.repeat(SIZE)}x`, 'Bearer '.repeat(SIZE / 7), `Bearer ${','.repeat(SIZE)}`, `Bearer ${'.'.repeat(SIZE)}`, ' '.repeat(SIZE)],
    (text) => readCredentials(requestWith('authorization', text)),
  ],
  ['a record of JSON', FLAT, WORST_JSON, readJsonRecord],
  [
    'a record of PHP',
    fill((n) => `name${n}|s:5:"value";`),
    [
      `a|${'a:1:{i:0;'.repeat(SIZE / 9)}`,
      `${'a'.repeat(SIZE)}`,
      '|'.repeat(SIZE),
      `a|a:${SIZE}:{${'i:0;N;'.repeat(SIZE / 6)}}`,
      `a|O:${'9'.repeat(SIZE)}`,
      fill((n) => `a${n}|R:1;`),
      fill((n) => `a${n}|r:${n};`),
    ],
    (text) => readPhpSession(text, 'php'),
  ],
])('%s: the worst bytes cost about what flat ones do', async (_reader, flat, worst, read) => {
  const usual = (await costOf(() => read(flat))) / flat.length;
  for (const text of worst) {
    const cost = (await costOf(() => read(text))) / text.length;
    expect(cost / usual, `${text.slice(0, 40)}…`).toBeLessThan(FACTOR * 2);
  }
});

it('key files and flags: the worst bytes cost about what flat ones do', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-cost-'));
  const file = join(directory, 'flags.json');
  const key = join(directory, 'a.pem');
  try {
    const flags = async (text: string) => {
      writeFileSync(file, text);
      return (await costOf(async () => await readFlagFile(file, ['stage']))) / text.length;
    };
    const usual = await flags(`{"flagValues":${members(SIZE - 20)}}`);
    for (const text of [brackets(SIZE), braces(SIZE), `{"flags":${brackets(SIZE)}}`, `{"segments":${braces(SIZE)}}`])
      expect((await flags(text)) / usual, text.slice(0, 40)).toBeLessThan(FACTOR * 2);
    rmSync(file);

    const keys = async (text: string) => {
      writeFileSync(key, text, { mode: 0o600 });
      return await costOf(async () => await loadKeyDirectory({ directory, algorithm: 'ES256', allowGroupRead: false }));
    };
    const flat = await keys(fill((n) => `line ${n} of a file that is no key\n`));
    const begin = '-----BEGIN PRIVATE KEY-----\n';
    for (const text of [begin.repeat(SIZE / begin.length), '-'.repeat(SIZE), `${begin}${'A'.repeat(SIZE)}`, brackets(SIZE)])
      expect((await keys(text)) / flat, text.slice(0, 40)).toBeLessThan(FACTOR * 2);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
