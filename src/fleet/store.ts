import { LRUCache } from 'lru-cache';
import { z } from 'zod';
import type { RedisClient } from '../redis/client.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { parseJson } from '../redis/replies.js';
import { absentIfForeign, loadScript } from '../redis/script.js';
import type { Tools } from '../telemetry/tools.js';
import { type Announcement, announcementSchema } from './announcement.js';

/** How long an announcement counts. */
export const GONE_MS = 15_000;

export interface FleetStoreOptions extends Pick<Tools, 'audit' | 'metrics'> {
  readonly client: RedisClient;
  /** What all keys start with. */
  readonly prefix: string;
  readonly secrets: Pick<FleetSecrets, 'sign' | 'openSigned' | 'secretOf'>;
  /** The one that asks. Absent: a command. */
  readonly instance?: string | undefined;
}

/** The announcements of all instances in Redis. All methods reject with what ioredis rejects with. */
export interface FleetStore {
  /** Lets an instance go on that is held. */
  release(instance: string, release: Release): Promise<void>;
  /** What an operator last released, and why; undefined: nothing. */
  readRelease(instance: string): Promise<Release | undefined>;
  write(announcement: Announcement): Promise<void>;
  read(nowMs: number): Promise<FleetReading>;
  /** Whether the last reading, a moment ago, found this fleet here, or nobody: no strangers without anybody who is known. */
  readonly isHere: boolean;
  /** Whether it found no strangers. */
  readonly isAlone: boolean;
  /** Whether the last reading says something still. */
  readonly isInTouch: boolean;
  /** Whether it found another instance of this fleet. */
  readonly hasOthers: boolean;
  /** Whether it found more strangers than other instances of this fleet. */
  readonly isOutnumbered: boolean;
  readonly strangers: number;
}

/** `heldAt`: of the hold that is released, as the instance has announced it. */
const releaseSchema = z.object({ heldAt: z.number(), why: z.string() });
export type Release = z.output<typeof releaseSchema>;

/** How long a release is kept: the instance looks every few seconds. */
const RELEASE_KEEP_MS = 600_000;

export interface FleetReading {
  /** Those that count, the longest alive first. */
  readonly live: readonly Announcement[];
  /** Ids of those that have said that they end. */
  readonly left: readonly string[];
  /** The secret that each of the live announced itself under. */
  readonly under: ReadonlyMap<string, string>;
  /** How many carry another MAC: an instance with another fleet secret, or somebody else's hand. */
  readonly strangers: number;
}

/** After this a reading says nothing: this instance may have been stopped meanwhile. */
const FRESH_MS = 12_000;
/** More entries than these are somebody else's doing. They hide no instance that was read before, and count as one that opens nothing. */
const MAX_INSTANCES = 500;

const announce = loadScript('announce', ['hash']);
const enroll = loadScript('enroll', ['zset']);

export function createFleetStore({ client, prefix, secrets, instance: self, audit, metrics }: FleetStoreOptions): FleetStore {
  const index = `${prefix}fleet`;
  const keyOf = (instance: string) => `${index}:${instance}`;
  const refused = new LRUCache<string, true>({ max: 2 * MAX_INSTANCES });

  function refuse(instance: string, reason: string): void {
    if (refused.has(instance)) return;
    refused.set(instance, true);
    metrics.refusedValues.inc({ key: 'fleet' });
    audit('value.refused', { key: 'fleet', reason });
  }

  function open(instance: string, signed: string | null, nowMs: number): Announcement | 'stranger' | undefined {
    if (signed === null) return undefined;
    const text = secrets.openSigned(`fleet\0${instance}`, signed);
    if (text === undefined) {
      refuse(instance, 'bad-mac');
      return 'stranger';
    }
    const found = announcementSchema.safeParse(parseJson(text)).data;
    if (!found || found.instance !== instance) {
      // A later release says it in words that are not understood: it counts as one that opens nothing.
      refuse(instance, 'unknown-shape');
      return 'stranger';
    }
    // What carries a MAC may still be an old one that somebody put back: a dead instance must not seem alive.
    if (Math.abs(nowMs - found.at) <= GONE_MS) return found;
    refuse(instance, 'replayed');
    return undefined;
  }

  let strangers = 0;
  let others = 0;
  let before: readonly string[] = [];
  let readAt = { steady: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY };
  // One of the two clocks stands still where a machine sleeps, the other one may be set.
  const isFresh = () => self === undefined || Math.max(performance.now() - readAt.steady, Date.now() - readAt.wall) < FRESH_MS;
  const releaseKey = (instance: string) => `${index}:${instance}:released`;

  return {
    async release(instance, release) {
      const signed = secrets.sign(`release\0${instance}`, JSON.stringify(release));
      await client.set(releaseKey(instance), signed, 'PX', RELEASE_KEEP_MS);
    },
    async readRelease(instance) {
      const signed = await client.get(releaseKey(instance)).catch(absentIfForeign(null));
      const text = signed === null ? undefined : secrets.openSigned(`release\0${instance}`, signed);
      return text === undefined ? undefined : releaseSchema.safeParse(parseJson(text)).data;
    },

    async write(announcement) {
      const { instance, at } = announcement;
      await announce(client, [keyOf(instance)], [secrets.sign(`fleet\0${instance}`, JSON.stringify(announcement)), GONE_MS]);
      await enroll(client, [index], [instance, at, at - GONE_MS, at + GONE_MS, GONE_MS]);
    },

    async read(nowMs) {
      // A key of another type is somebody else's, and gives way at the next announcement.
      const listed = await client
        .zrangebyscore(index, nowMs - GONE_MS, nowMs + GONE_MS, 'LIMIT', 0, MAX_INSTANCES + 1)
        .catch(absentIfForeign<string[]>([]));
      const isOverfull = listed.length > MAX_INSTANCES;
      const instances = isOverfull ? [...new Set([...before, ...listed.slice(0, MAX_INSTANCES)])] : listed;
      const under = new Map<string, string>();
      const found = await Promise.all(
        instances.map(async (instance) => {
          const signed = await client.hget(keyOf(instance), 'announcement').catch(absentIfForeign<string | null>(null));
          if (signed !== null) under.set(instance, secrets.secretOf(signed) ?? '');
          return open(instance, signed, nowMs);
        }),
      );
      const known = found.flatMap((one) => (one === undefined || one === 'stranger' ? [] : [one]));
      before = known.map(({ instance }) => instance);
      strangers = found.filter((one) => one === 'stranger').length + (isOverfull ? 1 : 0);
      others = known.filter(({ instance, left }) => instance !== self && !left).length;
      readAt = { steady: performance.now(), wall: Date.now() };
      return {
        left: known.filter(({ left }) => left).map(({ instance }) => instance),
        live: known.filter(({ left }) => !left).sort((one, other) => one.startedAt - other.startedAt),
        under,
        strangers,
      };
    },
    get isHere() {
      return isFresh() && (strangers === 0 || others > 0);
    },
    get isAlone() {
      return isFresh() && strangers === 0;
    },
    get isInTouch() {
      return isFresh();
    },
    get hasOthers() {
      return others > 0;
    },
    get isOutnumbered() {
      return strangers > others;
    },
    get strangers() {
      return strangers;
    },
  };
}

/** @param strangers how many announcements carry another MAC. */
export function describeStrangers(strangers: number): string[] {
  if (strangers === 0) return [];
  return [`${strangers} announcements under these keys in Redis carry another MAC: instances with another fleet secret, or somebody else's hand`];
}
