import { z } from 'zod';
import type { Claim } from '../redis/claim.js';
import type { RedisClient } from '../redis/client.js';
import type { RedisConnection } from '../redis/connection.js';
import type { Seals } from '../redis/fleet-secrets.js';
import { parseJson } from '../redis/replies.js';
import { isWrongType, loadScript } from '../redis/script.js';
import type { Tools } from '../telemetry/tools.js';

const time = z.int().nonnegative();

/** What instances tell each other. Times are Redis' own, in ms, unless a name says otherwise. */
const eventSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('session.ended'),
    sid: z.string(),
    subject: z.string(),
    tenant: z.string().optional(),
    /** Login of the session that ended, in ms by the legacy app's clock. */
    authTimeMs: time.optional(),
    endedAt: time,
    /** Its record could not be found: an instance that knows where it is deletes it. */
    unfinished: z.boolean().optional(),
  }),
  z.object({ type: z.literal('family.ended'), sid: z.string(), family: z.string(), endedAt: time }),
  z.object({
    type: z.literal('subject.ended'),
    subject: z.string(),
    endedAt: time,
    /** Compared with the time of a login, which is the legacy app's. */
    notBefore: time,
    exceptSid: z.string().optional(),
  }),
  // A signed value has changed: everybody reads it again.
  z.object({ type: z.literal('news'), about: z.enum(['keys', 'clamps']), at: time }),
]);

export type News = Extract<BridgeEvent, { type: 'news' }>['about'];
/** Something has ended: what is revoked by it must hold on every instance. */
export type PersonEnd = Extract<BridgeEvent, { type: 'subject.ended' }>;
export type EndEvent = Exclude<BridgeEvent, { type: 'news' }>;
export type BridgeEvent = z.output<typeof eventSchema>;

export interface EventStream {
  /** Adds an event; whoever follows has it within moments. Rejects with what ioredis rejects with. */
  publish(event: EndEvent): Promise<void>;
  /** Has every instance read a signed value again. Rejects with what ioredis rejects with. */
  tell(about: News): Promise<void>;
  /** Reads what is there and follows from then on, for as long as the process lives; an outage of Redis ends nothing. */
  follow(): void;
  /** Writes all that this instance knows to the stream, as it does where Redis has lost it. */
  writeAgain(): void;
  /** Whether the stream was read whole since the start: before, nothing is known about revocations. */
  readonly wasRead: boolean;
  /** When it was last heard, by the clock here; undefined: never. */
  readonly readAt: number | undefined;
  /** Resolves when it was read, or after `timeoutMs`. Never rejects. */
  read(timeoutMs: number): Promise<void>;
  close(): void;
}

export interface EventStreamOptions extends Pick<Tools, 'clock' | 'log' | 'audit' | 'metrics'> {
  /** For what answers at once. */
  readonly client: RedisClient;
  /** Of its own: a blocking read holds it. Its command timeout must be longer than `blockMs`. */
  readonly follower: RedisConnection;
  readonly key: string;
  /** To write again what Redis has lost. */
  readonly claim: Claim;
  readonly secrets: Pick<Seals, 'sign' | 'openSigned' | 'isDenied'>;
  /** How long an event matters: longer than any access token lives. */
  readonly keepMs: number;
  readonly blockMs: number;
  /** Called for each event that counts, in order. */
  readonly apply: (event: EndEvent) => void;
  /** Called where a signed value is to be read again; `wasLost` where Redis came back without what it had. */
  readonly onNews: (about: News, wasLost?: boolean) => void;
  /** Called where Redis came back without what the stream had. */
  readonly onLoss: () => void;
  /** What this instance knows and Redis may have lost: asked for when the stream is not what it was. */
  readonly known: () => readonly EndEvent[];
  /** What is read before the stream counts as read, and written again with it: ends that outlast the stream. */
  readonly lasting: {
    load(): Promise<void>;
    isWhole(): Promise<boolean>;
    all(): readonly PersonEnd[];
    store(some: readonly PersonEnd[]): Promise<void>;
  };
}

/** What the MAC of an event is bound to. */
export const EVENT_CONTEXT = 'event';
const PAGE = 1000;
const RETRY_MS = 250;
const RESTORE_AGAIN_MS = 1000;
/** At most 2,000 events a second are written again, by 200 commands. */
const RESTORE_BATCH = 200;
const RESTORE_TOGETHER = 10;
const RESTORE_PAUSE_MS = 100;
const CLAIM_AGAIN_MS = 500;
/** An id this far ahead of Redis' clock was not made by it. */
const AHEAD_MS = 60_000;

const publishEvent = loadScript('publish-event', ['stream']);
const timeOf = loadScript('time');

/**
 * The stream by which instances tell each other what has ended. Redis keeps it, but is not trusted with it (law 10): each
 * event carries a MAC, and one that fails the check counts as absent.
 */
export function createEventStream(options: EventStreamOptions): EventStream {
  const { client, follower, key, secrets, keepMs, blockMs, apply, onNews, onLoss, known, lasting, claim, clock, log, audit, metrics } = options;
  let closed = false;
  let wasRead = false;
  let readAt: number | undefined;
  let position = '0-0';
  let newest: string | undefined;
  /** What this instance knows and Redis has lost, until it is written again. */
  let lost: Map<string, EndEvent> | undefined;
  /** The last of them that this instance has written. */
  let written: string | undefined;
  /** Of the ends that outlast the stream, those that are still to be written again; undefined: all that are known. */
  let unstored: readonly PersonEnd[] | undefined;
  let restoreAt = 0;
  let restoreRefused = false;
  let away = false;
  const waiting = new Set<() => void>();

  /** Gives the id of the last. Redis keeps them a little longer than anybody asks for them: clocks differ. */
  async function publish(...events: readonly BridgeEvent[]): Promise<string> {
    const signed = events.map((event) => secrets.sign(EVENT_CONTEXT, JSON.stringify(event)));
    return String(await publishEvent(client, [key], [keepMs + AHEAD_MS, ...signed]));
  }

  function take(id: string, fields: readonly string[]): void {
    position = id;
    const atMs = Number(id.split('-')[0]);
    const event = open(fields[fields.indexOf('event') + 1], atMs);
    if (event === 'later') {
      log.info({ id }, 'an event of a later release was skipped');
      newest = id;
      return;
    }
    if (event === 'denied') return;
    if (typeof event === 'string') {
      metrics.refusedValues.inc({ key: 'events' });
      audit('value.refused', { key: 'events', reason: event });
      return;
    }
    newest = id;
    metrics.eventLag.observe(Math.max(0, (clock.now() - atMs) / 1000));
    if (event.type === 'news') {
      onNews(event.about);
      return;
    }
    // It is in the stream again, whichever instance wrote it.
    lost?.delete(nameOf(event));
    apply(event);
  }

  /** The event, or why it counts as absent. */
  function open(signed: string | undefined, atMs: number): BridgeEvent | 'bad-mac' | 'unknown-shape' | 'replayed' | 'later' | 'denied' {
    const text = signed === undefined ? undefined : secrets.openSigned(EVENT_CONTEXT, signed);
    if (text === undefined) return signed !== undefined && secrets.isDenied(signed) ? 'denied' : 'bad-mac';
    const found = parseJson(text);
    const event = eventSchema.safeParse(found);
    // A later release publishes a new kind of end in the known kinds as well.
    if (!event.success) return isOfKnownType(found) ? 'unknown-shape' : 'later';
    // The id is Redis' word, and carries no MAC: it cannot make an event older than it is.
    const happenedAt = event.data.type === 'news' ? event.data.at : event.data.endedAt;
    return Math.min(atMs, clock.now()) - happenedAt > keepMs ? 'replayed' : event.data;
  }

  /** Everything from `position` on. */
  async function readOn(): Promise<void> {
    for (;;) {
      const page = await follower.client.xrange(key, `(${position}`, '+', 'COUNT', PAGE).catch(removeStranger);
      for (const [id, fields] of page) take(id, fields);
      if (page.length < PAGE) return;
    }
  }

  /** A key of another type is somebody else's: it counts as absent, and gives way. */
  async function removeStranger(error: unknown): Promise<[string, string[]][]> {
    if (!isWrongType(error)) throw error;
    metrics.refusedValues.inc({ key: 'events' });
    audit('value.refused', { key: 'events', reason: 'wrong-type' });
    await client.del(key);
    return [];
  }

  /** Whether Redis still has what this instance has read: it may have been restarted, flushed or replaced. */
  async function isWhole(): Promise<boolean> {
    if (newest === undefined || clock.now() - Number(newest.split('-')[0]) > keepMs) return true;
    return (await follower.client.xrange(key, newest, newest).catch(removeStranger)).length > 0;
  }

  async function isAllThere(): Promise<boolean> {
    return lost !== undefined || ((await isWhole()) && (await lasting.isWhole()));
  }

  /** All that this instance knows has to be written again, and the stream to be read anew. */
  function noteLoss(): void {
    lost = nameAll(known());
    written = undefined;
    unstored = undefined;
    position = '0-0';
    newest = undefined;
    onNews('keys', true);
    onNews('clamps', true);
    onLoss();
  }

  /**
   * A part of what is lost: so the stream goes on being read meanwhile. One instance writes at a time; what the others read of it they need
   * not write.
   */
  async function restore(): Promise<void> {
    if (!lost || clock.now() < restoreAt) return;
    try {
      // Redis may have lost it once more in between: then all of it is to be written again.
      if (written !== undefined && (await client.xrange(key, written, written)).length === 0) {
        lost = nameAll(known());
        unstored = undefined;
      }
      if (!(await claim.take('events'))) {
        restoreAt = clock.now() + CLAIM_AGAIN_MS;
        return;
      }
      // By the plan, not from now: what took longer is made up for.
      restoreAt = Math.max(restoreAt, clock.now() - RESTORE_AGAIN_MS) + RESTORE_PAUSE_MS;
      unstored ??= lasting.all();
      if (unstored.length > 0) {
        await Promise.all(inParts(unstored.slice(0, RESTORE_BATCH)).map(async (some) => await lasting.store(some)));
        unstored = unstored.slice(RESTORE_BATCH);
        return;
      }
      const batch = firstOf(lost, RESTORE_BATCH);
      const ids = await Promise.all(inParts(batch).map(async (some) => await publish(...some.map(([, event]) => event))));
      written = ids.at(-1) ?? written;
      metrics.eventsRestored.inc(batch.length);
      for (const [name] of batch) lost.delete(name);
      if (lost.size > 0) return;
      await claim.release('events');
      if (written !== undefined) audit('events.restored');
      lost = undefined;
      written = undefined;
      restoreRefused = false;
    } catch (error) {
      if (!restoreRefused) log.warn({ err: error }, 'what Redis has lost could not be written again; trying again');
      restoreRefused = true;
      restoreAt = clock.now() + RESTORE_AGAIN_MS;
    }
  }

  /** An id that lies ahead would hold all that come after it ahead as well, and keep the stream from ever being trimmed. */
  async function refuseIdsAhead(): Promise<void> {
    if (!wasRead || Number(position.split('-')[0]) < clock.now() + AHEAD_MS) return;
    const now = Number(await timeOf(client, [key], []));
    if (Number(position.split('-')[0]) < now + AHEAD_MS) return;
    metrics.refusedValues.inc({ key: 'events' });
    audit('value.refused', { key: 'events', reason: 'id-ahead' });
    await client.del(key);
    noteLoss();
  }

  async function turn(): Promise<void> {
    if (!wasRead) {
      await lasting.load();
      await readOn();
      wasRead = true;
      for (const resolve of waiting) resolve();
    }
    await refuseIdsAhead();
    if (!(await isAllThere())) noteLoss();
    await restore();
    readAt = clock.now();
    metrics.eventsReadAt.set(readAt / 1000);
    const found = await follower.client.xread(
      'COUNT',
      PAGE,
      'BLOCK',
      lost ? Math.max(1, restoreAt - clock.now()) : blockMs,
      'STREAMS',
      key,
      position,
    );
    const entries = found?.[0]?.[1] ?? [];
    // Looked at before what is new takes the place of what was there; noted after it, since it may be lost with the rest.
    const complete = entries.length === 0 || (await isAllThere());
    for (const [id, fields] of entries) take(id, fields);
    if (!complete) noteLoss();
  }

  async function run(): Promise<void> {
    while (!closed) {
      try {
        await turn();
        if (away) log.info('the event stream is followed again');
        away = false;
      } catch (error) {
        if (closed) return;
        if (!away) log.warn({ err: error }, 'the event stream cannot be read; revocations by others arrive late');
        away = true;
        await follower.ready(RETRY_MS);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  return {
    async publish(event) {
      await publish(event);
    },
    async tell(about) {
      await publish({ type: 'news', about, at: Number(await timeOf(client, [key], [])) });
    },
    writeAgain() {
      lost = nameAll(known());
      written = undefined;
      unstored = undefined;
    },
    follow: () => void run(),
    get wasRead() {
      return wasRead;
    },
    get readAt() {
      return readAt;
    },
    async read(timeoutMs) {
      if (wasRead) return;
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        waiting.add(resolve);
        timer = setTimeout(resolve, timeoutMs);
      });
      clearTimeout(timer);
    },
    close() {
      closed = true;
      follower.close();
    },
  };
}

function isOfKnownType(found: unknown): boolean {
  const { type, about } = z.looseObject({ type: z.unknown(), about: z.unknown() }).safeParse(found).data ?? {};
  return eventSchema.options.some(({ shape }) => shape.type.value === type) && (type !== 'news' || about === 'keys' || about === 'clamps');
}

function inParts<T>(all: readonly T[]): readonly (readonly T[])[] {
  return Array.from({ length: Math.ceil(all.length / RESTORE_TOGETHER) }, (_, n) => all.slice(n * RESTORE_TOGETHER, (n + 1) * RESTORE_TOGETHER));
}

function firstOf<K, V>(all: ReadonlyMap<K, V>, count: number): [K, V][] {
  const found: [K, V][] = [];
  for (const one of all) {
    if (found.length === count) break;
    found.push(one);
  }
  return found;
}

function nameAll(events: readonly EndEvent[]): Map<string, EndEvent> {
  return new Map(events.map((event) => [nameOf(event), event]));
}

/** The same for an event that was written again. */
function nameOf(event: EndEvent): string {
  const of =
    event.type === 'subject.ended'
      ? `${event.subject} ${event.exceptSid}`
      : event.type === 'family.ended'
        ? event.family
        : `${event.sid} ${event.subject}`;
  return `${event.type} ${event.endedAt} ${of}`;
}
