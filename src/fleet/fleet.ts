import type { RedisClock } from '../clock.js';
import type { FleetView } from '../keys/agreement.js';
import type { FleetMember } from '../keys/rotation.js';
import type { Tools } from '../telemetry/tools.js';
import type { Announcement } from './announcement.js';
import { type FleetStore, GONE_MS } from './store.js';

/** How often an instance announces itself. */
const HEARTBEAT_MS = 5000;

export interface FleetOptions extends Pick<Tools, 'log' | 'audit' | 'metrics'> {
  readonly store: FleetStore;
  /** What this instance is, and stays for as long as it lives. */
  readonly self: Pick<Announcement, 'instance' | 'host' | 'version' | 'issuer' | 'audience' | 'targets' | 'reads'>;
  /** What decides about keys, as it is at the moment. `others`: who else is there. */
  readonly keys: (others: readonly Announcement[]) => Pick<Announcement, 'keys' | 'verifies' | 'signs' | 'accepts'>;
  /** What the others should hear of at once where it changes. `strangers`: how many instances here have another fleet secret. */
  readonly state: (
    strangers: number,
  ) => Pick<
    Announcement,
    'signing' | 'problems' | 'clamps' | 'endedSecrets' | 'unknownCohorts' | 'opens' | 'writes' | 'denied' | 'fingerprint' | 'settings'
  >;
  /** The time by Redis' clock, in ms. */
  readonly fleetNowMs: () => Promise<number>;
  readonly nowMs: () => number;
  /** Is told how far the clock here is ahead of that of Redis. */
  readonly redisClock: RedisClock;
}

/** What an instance says of itself beside keys, as it is at the moment. */
export type Describe = () => Pick<Announcement, 'flags' | 'eventsReadAt' | 'cohorts' | 'windows' | 'held' | 'lately'>;

/** The instances on one Redis: this one announces itself, and learns of the others. */
export interface Fleet {
  view(): FleetView;
  /** What the other instances have announced. */
  readonly others: readonly Announcement[];
  /** How many are alive, this one included. */
  readonly size: number;
  /** How many instances on these keys have another fleet secret. */
  readonly strangers: number;
  /** When this instance started, by Redis' clock, in ms. */
  readonly startedAt: number;
  /** How far the clock here is ahead of that of Redis, in ms; undefined: Redis was not asked yet. */
  readonly clockOffMs: number | undefined;
  /** Asks Redis for the time. Rejects with what ioredis rejects with. */
  measure(): Promise<void>;
  /** Reads who is there. Never rejects. */
  read(): Promise<void>;
  /** Calls back each time that it has announced itself and read who else is there. */
  onBeat(listener: () => void): void;
  /** Announces itself from now on, once now. `describe`: what it says beside keys. Never rejects. */
  start(describe: Describe): Promise<void>;
  /** Announces itself before its time, and learns of the others: at most once a second. */
  announce(): void;
  /** The same, at once, where its keys or clamps have changed. */
  announceChanges(): void;
  /** Asks the other instances by `ask` to announce themselves, and waits for that, 3 s at most. False: Redis is away. Never rejects. */
  hearOthers(ask: () => Promise<void>): Promise<boolean>;
  /** Says that it ends. Never rejects. */
  close(): Promise<void>;
}

const AT_ONCE_MS = 50;
const SOON_MS = 1000;
/** Longer than it takes an instance to announce itself before its time. */
const HEAR_MS = 3000;
const HEAR_AGAIN_MS = 100;

export function createFleet(options: FleetOptions): Fleet {
  const { store, self, keys, state, fleetNowMs, nowMs, redisClock, log, audit, metrics } = options;
  let others: readonly Announcement[] = [];
  let strangers = 0;
  let startedAt = nowMs();
  const listeners: (() => void)[] = [];
  let away = false;
  let announced: string | undefined;
  let latest: Announcement | undefined;
  let soon: { readonly at: number; readonly timer: NodeJS.Timeout } | undefined;
  let interval: NodeJS.Timeout | undefined;
  let beatenAt = Number.NEGATIVE_INFINITY;
  /** From the start on, until it ends. */
  let told: Describe | undefined;
  let beating: Promise<void> = Promise.resolve();

  async function askTime(): Promise<number> {
    const before = nowMs();
    const now = await fleetNowMs();
    if (redisClock.offMs === undefined) startedAt = now;
    // The answer is from about the middle of the wait.
    const offMs = Math.round((before + nowMs()) / 2 - now);
    redisClock.measured(offMs);
    metrics.clockOffset.set(offMs / 1000);
    return now;
  }

  async function readOthers(now: number): Promise<void> {
    const reading = await store.read(now);
    const heard = reading.live.filter(({ instance }) => instance !== self.instance);
    // Redis may have lost the list: whoever was heard of a moment ago, and did not say that it ends, counts all the same.
    const silent = others.filter(
      ({ instance, at }) => Math.abs(now - at) <= GONE_MS && !reading.left.includes(instance) && !heard.some((one) => one.instance === instance),
    );
    const found = [...heard, ...silent].sort((one, other) => one.startedAt - other.startedAt);
    strangers = reading.strangers;
    for (const one of found) {
      if (!others.some(({ instance }) => instance === one.instance)) audit('fleet.joined', { instance: one.instance, host: one.host });
    }
    for (const one of others) {
      if (!found.some(({ instance }) => instance === one.instance)) audit('fleet.left', { instance: one.instance, host: one.host });
    }
    others = found;
    metrics.fleetInstances.set(found.length + 1);
  }

  async function beat(describe: Describe): Promise<void> {
    beatenAt = nowMs();
    try {
      const at = await askTime();
      const said = { ...keys(others), ...state(strangers) };
      announced = JSON.stringify(said);
      latest = { ...self, ...said, ...describe(), startedAt, at, clockOffMs: redisClock.offMs ?? 0, left: false };
      await store.write(latest);
      await readOthers(at);
      away = false;
      for (const listener of listeners) listener();
    } catch (error) {
      if (!away) log.warn({ err: error }, 'this instance cannot announce itself to the fleet; trying again');
      away = true;
    }
  }

  function beatNext(describe: Describe): Promise<void> {
    beating = beating.then(async () => await beat(describe));
    return beating;
  }

  function beatIn(ms: number): void {
    const at = nowMs() + ms;
    if (!told || (soon && soon.at <= at)) return;
    const describe = told;
    clearTimeout(soon?.timer);
    const timer = setTimeout(() => {
      soon = undefined;
      void beatNext(describe);
    }, ms).unref();
    soon = { at, timer };
  }

  return {
    view: () => ({ self: toMember({ ...self, startedAt, clockOffMs: redisClock.offMs ?? 0, ...keys(others) }), others: others.map(toMember) }),
    get others() {
      return others;
    },
    get strangers() {
      return strangers;
    },
    get size() {
      return others.length + 1;
    },
    get startedAt() {
      return startedAt;
    },
    get clockOffMs() {
      return redisClock.offMs;
    },
    async measure() {
      await askTime();
    },
    async read() {
      await askTime()
        .then(readOthers)
        .catch(() => undefined); // The first announcement tells of it.
    },
    onBeat: (listener) => void listeners.push(listener),
    async start(describe) {
      told = describe;
      interval = setInterval(() => void beatNext(describe), HEARTBEAT_MS);
      interval.unref();
      await beatNext(describe);
    },
    announce: () => beatIn(Math.max(AT_ONCE_MS, beatenAt + SOON_MS - nowMs())),
    announceChanges() {
      if (JSON.stringify({ ...keys(others), ...state(strangers) }) !== announced) beatIn(AT_ONCE_MS);
    },
    async hearOthers(ask) {
      try {
        const askedAt = await fleetNowMs();
        await ask();
        for (const end = performance.now() + HEAR_MS; performance.now() < end; ) {
          await readOthers(await fleetNowMs());
          if (others.every(({ at }) => at >= askedAt)) break;
          await new Promise((resolve) => setTimeout(resolve, HEAR_AGAIN_MS));
        }
        return true;
      } catch {
        return false;
      }
    },
    async close() {
      clearInterval(interval);
      told = undefined;
      clearTimeout(soon?.timer);
      await beating;
      // It is gone by itself a little later.
      if (latest) await store.write({ ...latest, left: true }).catch(() => undefined);
    },
  };
}

/** What of an announcement decides about keys. */
export function toMember({ keys, ...one }: Omit<FleetMember, 'hasKeys'> & Pick<Announcement, 'keys'>): FleetMember {
  const { instance, host, startedAt, issuer, audience, verifies, signs, accepts, clockOffMs } = one;
  return { instance, host, startedAt, issuer, audience, verifies, signs, accepts, clockOffMs, hasKeys: keys.length > 0 };
}
