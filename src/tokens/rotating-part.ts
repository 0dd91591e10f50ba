import { createHmac, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { parseJson } from '../redis/replies.js';

/** What the rotating part of a refresh token is derived from, beside its counter. */
export interface PartOf {
  readonly sid: string;
  readonly family: string;
  /** Hash of the family secret, as Redis keeps it. */
  readonly secretHash: string;
}

/**
 * The rotating part of a refresh token: 4 bytes of a counter, then 28 bytes of a MAC over it. Because it is derived, both sides of a
 * failover that lost a write give the same successor, and an instance sees that a token is newer than what Redis knows.
 */
export interface RotatingParts {
  /** 43 characters of base64url, under the secret that the fleet writes with. */
  derive(of: PartOf, counter: number): string;
  /** The same under each secret that this instance has: the fleet may have changed it since. */
  deriveAll(of: PartOf, counter: number): readonly string[];
  /** Undefined where the MAC is not ours: a random part of an earlier release, or one that was made up. */
  counterOf(of: PartOf, part: string): number | undefined;
}

export const FIRST_COUNTER = 1;
/** As many as 4 bytes hold. */
export const MAX_COUNTER = 0xffff_ffff;

const COUNTER_BYTES = 4;
const MAC_BYTES = 28;
/** A family's id begins with the time of its making, which is known only once Redis has made it. */
const TIME_DIGITS = 13;

export function createRotatingParts(secrets: Pick<FleetSecrets, 'counterKeys'>): RotatingParts {
  function derive(key: Buffer, { sid, family, secretHash }: PartOf, counter: number): Buffer {
    const part = Buffer.alloc(COUNTER_BYTES + MAC_BYTES);
    part.writeUInt32BE(counter);
    const mac = createHmac('sha256', key)
      .update(`${sid}\0${family.slice(TIME_DIGITS)}\0${secretHash}\0${counter}`)
      .digest();
    mac.copy(part, COUNTER_BYTES, 0, MAC_BYTES);
    return part;
  }

  return {
    derive: (of, counter) => derive(secrets.counterKeys[0], of, counter).toString('base64url'),
    deriveAll: (of, counter) => secrets.counterKeys.map((key) => derive(key, of, counter).toString('base64url')),
    counterOf(of, text) {
      const part = Buffer.from(text, 'base64url');
      if (part.length !== COUNTER_BYTES + MAC_BYTES) return undefined;
      const counter = part.readUInt32BE();
      return secrets.counterKeys.some((key) => timingSafeEqual(part, derive(key, of, counter))) ? counter : undefined;
    },
  };
}

/** COUNTER.HASH of the part that has this counter. */
const COUNTED = /^(\d+)\.(.+)$/;
/** Until when, in ms by Redis' clock, and the lowest counter that is answered until then. */
const ADOPTED = /^(\d+)\.(\d+)$/;

/** Whether an earlier part may still be used: as long as its entry says (0: no end yet). */
export function isStillGood(older: string | null | undefined, presented: string, nowMs: number): boolean {
  const parts = z.array(z.tuple([z.string(), z.string(), z.number()])).safeParse(parseJson(older ?? '[]'));
  return parts.success && parts.data.some(([hash, , until]) => hash === presented && (until === 0 || until > nowMs));
}

/** The stored counter, where it belongs to the current part: an earlier release rotates without it. Of a family that never had one: 0. */
export function readCounter(stored: string | null | undefined, current: string | null | undefined): number | undefined {
  if (typeof current !== 'string') return undefined;
  if (typeof stored !== 'string') return 0;
  const [, counter, of] = COUNTED.exec(stored) ?? [];
  return of !== undefined && of === current ? Number(counter) : undefined;
}

export function lastCounter(stored: string | null | undefined): number {
  return Math.min(Number(COUNTED.exec(stored ?? '')?.[1] ?? 0), MAX_COUNTER - 1);
}

export function readAdoption(stored: string | null | undefined): { readonly untilMs: number; readonly from: number } | undefined {
  const [, until, from] = ADOPTED.exec(stored ?? '') ?? [];
  return until !== undefined && from !== undefined ? { untilMs: Number(until), from: Number(from) } : undefined;
}
