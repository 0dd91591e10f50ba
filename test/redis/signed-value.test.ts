import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import type { Secret } from '../../src/config/secret.js';
import { type FleetSecrets, nameOfSecret } from '../../src/redis/fleet-keyring.js';
import { SignedValue, UnreadableValue, whole } from '../../src/redis/signed-value.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { holdSecrets, makeSecret } from '../support/fleet-secrets.js';
import { sharedRedisUrl } from '../support/world.js';

const redis = new Redis(sharedRedisUrl());
const secret = makeSecret();
const audits: unknown[] = [];
let key: string;
beforeEach(async () => {
  key = `crossfade-test-${randomUUID()}`;
  audits.length = 0;
});
afterEach(async () => void (await redis.del(key)));
afterAll(() => redis.disconnect());

interface Opening {
  readonly secrets?: FleetSecrets;
  readonly name?: string;
  readonly isForced?: boolean;
  readonly mayBegin?: boolean;
}

function optionsOf({ secrets = holdSecrets(secret), name = 'jwks', isForced = false, mayBegin = true }: Opening = {}) {
  return {
    client: redis,
    name,
    key,
    secrets,
    codec: whole(z.strictObject({ n: z.number() })),
    mayBegin: () => mayBegin,
    isAlone: () => mayBegin,
    isForced: () => isForced,
    audit: (event: string, fields?: { readonly reason?: unknown }) => audits.push([event, fields?.reason]),
    metrics: createMetrics(),
  };
}

const open = (opening: Opening = {}) => new SignedValue(optionsOf(opening));

const refused = (reason: string) => [['value.refused', reason]];

describe('a value in Redis that decides about something', () => {
  it('comes back as it was written, on another instance as well', async () => {
    expect(await open().read()).toBeUndefined();
    await open().update(() => ({ n: 1 }));
    expect(await open().read()).toEqual({ n: 1 });
  });

  it.each<[string, string, () => Promise<unknown>]>([
    ['with another secret', 'bad-mac', async () => await open({ secrets: holdSecrets() }).update(() => ({ n: 7 }))],
    ['under another name', 'bad-mac', async () => await open({ name: 'flags' }).update(() => ({ n: 7 }))],
    ['by no fleet', 'malformed', async () => await redis.set(key, 'not JSON')],
    ['as a list', 'malformed', async () => await redis.rpush(key, 'x')],
  ])('Law 10: written %s, it is left alone by who has never understood one, and gives way to who has', async (_, reason, write) => {
    const live = open();
    await live.update(() => ({ n: 1 }));
    await redis.del(key);
    await write();
    const content = await redis.dump(key);
    const fresh = open();
    expect(await fresh.read()).toBeUndefined();
    expect(fresh.standing).toBe('foreign');
    await expect(fresh.update(() => ({ n: 2 }))).rejects.toBeInstanceOf(UnreadableValue);
    expect(await redis.dump(key)).toBe(content);
    expect(audits).toEqual(refused(reason));

    expect(live.standing).toBe('known');
    await live.update((current) => ({ n: (current?.n ?? 10) + 1 }));
    expect(await open().read()).toEqual({ n: 11 });
  });

  it.each([
    ['by no fleet', 'not JSON', true],
    ['under a secret that nobody alive has', 'deadbeef:{"version":1,"payload":"{}","mac":"x"}', true],
    ['under a secret that others have', 'deadbeef:{"version":1,"payload":"{}","mac":"x"}', false],
  ])('junk %s is removed by who looks and knows that there was none', async (_, junk, isAlone) => {
    const hands = { mayBegin: true };
    const live = new SignedValue({ ...optionsOf(), mayBegin: () => hands.mayBegin, isAlone: () => hands.mayBegin });
    expect(await live.update(() => undefined)).toBeUndefined();
    await redis.set(key, junk);
    hands.mayBegin = isAlone;
    if (isAlone) expect(await live.update(() => undefined)).toBeUndefined();
    else {
      await expect(live.update(() => ({ n: 1 }))).rejects.toBeInstanceOf(UnreadableValue);
      expect(live.standing, 'it must not act for the fleet').toBe('passed');
    }
    expect(await redis.exists(key)).toBe(isAlone ? 0 : 1);
  });

  it('gives way also to an instance that an operator has forced', async () => {
    await redis.set(key, 'not JSON');
    await open({ isForced: true }).update(() => ({ n: 3 }));
    expect(await open().read()).toEqual({ n: 3 });
  });

  it('is not begun beside instances with another secret', async () => {
    const fresh = open({ mayBegin: false });
    expect(await fresh.update(() => undefined)).toBeUndefined();
    await expect(fresh.update(() => ({ n: 1 }))).rejects.toBeInstanceOf(UnreadableValue);
    expect(await redis.exists(key)).toBe(0);
  });

  it('is always left alone where a later release wrote it', async () => {
    const live = open();
    await live.update(() => ({ n: 1 }));
    const later = new SignedValue({ ...optionsOf(), codec: whole(z.looseObject({})) });
    await later.update(() => ({ n: 'two' }));
    const content = await redis.get(key);
    for (const value of [live, open(), open({ isForced: true })]) {
      expect(await value.read()).toBeUndefined();
      await expect(value.update(() => ({ n: 2 }))).rejects.toBeInstanceOf(UnreadableValue);
    }
    expect(await redis.get(key)).toBe(content);
  });

  it('keeps members of the envelope that a later release has added', async () => {
    await open().update(() => ({ n: 1 }));
    await redis.set(key, JSON.stringify({ ...JSON.parse((await redis.get(key)) ?? ''), more: ['x'] }));
    await open().update((current) => ({ n: (current?.n ?? 0) + 1 }));
    expect(JSON.parse((await redis.get(key)) ?? '')).toMatchObject({ more: ['x'], payload: '{"n":2}' });
  });

  it('is written under the newest secret, and says so but for the first one', async () => {
    const newer = makeSecret();
    const both = holdSecrets(newer, secret);
    await open({ secrets: both }).update(() => ({ n: 1 }));
    expect(await open().read(), 'until a newer one is chosen the first one writes').toEqual({ n: 1 });
    both.writeWith(nameOfSecret(newer));
    const value = open({ secrets: both });
    await value.writeAnew();
    expect(await redis.get(key)).toMatch(new RegExp(`^${nameOfSecret(newer)}:\\{`));
    expect(await value.read()).toEqual({ n: 1 });
    expect(await open().read(), 'who has the first one only').toBeUndefined();
    both.deny([{ name: nameOfSecret(newer), isFirst: false, isRevoked: false }]);
    expect(await open({ secrets: both }).read(), 'denied').toBeUndefined();
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
  });

  it('of many changes at once none is lost', async () => {
    const values = Array.from({ length: 5 }, () => open());
    for (const value of values) await value.read();
    await Promise.all(values.map((value) => value.update((current) => ({ n: (current?.n ?? 0) + 1 }))));
    expect(await open().read()).toEqual({ n: 5 });
  });
});

describe('a secret that is in the wrong hands', () => {
  const DAY_MS = 86_400_000;

  /** What the thief signs with the old one, as if it were from the day after tomorrow. */
  async function forgeFar(old: Secret): Promise<void> {
    const secrets = holdSecrets(old);
    const payload = JSON.stringify({ n: 7 });
    const version = Date.now() + 2 * DAY_MS;
    const signed = secrets.sign(`jwks\0${version}`, payload);
    await redis.set(key, JSON.stringify({ version, payload, mac: signed.slice(0, signed.indexOf('.')) }));
  }

  it('keeps nothing out that stands under a newer one, however far ahead it says to be', async () => {
    const [newest, old] = [makeSecret(), makeSecret()];
    const secrets = holdSecrets(newest, old);
    const live = open({ secrets });
    await live.update(() => ({ n: 1 }));
    await forgeFar(old);
    expect(await live.read()).toEqual({ n: 7 });
    const other = holdSecrets(newest, old);
    other.writeWith(nameOfSecret(newest));
    await redis.del(key);
    await open({ secrets: other }).update(() => ({ n: 2 }));
    expect(await live.read()).toEqual({ n: 2 });
    // What stands under the older one counts no more, unless it is of later.
    await redis.del(key);
    await open({ secrets: holdSecrets(old) }).update(() => ({ n: 3 }));
    expect(await live.read()).toBeUndefined();
  });

  it('once it is revoked takes nothing with it that was seen under the others', async () => {
    const [newest, old] = [makeSecret(), makeSecret()];
    const secrets = holdSecrets(newest, old);
    secrets.writeWith(nameOfSecret(newest));
    const live = open({ secrets });
    await live.update(() => ({ n: 1 }));
    const before = (await redis.get(key)) ?? '';
    await live.update(() => ({ n: 2 }));
    secrets.deny([{ name: nameOfSecret(old), isFirst: true, isRevoked: true }]);
    live.forget();
    await redis.set(key, before);
    expect(await live.read()).toBeUndefined();
    expect(audits).toContainEqual(['value.refused', 'replayed']);
  });
});
