import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { createPersons, PERSON_CONTEXT } from '../../src/endings/person.js';
import { type FleetSecrets, nameOfSecret } from '../../src/redis/fleet-keyring.js';
import { personOf } from '../../src/sessions/person-of.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { holdSecrets, makeSecret } from '../support/fleet-secrets.js';
import { sharedRedisUrl } from '../support/world.js';

const client = new Redis(sharedRedisUrl());
const prefix = `persons-${randomUUID()}:`;
afterAll(async () => {
  await client.del(...(await client.keys(`${prefix}*`)));
  client.disconnect();
});

const DAY_MS = 86_400_000;
const [first, second] = [makeSecret(), makeSecret()];

function personsWith(secrets: FleetSecrets) {
  return createPersons({
    client,
    prefix,
    logout: { end: () => Promise.reject(new Error('nothing is ended here')) },
    ledger: { end: () => Promise.reject(new Error('nothing is ended here')), marks: async () => ({ hasTokens: false }) },
    known: () => [],
    endings: { announce: async () => undefined, assertHeard: () => undefined },
    secrets,
    isStranger: () => false,
    keepMs: DAY_MS,
    skewMs: 60_000,
    clock: systemClock,
    audit: () => undefined,
    metrics: createMetrics(),
  });
}

/** What stands at a person, as a fleet secret has signed it. */
async function put(secrets: FleetSecrets, subject: string, endedAt: number): Promise<void> {
  const signed = secrets.sign(PERSON_CONTEXT, JSON.stringify({ type: 'subject.ended', subject, endedAt, notBefore: endedAt }));
  await client.hset(`${prefix}subject:{${personOf(secrets.names.person, subject)}}`, 'not-before', signed);
}

const noted = async (secrets: FleetSecrets, subject: string) => await personsWith(secrets).note(subject, 'sid', Date.now() + DAY_MS);

describe('the end of a person, as it stands in Redis', () => {
  it('counts', async () => {
    const secrets = holdSecrets(first);
    const endedAt = Date.now() - 1000;
    await put(secrets, 'alice', endedAt);
    expect(await noted(secrets, 'alice')).toMatchObject({ subject: 'alice', endedAt });
  });

  it('is none where it is of later than any instance can have written it: it would keep the person out for good', async () => {
    const secrets = holdSecrets(first);
    await put(secrets, 'bob', Date.now() + 2 * DAY_MS);
    expect(await noted(secrets, 'bob')).toBeUndefined();
  });

  it('cannot be known where it is named after a secret that is not here', async () => {
    const both = holdSecrets(second, first);
    both.writeWith(nameOfSecret(second));
    await put(both, 'carol', Date.now() - 1000);
    const alone = holdSecrets(first);
    await expect(noted(alone, 'carol')).rejects.toMatchObject({ code: 'temporarily_unavailable', reason: 'secret' });
    alone.deny([{ name: nameOfSecret(second), isFirst: false, isRevoked: false }]);
    expect(await noted(alone, 'carol')).toBeUndefined();
  });
});
