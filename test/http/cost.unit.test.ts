import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { readCredentials } from '../../src/endpoints/credentials.js';
import { readForm } from '../../src/endpoints/form.js';
import { readJsonRecord } from '../../src/formats/json-record.js';
import { readPhpSession } from '../../src/formats/php-serialization.js';
import { loadKeyDirectory } from '../../src/keys/load.js';
import { readFlagFile } from '../../src/rollout/flag-file.js';
import { decodeOneSpelling } from '../../src/tokens/spelling.js';

// What a stranger's bytes cost: each reader's worst 16 KiB beside a flat text of that length. The test holds a ratio of CPU time. Both sides are
// measured in turns in the same process, and the least of many rounds counts. What is superlinear exceeds the bound many times over.

const SIZE = 16_384;
const MOST = 8;
const ROUNDS = 24;
/** A round reads the flat text for this long, in µs: many ticks of the CPU clock. */
const ROUND_US = 2000;

async function cpuOf(read: (text: string) => unknown, text: string, times: number): Promise<number> {
  const before = process.cpuUsage();
  for (let n = 0; n < times; n++) await Promise.resolve(read(text)).catch(() => undefined);
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

/** Looks at each character once: a reader that does not even do that for a flat text is no measure. */
function glance(text: string): number {
  let sum = 0;
  for (let at = 0; at < text.length; at++) sum += text.charCodeAt(at);
  return sum;
}

/** How many times the CPU per byte of the flat text each of the others takes. */
async function ratios(read: (text: string) => unknown, flat: string, others: readonly string[]): Promise<(readonly [text: string, ratio: number])[]> {
  let times = 1;
  while ((await cpuOf(read, flat, times)) < ROUND_US && times < 1000) times *= 2;
  const least = new Map<string, number>();
  let glanced = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    glanced = Math.min(glanced, (await cpuOf(glance, flat, times)) / flat.length);
    for (const text of [flat, ...others]) {
      const perByte = (await cpuOf(read, text, times)) / text.length;
      least.set(text, Math.min(least.get(text) ?? Number.POSITIVE_INFINITY, perByte));
    }
  }
  const usual = Math.max(least.get(flat) ?? 0, glanced);
  return others.map((text, n) => [`${n}: ${text.slice(0, 60)}…`, (least.get(text) ?? 0) / usual]);
}

async function expectNoneDear(read: (text: string) => unknown, flat: string, others: readonly string[]): Promise<void> {
  expect((await ratios(read, flat, others)).filter(([, ratio]) => !(ratio < MOST))).toEqual([]);
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
const PEM_BEGIN = '-----BEGIN PRIVATE KEY-----\n';
const HEADER = '{"alg":"ES256","typ":"at+jwt","kid":"k"}';
const requestWith = (name: string, value: string) => {
  const request: unknown = { headers: { [name]: value }, rawHeaders: [name, value], url: '/me' };
  return request as IncomingMessage;
};

const formHead = (text: string) => ({
  headers: { 'content-type': 'application/x-www-form-urlencoded', 'content-length': String(text.length) },
  rawHeaders: [],
  socket: {},
});

it.each<[reader: string, flat: string, worst: readonly string[], read: (text: string) => unknown]>([
  ['the payload of a token', tokenOf(HEADER, FLAT), WORST_JSON.map((json) => tokenOf(HEADER, json)), decodeOneSpelling],
  [
    'the header of a token',
    tokenOf(FLAT, '{}'),
    WORST_JSON.map((json) => tokenOf(json, '{}')),
    (text) => {
      // The last header is remembered: after another one this header is read.
      decodeOneSpelling(tokenOf(HEADER, '{}'));
      return decodeOneSpelling(text);
    },
  ],
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
  [
    'a form',
    fill((n) => `name${n}=value${n}`, SIZE, '&'),
    [
      '&'.repeat(SIZE),
      '='.repeat(SIZE),
      '%'.repeat(SIZE),
      '%00'.repeat(SIZE / 3),
      '+'.repeat(SIZE),
      'a=&'.repeat(SIZE / 3),
      'a=b&'.repeat(SIZE / 4),
      fill((n) => `n${n}=${'%20'.repeat(9)}`, SIZE, '&'),
    ],
    async (text) => await readForm(formHead(text), async () => ({ text })),
  ],
])('%s: the worst bytes cost about what flat ones do', async (_, flat, worst, read) => {
  await expectNoneDear(read, flat, worst);
});

it('key files and flags: the worst bytes cost about what flat ones do', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-cost-'));
  const file = (name: string, text: string) => {
    const path = join(directory, name);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  };
  try {
    const flagFiles = new Map(
      [`{"flagValues":${members(SIZE - 20)}}`, brackets(SIZE), braces(SIZE), `{"flags":${brackets(SIZE)}}`, `{"segments":${braces(SIZE)}}`].map(
        (text, n) => [text, file(`flags-${n}.json`, text)],
      ),
    );
    const [flat = '', ...worst] = flagFiles.keys();
    await expectNoneDear(async (text) => await readFlagFile(flagFiles.get(text) ?? '', ['stage']), flat, worst);

    const keyDirectories = new Map(
      [
        fill((n) => `line ${n} of a file that is no key\n`),
        PEM_BEGIN.repeat(SIZE / PEM_BEGIN.length),
        '-'.repeat(SIZE),
        `${PEM_BEGIN}${'A'.repeat(SIZE)}`,
        brackets(SIZE),
      ].map((text, n) => {
        mkdirSync(join(directory, `keys-${n}`));
        return [text, dirname(file(`keys-${n}/a.pem`, text))];
      }),
    );
    const [noKey = '', ...worstKeys] = keyDirectories.keys();
    const load = async (text: string) =>
      await loadKeyDirectory({ directory: keyDirectories.get(text) ?? '', algorithm: 'ES256', allowGroupRead: false });
    await expectNoneDear(load, noKey, worstKeys);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
