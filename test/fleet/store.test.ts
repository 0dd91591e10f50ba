import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterAll, expect, it, onTestFinished } from 'vitest';
import { createControl } from '../../src/compose/stored.js';
import { resolveConfig } from '../../src/config/load.js';
import { type Announcement, announcementSchema } from '../../src/fleet/announcement.js';
import { createFleetStore } from '../../src/fleet/store.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { holdSecrets, makeSecret } from '../support/fleet-secrets.js';
import { sharedRedisUrl } from '../support/world.js';

const client = new Redis(sharedRedisUrl());
const prefix = `fleet-store-${randomUUID()}:`;
const secrets = holdSecrets();
const storeOf = (instance: string) => createFleetStore({ client, prefix, secrets, instance, audit: () => undefined, metrics: createMetrics() });
afterAll(async () => {
  await client.del(...(await client.keys(`${prefix}*`)));
  client.disconnect();
});

const say = (instance: string, at: number): Announcement =>
  announcementSchema.parse({
    instance,
    host: instance,
    version: '0.2.0',
    startedAt: at,
    at,
    issuer: 'https://app.example.com',
    audience: [],
    keys: [],
  });

it('hides no instance that was read before where somebody fills the list, and counts it as one that opens nothing', async () => {
  const [seconds] = await client.time();
  const nowMs = Number(seconds) * 1000;
  const [one, other] = [storeOf('one'), storeOf('other')];
  await one.write(say('one', nowMs));
  await other.write(say('other', nowMs));
  expect((await one.read(nowMs)).live.map(({ instance }) => instance).sort()).toEqual(['one', 'other']);
  expect(one.isAlone).toBe(true);

  await client.zadd(`${prefix}fleet`, ...Array.from({ length: 600 }, (_, n) => [nowMs - 1000, `name-${n}`]).flat());
  const reading = await one.read(nowMs);
  expect(reading.live.map(({ instance }) => instance).sort()).toEqual(['one', 'other']);
  expect(reading.strangers).toBe(1);
  // One that starts now sees nobody: it takes itself for neither the first nor alone.
  const late = storeOf('late');
  expect((await late.read(nowMs)).live).toEqual([]);
  expect([late.isAlone, late.isHere]).toEqual([false, false]);
});

it('an instance that could not read yet what decides issues nothing, and says so', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-control-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  writeFileSync(join(directory, 'fleet'), makeSecret().reveal());
  writeFileSync(join(directory, 'cookies'), 'a-secret-of-the-app');
  const config = resolveConfig(
    {
      issuer: 'https://app.example.com',
      audience: ['https://api.example.com'],
      fleetSecretFile: 'fleet',
      redis: { url: sharedRedisUrl(), keyPrefix: prefix },
      sessions: [{ name: 'web', format: 'koa-session', secretsFile: 'cookies', principal: { subject: 'user.id' } }],
    },
    { baseDir: directory },
  );
  const quiet = { audit: () => undefined, metrics: createMetrics() };
  const control = createControl({ config, client, secrets, fleetNowMs: () => Date.now(), ...quiet });
  const names = ['jwks', 'revoked-kids', 'clamps', 'denied-secrets'];
  expect(control.blocked).toEqual(names.map((name) => `${name} in Redis could not be read yet`));
  await control.fleet.read(Date.now());
  await control.settle();
  expect(control.blocked).toEqual([]);
});
