import type { Clock } from '../clock.js';
import type { Claim } from '../redis/claim.js';
import type { RedisClient } from '../redis/client.js';
import type { Tools } from '../telemetry/tools.js';
import { type EndEvent, nameOfEnd, type PersonEnd } from './event.js';
import type { EventPublisher } from './event-publisher.js';

/** What the stream has lost and this instance knows: written again part by part, so that the stream goes on being read meanwhile. */
export interface LostEvents {
  /** Whether something is still to be written. */
  readonly isWriting: boolean;
  /** How long until the next part is due, in ms. */
  readonly dueInMs: number;
  /** All that is known is to be written again. */
  begin(): void;
  /** It is in the stream again, whichever instance wrote it. */
  heard(event: EndEvent): void;
  /** Writes a part, where one is due. Never rejects. */
  write(): Promise<void>;
  /** Resolves when nothing is left to be written. */
  done(): Promise<void>;
}

export interface LostEventsOptions extends Pick<Tools, 'log' | 'audit' | 'metrics'> {
  readonly client: RedisClient;
  readonly key: string;
  readonly publisher: EventPublisher;
  /** One instance writes at a time; what the others read of it they need not write. */
  readonly claim: Claim;
  /** What this instance knows and Redis may have lost. */
  readonly known: () => readonly EndEvent[];
  readonly lasting: { all(): readonly PersonEnd[]; store(some: readonly PersonEnd[]): Promise<void> };
  readonly clock: Clock;
}

const AGAIN_MS = 1000;
/** At most 2,000 events a second are written again, by 100 commands. */
const BATCH = 200;
const TOGETHER = 20;
const PAUSE_MS = 100;
const CLAIM_AGAIN_MS = 500;

export function createLostEvents(options: LostEventsOptions): LostEvents {
  const { client, key, publisher, claim, known, lasting, clock, log, audit, metrics } = options;
  let lost: Map<string, EndEvent> | undefined;
  /** The last of them that this instance has written. */
  let written: string | undefined;
  /** Of the ends that outlast the stream, those that are still to be written again; undefined: all that are known. */
  let unstored: readonly PersonEnd[] | undefined;
  const waiting = new Set<() => void>();
  let dueAt = 0;
  let isRefused = false;

  function begin(): void {
    lost = new Map(known().map((event) => [nameOfEnd(event), event]));
    unstored = undefined;
    written = undefined;
  }

  async function writePart(pending: Map<string, EndEvent>): Promise<void> {
    unstored ??= lasting.all();
    if (unstored.length > 0) {
      await Promise.all(inParts(unstored.slice(0, BATCH)).map(async (some) => await lasting.store(some)));
      unstored = unstored.slice(BATCH);
      return;
    }
    const batch = firstOf(pending, BATCH);
    const ids = await Promise.all(inParts(batch).map(async (some) => await publisher.publish(...some.map(([, event]) => event))));
    written = ids.at(-1) ?? written;
    metrics.eventsRestored.inc(batch.length);
    for (const [name] of batch) pending.delete(name);
    if (pending.size > 0) return;
    await claim.release('events');
    if (written !== undefined) audit('events.restored');
    lost = undefined;
    written = undefined;
    isRefused = false;
    for (const resolve of waiting) resolve();
    waiting.clear();
  }

  return {
    get isWriting() {
      return lost !== undefined;
    },
    get dueInMs() {
      return Math.max(1, dueAt - clock.now());
    },
    begin,
    async done() {
      if (lost) await new Promise<void>((resolve) => waiting.add(resolve));
    },
    heard: (event) => void lost?.delete(nameOfEnd(event)),

    async write() {
      if (!lost || clock.now() < dueAt) return;
      try {
        // Redis may have lost it once more in between: then all of it is to be written again.
        if (written !== undefined && (await client.xrange(key, written, written)).length === 0) begin();
        if (!(await claim.take('events'))) {
          dueAt = clock.now() + CLAIM_AGAIN_MS;
          return;
        }
        // By the plan, not from now: what took longer is made up for.
        dueAt = Math.max(dueAt, clock.now() - AGAIN_MS) + PAUSE_MS;
        await writePart(lost);
      } catch (error) {
        if (!isRefused) log.warn({ err: error }, 'what Redis has lost could not be written again; trying again');
        isRefused = true;
        dueAt = clock.now() + AGAIN_MS;
      }
    },
  };
}

/** Of very many only a few are looked at. */
function firstOf<K, V>(all: ReadonlyMap<K, V>, count: number): [K, V][] {
  const found: [K, V][] = [];
  for (const one of all) {
    if (found.length === count) break;
    found.push(one);
  }
  return found;
}

function inParts<T>(all: readonly T[]): readonly (readonly T[])[] {
  return Array.from({ length: Math.ceil(all.length / TOGETHER) }, (_, n) => all.slice(n * TOGETHER, (n + 1) * TOGETHER));
}
