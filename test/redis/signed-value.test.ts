import { randomBytes, randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { SignedValue } from '../../src/redis/signed-value.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { sharedRedisUrl } from '../support/world.js';

const redis = new Redis(sharedRedisUrl());
const macKey = randomBytes(32);
const audits: unknown[] = [];
let key: string;
beforeEach(async () => {
  key = `crossfade-test-${randomUUID()}`;
  await redis.expire(key, 60);
  audits.length = 0;
});
afterAll(() => redis.disconnect());

function open(options: { macKey?: Buffer; name?: string } = {}) {
  return new SignedValue({
    client: redis,
    name: options.name ?? 'jwks',
    key,
    macKey: options.macKey ?? macKey,
    schema: z.strictObject({ n: z.number() }),
    audit: (event, fields) => audits.push([event, fields?.['reason']]),
    metrics: createMetrics(),
  });
}

const refused = (reason: string) => [['value.refused', reason]];

describe('a value in Redis that decides about something', () => {
  it('comes back as it was written, on another instance as well', async () => {
    expect(await open().read()).toBeUndefined();
    await open().update(() => ({ n: 1 }));
    expect(await open().read()).toEqual({ n: 1 });
    await redis.del(key);
  });

  it('Law 10: written with another secret, under another name, or changed by a byte, it counts as absent and is audited once', async () => {
    await open({ macKey: randomBytes(32) }).update(() => ({ n: 1 }));
    const value = open();
    expect(await value.read()).toBeUndefined();
    expect(await value.read()).toBeUndefined();
    expect(audits).toEqual(refused('bad-mac'));

    await redis.del(key);
    await open({ name: 'flags' }).update(() => ({ n: 1 }));
    expect(await open().read()).toBeUndefined();
    await redis.set(key, 'not JSON');
    expect(await open().read()).toBeUndefined();
    expect(audits).toEqual([...refused('bad-mac'), ...refused('bad-mac'), ...refused('malformed')]);
    await redis.del(key);
  });

  it('Law 10: an old one played again counts as absent where a newer one was seen, and gives way to the next write', async () => {
    const value = open();
    await value.update(() => ({ n: 1 }));
    const old = (await redis.get(key)) ?? '';
    await value.update(() => ({ n: 2 }));
    await redis.set(key, old);
    expect(await value.read()).toBeUndefined();
    expect(audits).toEqual(refused('replayed'));
    await value.update((current) => ({ n: (current?.n ?? 10) + 1 }));
    expect(await open().read()).toEqual({ n: 11 });
    await redis.del(key);
  });

  it('Law 10: a key of another type counts as absent, and gives way to the next write', async () => {
    await redis.rpush(key, 'x');
    const value = open();
    expect(await value.read()).toBeUndefined();
    expect(audits).toEqual(refused('malformed'));
    await value.update(() => ({ n: 1 }));
    expect(await open().read()).toEqual({ n: 1 });
    await redis.del(key);
  });

  it('of many changes at once none is lost', async () => {
    const values = Array.from({ length: 5 }, () => open());
    for (const value of values) await value.read();
    await Promise.all(values.map((value) => value.update((current) => ({ n: (current?.n ?? 0) + 1 }))));
    expect(await open().read()).toEqual({ n: 5 });
    await redis.del(key);
  });
});
