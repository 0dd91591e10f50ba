import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterAll, afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { EndEvent } from '../../src/endings/event.js';
import { createRememberedEnds, type RememberedEnds } from '../../src/endings/remembered-ends.js';
import { createClaim } from '../../src/redis/claim.js';
import { createAudit } from '../../src/telemetry/audit.js';
import { createLog } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { LogLines } from '../support/log-lines.js';
import { sharedRedisUrl } from '../support/world.js';

const client = new Redis(sharedRedisUrl());
afterAll(() => void client.disconnect());
const open: RememberedEnds[] = [];
afterEach(() => {
  for (const one of open.splice(0)) one.close();
});

const NOW = 1_800_000_000_000;
const logouts = (count: number, from = 0): EndEvent[] =>
  Array.from({ length: count }, (_, n) => ({ type: 'session.ended', sid: `sid-${from + n}`, subject: 'alice', endedAt: NOW - n }));
const persons: Extract<EndEvent, { type: 'subject.ended' }>[] = [
  { type: 'subject.ended', subject: 'bob', endedAt: NOW - 10_000_000, notBefore: NOW - 10_000_000 },
];

/** Instances of one fleet, each with what it knows; what they write is noted instead. */
function fleet(...known: EndEvent[][]) {
  const prefix = `ends-${randomUUID()}:`;
  const written: string[] = [];
  const instances = known.map((ends) => {
    const log = new LogLines();
    const one = createRememberedEnds({
      client,
      prefix,
      ledger: {
        keysOf: () => ({ session: '', families: '', family: '', ended: '' }),
        async endAgain(sid) {
          written.push(sid);
        },
      },
      persons: {
        async endAgain({ subject }) {
          written.push(subject);
        },
      },
      heard: { known: () => ends, knownPersons: () => persons, endedLogin: () => undefined },
      claim: createClaim(client, `${prefix}rewriting`, randomUUID()),
      log: createLog({ destination: log }),
      audit: createAudit(createLog({ destination: log })),
      metrics: createMetrics(),
    });
    open.push(one);
    const runs = () => log.audits('ends.rewritten').length;
    return { ...one, runs };
  });
  return { instances, written };
}

describe('what has ended and Redis may have lost', () => {
  it('is written by one instance, where several have seen the same failover and know the same', async () => {
    const { instances, written } = fleet(logouts(250), logouts(250), logouts(250));
    for (const one of instances) one.writeAll('the new node');
    await expect.poll(() => instances.reduce((sum, { runs }) => sum + runs(), 0), { timeout: 10_000 }).toBe(1);
    // The others look again and find that it is done.
    await expect.poll(() => written.length).toBe(251);
    expect(written).toContain('bob');
    for (const one of instances) one.writeAll('the new node');
    await expect.poll(() => written.length).toBe(251);
  });

  it('is written by the other one as well, where it knows something else', async () => {
    const { instances, written } = fleet(logouts(10), logouts(10, 100));
    for (const one of instances) one.writeAll('the new node');
    await expect.poll(() => instances.map(({ runs }) => runs()), { timeout: 10_000 }).toEqual([1, 1]);
    expect(new Set(written).size).toBe(21);
  });

  it('is written again at once after a second loss on the same node', async () => {
    const { instances, written } = fleet(logouts(10));
    const [one] = instances;
    one?.writeAll('the new node');
    await expect.poll(() => one?.runs()).toBe(1);
    one?.writeAll();
    await expect.poll(() => one?.runs()).toBe(2);
    expect(written).toHaveLength(22);
  });

  it('is written by one instance, where several have noticed a loss on the same nodes in two ways', async () => {
    const { instances, written } = fleet(logouts(250), logouts(250), logouts(250));
    for (const one of instances) one.writeAll('the same nodes');
    for (const one of instances) one.writeAll();
    await expect.poll(() => written.length, { timeout: 10_000 }).toBe(251);
    // Each has come to it: the claim says so until the last has looked.
    for (const one of instances) await expect.poll(() => one.isIdle(), { timeout: 10_000 }).toBe(true);
    expect(written).toHaveLength(251);
  });

  it('is written a minute after the last time, where a lost write is met before', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    onTestFinished(() => void vi.useRealTimers());
    const { instances, written } = fleet(logouts(10));
    const [one] = instances;
    one?.writeAll();
    const runsAfter = async (ms: number) => {
      await vi.advanceTimersByTimeAsync(ms);
      return one?.runs();
    };
    await expect.poll(async () => await runsAfter(100)).toBe(1);
    one?.writeAllSoon();
    one?.writeAllSoon();
    await vi.advanceTimersByTimeAsync(50_000);
    expect(one?.runs()).toBe(1);
    await expect.poll(async () => await runsAfter(1000)).toBe(2);
    expect(written).toHaveLength(22);
  });

  it('is written once more where a loss comes while it is being written', async () => {
    const { instances, written } = fleet(logouts(250));
    const [one] = instances;
    one?.writeAll();
    await expect.poll(() => written.length).toBeGreaterThan(0);
    one?.writeAll();
    one?.writeAll();
    await expect.poll(() => one?.runs()).toBe(2);
    expect(written).toHaveLength(502);
  });

  it('is not written again for each lost write that a client shows', async () => {
    const { instances, written } = fleet(logouts(10));
    const [one] = instances;
    for (let n = 0; n < 20; n++) one?.writeAllSoon();
    await expect.poll(() => one?.runs()).toBe(1);
    one?.writeAllSoon();
    await expect.poll(() => written.length).toBe(11);
  });
});
