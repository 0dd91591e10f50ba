import { z } from 'zod';
import { unavailable } from '../errors.js';
import type { Ended } from '../login.js';
import type { BatchedReads, Value } from '../redis/batched-reads.js';
import type { RedisClient } from '../redis/client.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { asking } from '../redis/replies.js';
import { isWrongType, loadScript } from '../redis/script.js';
import type { Tools } from '../telemetry/tools.js';
import { type KeptSession, openKeptSession, sealKeptSession } from './kept-session.js';
import { personOf } from './person-of.js';

/** What the bridge's own Redis says of a session, beside its record. */
export interface SessionMarks {
  readonly ended?: Ended | undefined;
  /** Whether tokens were made from it that may still live; undefined where a tombstone stands in the place that says so. */
  readonly hasTokens: boolean | undefined;
}

/** Of a session that nothing was made from, and that nobody ended; or of which nothing can be known right now. */
export const NO_MARKS: SessionMarks = { hasTokens: false };

/** A session that ends together with another; where its record is, if that is not known from what is kept. */
export interface SessionLink {
  readonly sid: string;
  readonly entry?: string | undefined;
  readonly key?: string | undefined;
}

export interface EndRequest {
  /** Whose login has ended; absent: the families end, and a record is left to be judged by itself. */
  readonly ended?: Ended;
  readonly reason: string;
  /** Only families that were made up to this time, in ms by Redis' clock. */
  readonly upTo?: number;
  /** Only families of this person, as `personOf` names it. */
  readonly person?: string;
}

/** The bridge's notes on sessions in its own Redis. All methods throw `temporarily_unavailable` where Redis does not answer. */
export interface SessionLedger {
  /** The Redis keys of one session; all are in one slot of a Cluster. */
  keysOf(sid: string): { readonly session: string; readonly families: string; readonly family: string; readonly ended: string };
  marks(sid: string): Promise<SessionMarks>;
  /** The key of a session's marks, for who reads them together with its record through `reads`; and what is found there. */
  markKey(sid: string): string;
  openMarks(sid: string, found: Value): SessionMarks;
  readonly reads: BatchedReads;
  kept(sid: string): Promise<KeptSession | undefined>;
  /** Links a session that was brought back with the one that it continues, both ways: they end together. */
  link(restored: Required<SessionLink>, predecessor: string, lifeMs: number): Promise<void>;
  links(sid: string): Promise<readonly SessionLink[]>;
  seal(sid: string, kept: KeptSession): string;
  /** Replaces what is kept, where anything is. */
  keep(sid: string, kept: KeptSession): Promise<void>;
  /** The time by which what happens to a session is ordered: that of the Redis node that holds it, in ms. */
  now(sid: string): Promise<number>;
  /** Notes that the record of an unfinished logout was deleted. */
  noteDeleted(sid: string): Promise<void>;
  /** Whether somebody has noted that. */
  wasDeleted(sid: string): Promise<boolean>;
  /** Writes an end again that Redis has lost: the tombstone, where no newer one stands, and the families of that person up to that time. */
  endAgain(sid: string, ended: Ended): Promise<void>;
  /** Sets the tombstone and ends families; gives the ids of those. */
  end(sid: string, request: EndRequest): Promise<readonly string[]>;
}

export interface LedgerOptions extends Pick<Tools, 'audit' | 'metrics'> {
  readonly client: RedisClient;
  readonly reads: BatchedReads;
  /** What all keys start with. */
  readonly prefix: string;
  readonly secrets: FleetSecrets;
  /** Whether what does not open may be of this fleet, under a secret that is not here: then it cannot be known (law 1). */
  readonly isStranger: () => boolean;
  /** How long a tombstone stands: as long as the longest family lives. */
  readonly keepSeconds: number;
}

const tombstone = z.object({
  subject: z.string(),
  tenant: z.string().optional(),
  authTimeMs: z.number().optional(),
  endedAt: z.number(),
  reason: z.string(),
  unfinished: z.boolean().optional(),
});

/** Another instance may write a tombstone between two steps. */
const MAX_TRIES = 5;
/** How long a deletion is noted: whoever waits for it asks within a second. */
const DELETED_MS = 60_000;

const timeOf = loadScript('time');
const endSession = loadScript('end-session', ['string', 'zset', 'hash']);
const keepSession = loadScript('keep-session', ['hash']);
const linkSession = loadScript('link-session', ['hash', 'string']);

const linkSchema = z.object({ sid: z.string(), entry: z.string().optional(), key: z.string().optional() });

/** What the seal of a link is bound to. */
export const linkContext = (sid: string) => `link\0${sid}`;
/** What the MAC of a tombstone is bound to. */
export const tombstoneContext = (sid: string) => `ended\0${sid}`;

export function createSessionLedger(options: LedgerOptions): SessionLedger {
  const { client, reads, prefix, secrets, isStranger, keepSeconds, audit, metrics } = options;

  const personKey = secrets.names.person;

  function keysOf(sid: string) {
    const tagged = `${prefix}{${sid}}:`;
    return { session: `${tagged}session`, families: `${tagged}families`, family: `${tagged}family:`, ended: markKey(sid) };
  }

  function markKey(sid: string): string {
    return `${prefix}{${sid}}:ended`;
  }

  function sign(sid: string, ended: Ended, reason: string): string {
    return secrets.sign(tombstoneContext(sid), JSON.stringify({ ...ended, reason }));
  }

  function openTombstone(sid: string, signed: string): Ended | undefined {
    const text = secrets.openSigned(tombstoneContext(sid), signed);
    if (text === undefined) return refuse('ended', signed);
    const ended = tombstone.safeParse(JSON.parse(text)).data;
    if (!ended) throw unavailable('release');
    return ended;
  }

  /** Empty: there are tokens, and nothing has ended. */
  function toMarks(sid: string, mark: string | null): SessionMarks {
    if (mark === null) return NO_MARKS;
    return mark === '' ? { hasTokens: true } : { hasTokens: undefined, ended: openTombstone(sid, mark) };
  }

  /** @throws {CrossfadeError} `temporarily_unavailable` where it may be of this fleet all the same. */
  function refuse(key: string, written: string): undefined {
    if (secrets.isDenied(written)) return undefined;
    metrics.refusedValues.inc({ key });
    audit('value.refused', { key, reason: 'bad-mac' });
    if (isStranger() || secrets.isUnknown(written)) throw unavailable('secret');
    return undefined;
  }

  /** A key of another type is something that somebody else wrote: it counts as absent, as everything does that fails its check. */
  async function reading(key: string, work: Promise<string | null>): Promise<string | null> {
    return await asking(
      work.catch((error: unknown) => {
        if (!isWrongType(error)) throw error;
        refuse(key, '');
        return null;
      }),
    );
  }

  return {
    keysOf,

    marks: async (sid) => toMarks(sid, await reading('ended', client.get(markKey(sid)))),
    markKey,
    openMarks: (sid, found) => toMarks(sid, found === null ? null : found.toString()),
    reads,

    async kept(sid) {
      const sealed = await reading('session', client.hget(keysOf(sid).session, 'sealed'));
      if (sealed === null) return undefined;
      const kept = openKeptSession(secrets, sid, sealed);
      if (kept === 'later') throw unavailable('release');
      // Written under the secret of now when it is used, so that the one before can go.
      if (kept && secrets.isRevoked(kept.under ?? [])) return undefined;
      if (kept && secrets.isOutdated(sealed)) {
        const again = sealKeptSession(secrets, sid, { ...kept, ...secrets.passedThrough(kept.under, sealed) });
        await keepSession(client, [keysOf(sid).session], [again]).catch(() => undefined);
      }
      return kept ?? refuse('session', sealed);
    },

    async link(restored, predecessor, lifeMs) {
      const links: [string, SessionLink][] = [
        [restored.sid, { sid: predecessor }],
        [predecessor, restored],
      ];
      for (const [sid, link] of links) {
        const keys = keysOf(sid);
        await asking(
          linkSession(client, [keys.session, keys.ended], [`link:${link.sid}`, secrets.seal(linkContext(sid), JSON.stringify(link)), lifeMs]),
        );
      }
    },

    async links(sid) {
      const fields = await asking(
        client.hgetall(keysOf(sid).session).catch((error: unknown) => {
          if (isWrongType(error)) return {};
          throw error;
        }),
      );
      return Object.entries(fields).flatMap(([name, sealed]) => {
        const text = name.startsWith('link:') ? secrets.unseal(linkContext(sid), sealed) : undefined;
        const link = text === undefined ? undefined : linkSchema.safeParse(JSON.parse(text));
        if (link?.success === false) throw unavailable('release');
        return link ? [link.data] : [];
      });
    },

    seal: (sid, kept) => sealKeptSession(secrets, sid, kept),

    async keep(sid, kept) {
      await asking(keepSession(client, [keysOf(sid).session], [sealKeptSession(secrets, sid, kept)]));
    },

    async noteDeleted(sid) {
      await asking(client.set(`${prefix}{${sid}}:deleted`, '1', 'PX', DELETED_MS));
    },
    wasDeleted: async (sid) => (await asking(client.exists(`${prefix}{${sid}}:deleted`))) === 1,

    now: async (sid) => Number(await asking(timeOf(client, [keysOf(sid).session], []))),

    async endAgain(sid, { subject, tenant, authTimeMs, endedAt, unfinished }) {
      const keys = keysOf(sid);
      const person = personOf(personKey, subject);
      for (let tries = 0; tries < MAX_TRIES; tries++) {
        // Together with those of all others that are written in the same turn.
        const { values } = await asking(reads.read([keys.ended]));
        const mark = values[0]?.toString() ?? null;
        const stands = toMarks(sid, mark).ended;
        const isNewer = stands !== undefined && stands.endedAt >= endedAt;
        const signed = isNewer ? '' : sign(sid, { subject, tenant, authTimeMs, endedAt, unfinished }, 'logout');
        const args = [signed, keepSeconds * 1000, 'logout', endedAt, person, mark ?? ''];
        const done = await asking(endSession(client, [keys.ended, keys.families, keys.session, keys.family], args));
        if (!Array.isArray(done) || done[0] !== 'changed') return;
      }
    },

    async end(sid, { ended, reason, upTo, person }) {
      const keys = keysOf(sid);
      const signed = ended ? sign(sid, ended, reason) : '';
      const args = [signed, keepSeconds * 1000, reason, upTo ?? '', person ?? ''];
      const families = await asking(endSession(client, [keys.ended, keys.families, keys.session, keys.family], args));
      return Array.isArray(families) ? families.map(String) : [];
    },
  };
}
