import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../clock.js';
import { sidOf } from '../formats/sid.js';
import { endLogin } from '../login.js';
import type { Identity } from '../principal.js';
import type { RedisConnection } from '../redis/connection.js';
import { type KeyPattern, type ScanPosition, scanPages } from '../redis/scan.js';
import type { SessionLedger } from '../sessions/ledger.js';
import { readAs, type SessionEntry } from '../sessions/record.js';
import type { Logout } from './logout.js';

/** What the records of one entry were found to be. */
export interface SweepCounts {
  /** Keys that were looked at, about. */
  keys: number;
  /** Sessions of that person. */
  found: number;
  deleted: number;
  /** Logins after the end: they are left. */
  newer: number;
  /** Sessions of that name in tenants that are not meant, by tenant: they are left. */
  readonly otherTenants: Map<string, number>;
  /** Sessions that the app went on writing: they are left. */
  busy: number;
}

export interface SweepRequest {
  readonly subject: string;
  /** Logins after this time, in ms since the epoch, are left, where the record says when they were. */
  readonly until: number;
  readonly exceptSid?: string | undefined;
  /** Whether a session in this tenant is meant (undefined: in none), at whose login this was the time, where its record says any. */
  readonly isMeant: (tenant: string | undefined, authTimeMs: number | undefined) => Promise<boolean>;
  readonly dryRun: boolean;
  readonly perSecond: number;
  /** Where an interrupted one goes on. */
  readonly from?: ScanPosition | undefined;
  readonly signal: AbortSignal;
  /** Called after each page. */
  readonly progress: (counts: SweepCounts) => void;
}

export interface SweepTarget {
  readonly entry: SessionEntry;
  readonly connection: Pick<RedisConnection, 'client'>;
  readonly keys: KeyPattern;
  /** What the bridge's own keys start with. */
  readonly reservedPrefix: string;
}

export interface SweepParts {
  readonly ledger: Pick<SessionLedger, 'now'>;
  readonly logout: Pick<Logout, 'note'>;
  readonly clock: Clock;
}

/** Keys that are looked at in one go, at most. */
const PAGE = 250;
/** Redis is asked for at most one part in so many of the time: one that is slow is asked less. */
const SHARE = 5;
/** An app may write a record anew between the two steps. */
const MAX_TRIES = 5;

/**
 * Looks through all records of an entry for sessions of one person, and ends them: a record is deleted only if it still is, byte for byte,
 * the one that was read. A login without a time that is made meanwhile may be among them.
 * `counts` and `at` tell how far it is, also where it fails.
 * @returns whether it is through; false: it was interrupted. Rejects where Redis does not answer.
 */
export async function sweep(
  { ledger, logout, clock }: SweepParts,
  { entry, connection, keys, reservedPrefix }: SweepTarget,
  request: SweepRequest,
  counts: SweepCounts,
  at: (position: ScanPosition) => void,
): Promise<boolean> {
  const { subject, until, exceptSid, isMeant, dryRun, perSecond, from, signal, progress } = request;
  const seen = new Set<string>();
  const done = [...(from?.done ?? [])];

  /** Whose session it is, where it is one of that person. */
  async function read(key: string): Promise<{ readonly identity: Identity; readonly text: string } | undefined> {
    const reading = await readAs(entry, { key, sid: sidOf(entry.name, key) }, await entry.store.read(key), clock);
    return reading.kind === 'session' && reading.session.identity.subject === subject
      ? { identity: reading.session.identity, text: reading.session.source.text }
      : undefined;
  }

  async function end(key: string): Promise<void> {
    const sid = sidOf(entry.name, key);
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const found = await read(key);
      if (!found || sid === exceptSid) return;
      const { identity, text } = found;
      if (tries === 0) counts.found += 1;
      if (identity.authTimeMs !== undefined && identity.authTimeMs > until) {
        counts.newer += 1;
        return;
      }
      if (!(await isMeant(identity.tenant, identity.authTimeMs))) {
        const tenant = identity.tenant ?? '';
        counts.otherTenants.set(tenant, (counts.otherTenants.get(tenant) ?? 0) + 1);
        return;
      }
      if (dryRun) return;
      if (!(await entry.store.removeSame(key, text))) continue;
      counts.deleted += 1;
      // A request of the app that is under way may write the record again: it opens nothing then.
      await logout.note(sid, 'person-ended', endLogin(identity, await ledger.now(sid)));
      return;
    }
    counts.busy += 1;
  }

  const type = entry.format.storage === 'hash' ? 'hash' : 'string';
  const count = Math.min(PAGE, perSecond);
  let askedAt = performance.now();
  for await (const page of scanPages(connection, keys, { type, count, from })) {
    const mine: string[] = [];
    await Promise.all(
      page.keys.map(async (key) => {
        // SCAN may give a key twice.
        if (key.startsWith(reservedPrefix) || seen.has(key)) return;
        const found = await read(key);
        if (found) mine.push(key);
      }),
    );
    // Not the time in which somebody is asked.
    const took = performance.now() - askedAt;
    for (const key of mine) {
      seen.add(key);
      await end(key);
    }
    counts.keys += count;
    if (page.isThrough) done.push(page.runId);
    at({ done: [...done], runId: page.runId, cursor: page.cursor });
    progress(counts);
    if (signal.aborted) return false;
    await sleep(Math.max((count * 1000) / perSecond - took, took * (SHARE - 1)), undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return false;
    askedAt = performance.now();
  }
  return true;
}
