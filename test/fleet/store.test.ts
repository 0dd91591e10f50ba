import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterAll, expect, it } from 'vitest';
import { type Announcement, announcementSchema } from '../../src/fleet/announcement.js';
import { createFleetStore } from '../../src/fleet/store.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { holdSecrets } from '../support/fleet-secrets.js';
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
