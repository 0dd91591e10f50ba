import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { type KeySource, serveJwks } from '../../src/keys/jwks.js';
import { loadKeyDirectory } from '../../src/keys/load.js';
import { selfTest } from '../../src/keys/self-test.js';
import { createIssuer } from '../../src/tokens/access-token.js';
import { createProbe } from '../../src/tokens/token-probe.js';
import { writeKey } from '../support/keys.js';

const POLICY = { issuer: 'https://app.example.com', audience: ['https://api.example.com'], clockSkewSeconds: 5 };

it('of 200 keys reads the served JWKS once for all of them, and lets requests be served between two keys', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-self-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  for (let n = 0; n < 200; n++) writeKey(directory, `key-${n}.pem`);
  const { keys } = await loadKeyDirectory({ directory, algorithm: 'ES256', allowGroupRead: false });
  const issueAccessToken = createIssuer({
    issuer: POLICY.issuer,
    accessTtlSeconds: 600,
    expiryJitter: 0,
    clock: systemClock,
    random: { token: () => 'test', fraction: () => 0 },
  });
  const probe = createProbe(POLICY, issueAccessToken, systemClock);

  const sources = new Set<KeySource>();
  const turnsOf: number[] = [];
  let turns = 0;
  const timer = setImmediate(function turn() {
    turns += 1;
    if (turnsOf.length < keys.length) setImmediate(turn);
  });
  const failed = await selfTest(keys, serveJwks(keys.map(({ publicJwk }) => publicJwk)).body, async (key, source) => {
    sources.add(source);
    await probe(key, source);
    turnsOf.push(turns);
  });
  clearImmediate(timer);
  expect({ keys: keys.length, failed: failed.size, read: sources.size }).toEqual({ keys: 200, failed: 0, read: 1 });
  expect(new Set(turnsOf).size).toBe(200);
});
