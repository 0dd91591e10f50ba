import { Redis } from 'ioredis';
import { expect, it, onTestFinished } from 'vitest';
import { freePort } from '../../scripts/lib/free-port.js';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { createNodeWatch } from '../../src/redis/node-watch.js';

const HOUR_MS = 3_600_000;

it('notices another run, another replication id and another role, and nothing else', async () => {
  const hands = { now: 1_800_000_000_000, changes: 0 };
  const primary = await startRedis();
  const port = await freePort();
  let server = await startRedis({ port });
  const client = new Redis({ port, host: '127.0.0.1', retryStrategy: () => 20 });
  client.on('error', () => undefined);
  onTestFinished(async () => {
    client.disconnect();
    await server.stop();
    await primary.stop();
  });
  const usable = new Set<() => void>();
  const watch = createNodeWatch({
    connection: { client, onUsable: (listener) => void usable.add(listener) },
    clock: { now: () => hands.now },
  });
  watch.onChange(() => {
    hands.changes += 1;
  });
  const looksAgain = async () => {
    const before = hands.changes;
    await watch.look();
    return hands.changes - before;
  };
  // An instance that has just started does not know what was before.
  expect(watch.hasChangedWithin(HOUR_MS)).toBe(true);
  expect([await looksAgain(), await looksAgain()]).toEqual([0, 0]);
  hands.now += HOUR_MS;
  expect(watch.hasChangedWithin(HOUR_MS)).toBe(false);

  // Data that is lost without another node or connection: somebody has wound Redis back, which is a surprise.
  watch.noteLoss();
  expect([watch.hasChangedWithin(HOUR_MS), watch.mayHaveLostWithin(HOUR_MS)]).toEqual([false, true]);

  await client.replicaof('127.0.0.1', primary.port);
  await expect.poll(async () => String(await client.info('replication'))).toContain('master_link_status:up');
  expect(await looksAgain()).toBe(1);
  expect(watch.hasChangedWithin(HOUR_MS)).toBe(true);
  await client.replicaof('NO', 'ONE');
  expect([await looksAgain(), await looksAgain()]).toEqual([1, 0]);

  await server.stop();
  server = await startRedis({ port });
  await expect.poll(async () => await client.ping().catch(() => '')).toBe('PONG');
  expect([await looksAgain(), await looksAgain()]).toEqual([1, 0]);

  hands.now += HOUR_MS;
  for (const tell of usable) tell();
  expect(watch.hasChangedWithin(HOUR_MS)).toBe(true);
});
