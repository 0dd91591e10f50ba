import type { Clock } from '../clock.js';
import type { Belonging } from '../redis/belonging.js';
import type { Claim } from '../redis/claim.js';
import type { RedisClient } from '../redis/client.js';
import type { RedisConnection } from '../redis/connection.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { isWrongType, loadScript } from '../redis/script.js';
import type { Tools } from '../telemetry/tools.js';
import { type BridgeEvent, type EndEvent, EVENT_CONTEXT, type News, type PersonEnd, readEvent } from './event.js';
import { AHEAD_MS, type EventPublisher } from './event-publisher.js';
import { createLostEvents } from './lost-events.js';

/** Follows the stream by which instances tell each other what has ended. */
export interface EventStream {
  /** Calls back where a signed value is to be read again; `wasLost` where Redis came back without what it had. */
  onNews(listener: (about: News, wasLost: boolean) => void): void;
  /** Calls back where Redis came back without what the stream had. */
  onLoss(listener: () => void): void;
  /** Reads what is there and follows from then on, for as long as the process lives; an outage of Redis ends nothing. */
  follow(): void;
  /** Writes all that this instance knows to the stream, as it does where Redis has lost it; resolves when all of it is there. */
  writeAgain(): Promise<void>;
  /** Whether the stream was read whole since the start: before, nothing is known about revocations. */
  readonly wasRead: boolean;
  /** When it was last heard, by the clock here; undefined: never. */
  readonly readAt: number | undefined;
  /** Resolves when it was read, or after `timeoutMs`. Never rejects. */
  read(timeoutMs: number): Promise<void>;
  close(): void;
}

export interface EventStreamOptions extends Pick<Tools, 'log' | 'audit' | 'metrics'> {
  /** For what answers at once. */
  readonly client: RedisClient;
  /** Of its own: a blocking read holds it. Its command timeout must be longer than `blockMs`. */
  readonly follower: RedisConnection;
  readonly key: string;
  readonly publisher: EventPublisher;
  /** To write again what Redis has lost. */
  readonly claim: Claim;
  readonly secrets: Pick<FleetSecrets, 'openSigned' | 'isDenied' | 'isUnknown' | 'opens'>;
  readonly belonging: Pick<Belonging, 'isUnheard' | 'isInTouch'>;
  /** How long an event matters: longer than any access token lives. */
  readonly keepMs: number;
  readonly blockMs: number;
  /** Called for each event that counts, in order. */
  readonly hear: (event: EndEvent) => void;
  /** What this instance knows and Redis may have lost: asked for when the stream is not what it was. */
  readonly known: () => readonly EndEvent[];
  /** What is read before the stream counts as read, and written again with it: ends that outlast the stream. */
  readonly lasting: {
    /** False: some of it stands under a secret that is not here. */
    load(): Promise<boolean>;
    isWhole(): Promise<boolean>;
    all(): readonly PersonEnd[];
    store(some: readonly PersonEnd[]): Promise<void>;
  };
  readonly clock: Clock;
}

const PAGE = 1000;
const RETRY_MS = 250;

const timeOf = loadScript('time');

/**
 * Redis keeps the stream, but is not trusted with it (law 10): each event carries a MAC, and one that fails the check counts as absent.
 */
export function createEventStream(options: EventStreamOptions): EventStream {
  const { client, follower, key, secrets, belonging, keepMs, blockMs, hear, lasting, clock, log, audit, metrics } = options;
  const lost = createLostEvents(options);
  const newsListeners: ((about: News, wasLost: boolean) => void)[] = [];
  const lossListeners: (() => void)[] = [];
  let closed = false;
  let wasRead = false;
  let readAt: number | undefined;
  let position = '0-0';
  let newest: string | undefined;
  let away = false;
  /**
   * An event that stands under a secret which is not here, and the secrets that there were then: it may have ended something. `inTouch`:
   * whether it was known since who else is there. Until then this instance may have slept while the fleet went on.
   */
  let unopened: { readonly id: string; readonly opens: string; inTouch: boolean } | undefined;
  /** What was skipped is being read once more, with another secret. */
  let isRereading = false;
  const waiting = new Set<() => void>();

  function applyEntry(id: string, fields: readonly string[]): void {
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
      if (event === 'unknown-secret') noteUnopened(id);
      metrics.refusedValues.inc({ key: 'events' });
      audit('value.refused', { key: 'events', reason: event === 'unknown-secret' ? 'bad-mac' : event });
      return;
    }
    newest = id;
    metrics.eventLag.observe(Math.max(0, (clock.now() - atMs) / 1000));
    if (event.type === 'news') {
      for (const listener of newsListeners) listener(event.about, false);
      return;
    }
    lost.heard(event);
    hear(event);
  }

  function noteUnopened(id: string): void {
    unopened = { id, opens: unopened?.opens ?? secrets.opens.join(), inTouch: belonging.isInTouch() };
  }

  /** What is read before the stream, and outlasts it. */
  async function loadLasting(): Promise<void> {
    if (!(await lasting.load())) noteUnopened(`${clock.now()}-0`);
  }

  /** The event, or why it counts as absent. */
  function open(signed = '', atMs: number): BridgeEvent | 'bad-mac' | 'unknown-secret' | 'unknown-shape' | 'replayed' | 'later' | 'denied' {
    const text = secrets.openSigned(EVENT_CONTEXT, signed);
    if (text === undefined) {
      if (secrets.isDenied(signed)) return 'denied';
      return secrets.isUnknown(signed) ? 'unknown-secret' : 'bad-mac';
    }
    const event = readEvent(text);
    if (typeof event === 'string') return event;
    // The id is Redis' word, and carries no MAC: it cannot make an event older than it is.
    const happenedAt = event.type === 'news' ? event.at : event.endedAt;
    return Math.min(atMs, clock.now()) - happenedAt > keepMs ? 'replayed' : event;
  }

  /** Everything from `position` on. */
  async function readOn(): Promise<void> {
    for (;;) {
      const page = await follower.client.xrange(key, `(${position}`, '+', 'COUNT', PAGE).catch(removeStranger);
      for (const [id, fields] of page) applyEntry(id, fields);
      if (page.length < PAGE) return;
    }
  }

  /** Whether the fleet has gone on to a secret that is not here, or came a moment ago: then what it has ended is not known here. */
  function isBehind(): boolean {
    if (isRereading) return true;
    if (!unopened || clock.now() - Number(unopened.id.split('-')[0]) > keepMs) return false;
    unopened.inTouch ||= belonging.isInTouch();
    return unopened.opens !== secrets.opens.join() || !unopened.inTouch || belonging.isUnheard();
  }

  /** With another secret what was skipped may open. */
  async function readSkippedAgain(): Promise<void> {
    const mayOpen = unopened !== undefined && unopened.opens !== secrets.opens.join();
    if (!mayOpen && !isRereading) return;
    isRereading = true;
    unopened = undefined;
    await loadLasting();
    position = '0-0';
    await readOn();
    isRereading = false;
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
    return lost.isWriting || ((await isWhole()) && (await lasting.isWhole()));
  }

  /** All that this instance knows has to be written again, and the stream to be read anew. */
  function noteLoss(): void {
    lost.begin();
    position = '0-0';
    newest = undefined;
    for (const listener of newsListeners) for (const about of ['keys', 'clamps'] as const) listener(about, true);
    for (const listener of lossListeners) listener();
  }

  /** An id that lies ahead would hold all that come after it ahead as well, and keep the stream from ever being trimmed. */
  async function refuseIdsAhead(): Promise<void> {
    if (!wasRead || Number(position.split('-')[0]) < clock.now() + AHEAD_MS) return;
    const now = Number(await timeOf(client, [key], []));
    if (Number(position.split('-')[0]) < now + AHEAD_MS) return;
    metrics.refusedValues.inc({ key: 'events' });
    audit('value.refused', { key: 'events', reason: 'id-ahead' });
    await client.del(key);
    unopened = undefined;
    noteLoss();
  }

  async function readOnce(): Promise<void> {
    if (!wasRead) {
      await loadLasting();
      await readOn();
      wasRead = true;
      for (const resolve of waiting) resolve();
    }
    await readSkippedAgain();
    await refuseIdsAhead();
    if (!(await isAllThere())) noteLoss();
    await lost.write();
    readAt = clock.now();
    metrics.eventsReadAt.set(readAt / 1000);
    const found = await follower.client.xread('COUNT', PAGE, 'BLOCK', lost.isWriting ? lost.dueInMs : blockMs, 'STREAMS', key, position);
    const entries = found?.[0]?.[1] ?? [];
    // Looked at before what is new takes the place of what was there; noted after it, since it may be lost with the rest.
    const complete = entries.length === 0 || (await isAllThere());
    for (const [id, fields] of entries) applyEntry(id, fields);
    if (!complete) noteLoss();
  }

  async function run(): Promise<void> {
    while (!closed) {
      try {
        await readOnce();
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
    onNews: (listener) => void newsListeners.push(listener),
    onLoss: (listener) => void lossListeners.push(listener),
    async writeAgain() {
      lost.begin();
      await lost.done();
    },
    follow: () => void run(),
    get wasRead() {
      return wasRead && !isBehind();
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
