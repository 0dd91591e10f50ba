import type { FleetClock } from '../clock.js';
import type { Readiness } from '../console/admin.js';
import type { EventStream } from '../endings/event-stream.js';
import type { Connections } from '../redis/connections.js';
import type { FlagSource } from '../rollout/flags.js';
import { describeInstanceHold, type Guardrail } from '../rollout/guardrail.js';
import type { Membership } from './fleet.js';

export interface ReadinessOptions {
  readonly connections: Connections;
  readonly events: Pick<EventStream, 'wasRead'>;
  readonly membership: Membership;
  readonly guardrail: Pick<Guardrail, 'held'>;
  readonly flagSource: Pick<FlagSource, 'state'>;
  readonly clock: FleetClock;
  /** By `performance.now()`. */
  readonly startedAt: number;
}

/** How long `/readyz` waits for the event stream while Redis answers. */
const EVENTS_START_MS = 60_000;

export function createReadiness(options: ReadinessOptions): () => Promise<Readiness> {
  const { connections, events, membership, guardrail, flagSource, clock, startedAt } = options;
  const { own } = connections;
  return async function readiness() {
    const ofRecords = [...connections.ofRecords];
    await Promise.all([own, ...ofRecords].map(async (connection) => await connection.probe()));
    const unread = ofRecords.find(({ canRead }) => !canRead);
    // Until it was read no bearer can be judged. It is given up where Redis is away, and after a minute.
    const waitsForEvents = !events.wasRead && own.canRead && performance.now() - startedAt < EVENTS_START_MS;
    const ready = !unread && !waitsForEvents && !membership.hasSkipped;
    const mayUseRecords = ofRecords.every(({ canWrite }) => canWrite);
    const { state, canSign, problems } = membership.signing.report();
    return {
      ready,
      canIssue:
        ready &&
        own.canWrite &&
        mayUseRecords &&
        canSign &&
        membership.blocked.length === 0 &&
        !clock.inDoubt &&
        !clock.isUnchecked &&
        !guardrail.held,
      parts: {
        redis: own.state,
        records: unread?.state ?? 'up',
        signing: state,
        flags: flagSource.state,
        events: events.wasRead ? 'read' : 'unread',
      },
      problems: [
        ...problems,
        // Most of it stands among the problems of signing already, with what follows from it.
        ...membership.blocked.filter((why) => !problems.some((problem) => problem.startsWith(why))),
        ...connections.problems,
        ...(guardrail.held ? [describeInstanceHold(guardrail.held)] : []),
      ],
    };
  };
}
