import { randomUUID } from 'node:crypto';
import { afterAll, expect, it } from 'vitest';
import { systemClock } from '../../src/clock.js';
import type { ConfigProblem } from '../../src/config/config.js';
import { resolveTarget } from '../../src/config/redis-access.js';
import { bridgeRedisSchema } from '../../src/config/schema-entries.js';
import type { EndEvent } from '../../src/endings/event.js';
import { createEventPublisher } from '../../src/endings/event-publisher.js';
import { createEventStream } from '../../src/endings/event-stream.js';
import { createClaim } from '../../src/redis/claim.js';
import { connectRedis } from '../../src/redis/probed-connection.js';
import { createAudit } from '../../src/telemetry/audit.js';
import { createLog } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { holdSecrets } from '../support/fleet-secrets.js';
import { LogLines } from '../support/log-lines.js';
import { sharedRedisUrl } from '../support/world.js';

const secrets = holdSecrets();
const log = createLog({ destination: new LogLines() });
const metrics = createMetrics();
const key = `crossfade-test-${randomUUID()}:events`;
const problems: ConfigProblem[] = [];
const target = resolveTarget(bridgeRedisSchema.parse({ url: sharedRedisUrl() }), 'redis', (file) => file, problems);
const connect = (name: string) =>
  connectRedis(target, { name, commandTimeoutMs: 5000, probe: 'write', probeKey: `${key}-probe`, probeAgain: false, log, metrics });
const [own, follower] = [connect('own'), connect('events')];
afterAll(async () => {
  await own.client.del(key, `${key}-rewriting`);
  own.close();
});

it('ends that outlast the stream are written again in parts, and the stream is read meanwhile', async () => {
  await Promise.all([own.ready(5000), follower.ready(5000)]);
  const persons = Array.from({ length: 450 }, (_, n): Extract<EndEvent, { type: 'subject.ended' }> => {
    return { type: 'subject.ended', subject: `u-${n}`, endedAt: Date.now(), notBefore: Date.now() };
  });
  const parts: number[] = [];
  const heard: string[] = [];
  const hands = { isWhole: true };
  const publisher = createEventPublisher({ client: own.client, key, secrets, keepMs: 60_000 });
  const stream = createEventStream({
    publisher,
    client: own.client,
    follower,
    key,
    claim: createClaim(own.client, `${key}-rewriting`, 'one'),
    secrets,
    belonging: { isUnheard: () => false, isInTouch: () => true },
    keepMs: 60_000,
    blockMs: 50,
    hear: (event) => void heard.push(event.type),
    known: () => [],
    lasting: {
      load: async () => true,
      isWhole: async () => hands.isWhole,
      all: () => persons,
      async store(some) {
        parts.push(some.length);
        // Something ends while the first step of 10 commands is made.
        if (parts.length === 1) await publisher.publish({ type: 'family.ended', sid: 's', family: 'f', endedAt: Date.now() });
        if (parts.length === 11) expect(heard).toEqual(['family.ended']);
        hands.isWhole = true;
      },
    },
    clock: systemClock,
    log,
    audit: createAudit(log),
    metrics,
  });
  stream.follow();
  await stream.read(5000);
  hands.isWhole = false;
  await expect.poll(() => parts).toEqual([...Array.from({ length: 22 }, () => 20), 10]);
  stream.close();
});
