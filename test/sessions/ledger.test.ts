import { randomBytes, randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterAll, expect, it } from 'vitest';
import { endLogin } from '../../src/login.js';
import { createBatchedReads } from '../../src/redis/batched-reads.js';
import { nameOfSecret } from '../../src/redis/fleet-keyring.js';
import { createSessionLedger, type LedgerOptions } from '../../src/sessions/ledger.js';
import { personOf } from '../../src/sessions/person-of.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { holdSecrets, makeSecret } from '../support/fleet-secrets.js';
import { sharedRedisUrl } from '../support/world.js';

const client = new Redis(sharedRedisUrl());
const prefix = `ledger-${randomUUID()}:`;
const secrets = holdSecrets();
const personKey = secrets.names.person;
const options: LedgerOptions = {
  client,
  reads: createBatchedReads(client),
  prefix,
  secrets,
  isStranger: () => false,
  keepSeconds: 60,
  audit: () => undefined,
  metrics: createMetrics(),
};
const ledger = createSessionLedger(options);
afterAll(async () => {
  await client.del(...(await client.keys(`${prefix}*`)));
  client.disconnect();
});

const NOW = 1_800_000_000_000;
const familyId = (madeAt: number) => `${madeAt}${randomBytes(12).toString('base64url')}`;

async function openFamily(sid: string, madeAt: number, subject: string): Promise<string> {
  const keys = ledger.keysOf(sid);
  const id = familyId(madeAt);
  await client.hset(keys.family + id, 'person', personOf(personKey, subject), 'client', 'web');
  await client.zadd(keys.families, madeAt, id);
  return keys.family + id;
}
const isOver = async (family: string) => (await client.hexists(family, 'ended')) === 1;

it('writes a lost end again: tombstone, and families of that person from before it only', async () => {
  const sid = 'a'.repeat(32);
  const before = await openFamily(sid, NOW - 1000, 'alice');
  const after = await openFamily(sid, NOW + 1000, 'alice');
  const others = await openFamily(sid, NOW - 1000, 'bob');
  await ledger.endAgain(sid, endLogin({ subject: 'alice', authTimeMs: NOW - 5000 }, NOW));
  expect((await ledger.marks(sid)).ended).toMatchObject({ subject: 'alice', endedAt: NOW, authTimeMs: NOW - 5000 });
  expect([await isOver(before), await isOver(after), await isOver(others)]).toEqual([true, false, false]);
});

it('writes nothing over a newer tombstone', async () => {
  const sid = 'b'.repeat(32);
  await ledger.end(sid, { reason: 'logout', ended: endLogin({ subject: 'bob' }, NOW + 500) });
  const stands = await client.get(ledger.markKey(sid));
  await ledger.endAgain(sid, endLogin({ subject: 'alice' }, NOW));
  expect(await client.get(ledger.markKey(sid))).toBe(stands);
});

it('of two persons of one id the newer one stands, whichever is written first', async () => {
  const sid = 'e'.repeat(32);
  await Promise.all([
    ledger.endAgain(sid, endLogin({ subject: 'alice' }, NOW - 20_000)),
    ledger.endAgain(sid, endLogin({ subject: 'bob' }, NOW - 1000)),
    ledger.endAgain(sid, endLogin({ subject: 'carol' }, NOW - 10_000)),
  ]);
  expect((await ledger.marks(sid)).ended?.subject).toBe('bob');
});

it('writes over an older one, and over one that somebody made', async () => {
  for (const [sid, stands] of [
    ['c'.repeat(32), undefined],
    ['d'.repeat(32), 'forged.{"subject":"alice","endedAt":9999999999999,"reason":"logout"}'],
  ] as const) {
    if (stands === undefined) await ledger.end(sid, { reason: 'logout', ended: endLogin({ subject: 'alice' }, NOW - 500) });
    else await client.set(ledger.markKey(sid), stands);
    await ledger.endAgain(sid, endLogin({ subject: 'alice' }, NOW));
    expect((await ledger.marks(sid)).ended?.endedAt).toBe(NOW);
  }
});

it('does not know what a tombstone says that is named after a secret which is not here; once that is out of use it is none', async () => {
  const sid = 'f'.repeat(32);
  const [here, elsewhere] = [makeSecret(), makeSecret()];
  const both = holdSecrets(elsewhere, here);
  both.writeWith(nameOfSecret(elsewhere));
  const [alone, fleet] = [holdSecrets(here), both].map((held) => createSessionLedger({ ...options, secrets: held }));
  await fleet?.end(sid, { reason: 'logout', ended: endLogin({ subject: 'alice' }, NOW) });
  await expect(alone?.marks(sid)).rejects.toMatchObject({ code: 'temporarily_unavailable', reason: 'secret' });
  expect((await fleet?.marks(sid))?.ended?.subject).toBe('alice');

  const without = holdSecrets(here);
  without.deny([{ name: nameOfSecret(elsewhere), isFirst: false, isRevoked: false }]);
  expect((await createSessionLedger({ ...options, secrets: without }).marks(sid)).ended).toBeUndefined();
});
