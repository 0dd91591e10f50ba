import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterAll, expect, it, onTestFinished } from 'vitest';
import { type Announcement, announcementSchema } from '../../src/fleet/announcement.js';
import { createSecretRotation } from '../../src/fleet/secret-rotation.js';
import { systemRandom } from '../../src/random.js';
import { nameOfSecret } from '../../src/redis/fleet-keyring.js';
import { createLog } from '../../src/telemetry/log.js';
import { holdSecrets, makeSecret } from '../support/fleet-secrets.js';
import { LogLines } from '../support/log-lines.js';
import { sharedRedisUrl } from '../support/world.js';

const client = new Redis(sharedRedisUrl());
afterAll(() => void client.disconnect());

const [old, added] = [makeSecret(), makeSecret()];
const [before, newest] = [nameOfSecret(old), nameOfSecret(added)];
const lagging: Announcement = announcementSchema.parse({
  instance: 'lagging',
  host: 'lagging',
  version: '0.2.0',
  startedAt: 1,
  at: 1,
  issuer: 'https://app.example.com',
  audience: [],
  keys: [],
  opens: [before],
  writes: before,
});

/** An instance that has both secrets, and what it writes again under which. */
function rotationOf() {
  const secrets = holdSecrets(added, old);
  const hands: { others: Announcement[]; found: Announcement[]; hold: Promise<void> } = { others: [], found: [], hold: Promise.resolve() };
  const written: string[] = [];
  const rotation = createSecretRotation({
    secrets,
    denied: { all: [], sync: async () => undefined, deny: async () => undefined },
    values: [],
    others: () => hands.others,
    lookForOthers: async () => {
      hands.others = hands.found;
    },
    strangers: () => 0,
    connection: { client },
    prefix: `rotation-${randomUUID()}:`,
    ends: {
      async writePersons(goesOn) {
        written.push(secrets.writes);
        await hands.hold;
        return (await goesOn()) ? 1 : undefined;
      },
      writeSessions: async () => 0,
    },
    writeCookieSecrets: async () => undefined,
    writeEvents: async () => undefined,
    forgetLearned: () => undefined,
    onChange: () => undefined,
    random: systemRandom,
    log: createLog({ destination: new LogLines() }),
    audit: () => undefined,
  });
  onTestFinished(() => rotation.close());
  return { rotation, secrets, hands, written };
}

it('looks for others before it writes with another secret: one may have started since it heard of them', async () => {
  const { rotation, secrets, hands, written } = rotationOf();
  hands.found = [lagging];
  await rotation.sync();
  expect([secrets.writes, written]).toEqual([before, []]);
  hands.found = [];
  hands.others = [];
  await rotation.sync();
  expect(secrets.writes).toBe(newest);
  await expect.poll(() => written).toEqual([newest]);
});

it('what was begun under a secret that the fleet turned back from is written again under the one that it went back to', async () => {
  const { rotation, secrets, hands, written } = rotationOf();
  // All stands under the old one, as far as this instance knows.
  hands.found = [lagging];
  await rotation.sync();
  let goOn = () => {};
  hands.hold = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  hands.found = [];
  hands.others = [];
  await rotation.sync();
  await expect.poll(() => written).toEqual([newest]);
  hands.others = [lagging];
  hands.found = [lagging];
  await rotation.sync();
  expect(secrets.writes).toBe(before);
  goOn();
  await expect.poll(() => written).toEqual([newest, before]);
});
