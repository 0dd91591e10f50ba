import type { FleetView } from '../keys/agreement.js';
import type { FleetMember } from '../keys/rotation.js';
import type { RedisClient } from '../redis/connection.js';
import { parseJson } from '../redis/replies.js';
import { loadScript } from '../redis/script.js';
import { openSignedText, signText } from '../redis/signed-text.js';
import type { Audit } from '../telemetry/audit.js';
import type { Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';
import { type Announcement, announcementSchema } from './announcement.js';

/** How often an instance announces itself, and how long that counts. */
const HEARTBEAT_MS = 5000;
const GONE_MS = 15_000;

export interface FleetStoreOptions {
  readonly client: RedisClient;
  /** What all keys start with. */
  readonly prefix: string;
  readonly macKey: Buffer;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

/** The announcements of all instances in Redis. All methods reject with what ioredis rejects with. */
export interface FleetStore {
  write(announcement: Announcement): Promise<void>;
  /** Those that count, the longest alive first. */
  read(nowMs: number): Promise<readonly Announcement[]>;
  remove(instance: string): Promise<void>;
}

const announce = loadScript('announce', ['hash']);
const enroll = loadScript('enroll', ['zset']);

export function createFleetStore({ client, prefix, macKey, audit, metrics }: FleetStoreOptions): FleetStore {
  const index = `${prefix}fleet`;
  const keyOf = (instance: string) => `${index}:${instance}`;
  const refused = new Set<string>();

  function open(instance: string, signed: string | null, nowMs: number): Announcement | undefined {
    if (signed === null) return undefined;
    const text = openSignedText(macKey, `fleet\0${instance}`, signed);
    const found = text === undefined ? undefined : announcementSchema.safeParse(parseJson(text)).data;
    // What carries a MAC may still be an old one that somebody put back: a dead instance must not seem alive.
    if (found && found.instance === instance && Math.abs(nowMs - found.at) <= GONE_MS) return found;
    if (!refused.has(instance)) {
      refused.add(instance);
      metrics.refusedValues.inc({ key: 'fleet' });
      audit('value.refused', { key: 'fleet', reason: text === undefined ? 'bad-mac' : found ? 'replayed' : 'unknown-shape' });
    }
    return undefined;
  }

  return {
    async write(announcement) {
      const { instance, at } = announcement;
      await announce(client, [keyOf(instance)], [signText(macKey, `fleet\0${instance}`, JSON.stringify(announcement)), GONE_MS]);
      await enroll(client, [index], [instance, at, at - GONE_MS, GONE_MS]);
    },

    async read(nowMs) {
      // A key of another type is somebody else's, and gives way at the next announcement.
      const instances = await client.zrangebyscore(index, nowMs - GONE_MS, '+inf').catch(absentIfOfAnotherType<string[]>([]));
      const found = await Promise.all(
        instances.map(async (instance) =>
          open(instance, await client.hget(keyOf(instance), 'announcement').catch(absentIfOfAnotherType<string | null>(null)), nowMs),
        ),
      );
      return found.flatMap((one) => one ?? []).sort((one, other) => one.startedAt - other.startedAt);
    },

    async remove(instance) {
      await client.del(keyOf(instance));
      await client.zrem(index, instance);
    },
  };
}

function absentIfOfAnotherType<T>(absent: T): (error: unknown) => T {
  return (error) => {
    if (error instanceof Error && error.message.includes('WRONGTYPE')) return absent;
    throw error;
  };
}

export interface FleetOptions {
  readonly store: FleetStore;
  /** What this instance is, and stays for as long as it lives. */
  readonly self: Pick<Announcement, 'instance' | 'host' | 'version' | 'issuer' | 'audience' | 'fingerprint'>;
  /** What it is at the moment. */
  readonly describe: () => Omit<Announcement, keyof FleetOptions['self'] | 'startedAt' | 'at' | 'clockOffMs'>;
  /** The time by Redis' clock, in ms. */
  readonly fleetNowMs: () => Promise<number>;
  readonly nowMs: () => number;
  /** Called each time that it has announced itself and read who else is there. */
  readonly onBeat: () => void;
  readonly log: Log;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

/** The instances on one Redis: this one announces itself, and learns of the others. */
export interface Fleet {
  view(): FleetView;
  /** What the other instances have announced. */
  readonly others: readonly Announcement[];
  /** How many are alive, this one included. */
  readonly size: number;
  /** How far the clock here is ahead of that of Redis, in ms; undefined: Redis was not asked yet. */
  readonly clockOffMs: number | undefined;
  /** Reads who is there. Never rejects. */
  read(): Promise<void>;
  /** Announces itself from now on, once now. Never rejects. */
  start(): Promise<void>;
  /** Announces itself before its time, and learns of the others: at most once a second. */
  announce(): void;
  /** The same, at once, where its keys have changed. */
  announceChanges(): void;
  /** Takes its announcement back. Never rejects. */
  close(): Promise<void>;
}

const AT_ONCE_MS = 50;
const SOON_MS = 1000;

export function createFleet(options: FleetOptions): Fleet {
  const { store, self, describe, fleetNowMs, nowMs, onBeat, log, audit, metrics } = options;
  let others: readonly Announcement[] = [];
  let startedAt = nowMs();
  let clockOffMs: number | undefined;
  let away = false;
  let announced: string | undefined;
  let soon: NodeJS.Timeout | undefined;
  let interval: NodeJS.Timeout | undefined;
  let beating: Promise<void> = Promise.resolve();

  async function askTime(): Promise<number> {
    const before = nowMs();
    const now = await fleetNowMs();
    if (clockOffMs === undefined) startedAt = now;
    // The answer is from about the middle of the wait.
    clockOffMs = Math.round((before + nowMs()) / 2 - now);
    metrics.clockOffset.set(clockOffMs / 1000);
    return now;
  }

  async function readOthers(now: number): Promise<void> {
    const found = (await store.read(now)).filter(({ instance }) => instance !== self.instance);
    for (const one of found) {
      if (!others.some(({ instance }) => instance === one.instance)) audit('fleet.joined', { instance: one.instance, host: one.host });
    }
    for (const one of others) {
      if (!found.some(({ instance }) => instance === one.instance)) audit('fleet.left', { instance: one.instance, host: one.host });
    }
    others = found;
    metrics.fleetInstances.set(found.length + 1);
  }

  async function beat(): Promise<void> {
    try {
      const at = await askTime();
      const state = describe();
      announced = essenceOf(state);
      await store.write({ ...self, ...state, startedAt, at, clockOffMs: clockOffMs ?? 0 });
      await readOthers(at);
      away = false;
      onBeat();
    } catch (error) {
      if (!away) log.warn({ err: error }, 'this instance cannot announce itself to the fleet; trying again');
      away = true;
    }
  }

  function beatNext(): Promise<void> {
    beating = beating.then(beat);
    return beating;
  }

  function beatIn(ms: number): void {
    if (!interval) return;
    soon ??= setTimeout(() => {
      soon = undefined;
      void beatNext();
    }, ms).unref();
  }

  return {
    view: () => ({ self: toMember({ ...self, startedAt, verifies: describe().verifies }), others: others.map(toMember) }),
    get others() {
      return others;
    },
    get size() {
      return others.length + 1;
    },
    get clockOffMs() {
      return clockOffMs;
    },
    async read() {
      await askTime()
        .then(readOthers)
        .catch(() => undefined); // The first announcement tells of it.
    },
    async start() {
      interval = setInterval(() => void beatNext(), HEARTBEAT_MS);
      interval.unref();
      await beatNext();
    },
    announce: () => beatIn(SOON_MS),
    announceChanges() {
      if (essenceOf(describe()) !== announced) beatIn(AT_ONCE_MS);
    },
    async close() {
      clearInterval(interval);
      clearTimeout(soon);
      await beating;
      await store.remove(self.instance).catch(() => undefined); // It is gone by itself a little later.
    },
  };
}

function toMember({ instance, host, startedAt, issuer, audience, verifies }: FleetMember): FleetMember {
  return { instance, host, startedAt, issuer, audience, verifies };
}

/** What of this instance the others should hear of at once. */
function essenceOf({ verifies, signs, signing, problems }: Pick<Announcement, 'verifies' | 'signs' | 'signing' | 'problems'>): string {
  return JSON.stringify([verifies, signs, signing, problems]);
}
