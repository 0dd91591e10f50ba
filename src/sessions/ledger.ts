import { z } from 'zod';
import { unavailable } from '../errors.js';
import type { RedisClient } from '../redis/connection.js';
import { loadScript } from '../redis/script.js';
import { openSignedText, signText } from '../redis/signed-text.js';
import type { Audit } from '../telemetry/audit.js';
import type { Metrics } from '../telemetry/metrics.js';
import { type KeptSession, openKeptSession, sealKeptSession } from './kept-session.js';
import type { Ended } from './tombstone.js';

/** What the bridge's own Redis says of a session, beside its record. */
export interface SessionMarks {
  readonly ended?: Ended;
  /** Whether tokens were made from it that may still live. */
  readonly hasTokens: boolean;
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
  kept(sid: string): Promise<KeptSession | undefined>;
  /** The session that a restored one continues. */
  predecessor(sid: string): Promise<string | undefined>;
  /** Notes that `sid` continues `predecessor`, so that its logout reaches what is left of the tokens of that. */
  continue(sid: string, predecessor: string, lifeMs: number): Promise<void>;
  seal(sid: string, kept: KeptSession): string;
  /** Replaces what is kept, where anything is. */
  keep(sid: string, kept: KeptSession): Promise<void>;
  /** The time by which what happens to a session is ordered: that of the Redis node that holds it, in ms. */
  now(sid: string): Promise<number>;
  /** Sets the tombstone and ends families; gives the ids of those. */
  end(sid: string, request: EndRequest): Promise<readonly string[]>;
}

export interface LedgerOptions {
  readonly client: RedisClient;
  /** What all keys start with. */
  readonly prefix: string;
  readonly macKey: Buffer;
  readonly sealKey: Buffer;
  /** How long a tombstone stands: as long as the longest family lives. */
  readonly keepSeconds: number;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

const tombstone = z.object({
  subject: z.string(),
  tenant: z.string().optional(),
  authTimeMs: z.number().optional(),
  endedAt: z.number(),
  reason: z.string(),
});

const timeOf = loadScript('time');
const endSession = loadScript('end-session');
const keepSession = loadScript('keep-session');

export function createSessionLedger({ client, prefix, macKey, sealKey, keepSeconds, audit, metrics }: LedgerOptions): SessionLedger {
  function keysOf(sid: string) {
    const tagged = `${prefix}{${sid}}:`;
    return { session: `${tagged}session`, families: `${tagged}families`, family: `${tagged}family:`, ended: `${tagged}ended` };
  }

  function openTombstone(sid: string, signed: string | null): Ended | undefined {
    if (signed === null) return undefined;
    const text = openSignedText(macKey, `ended\0${sid}`, signed);
    const ended = text === undefined ? undefined : tombstone.safeParse(JSON.parse(text)).data;
    if (!ended) refuse('ended');
    return ended;
  }

  function refuse(key: string): void {
    metrics.refusedValues.inc({ key });
    audit('value.refused', { key, reason: 'bad-mac' });
  }

  /** A key of another type is something that somebody else wrote: it counts as absent, as everything does that fails its check. */
  async function reading(key: string, work: Promise<string | null>): Promise<string | null> {
    return await asking(
      work.catch((error: unknown) => {
        if (!(error instanceof Error) || !error.message.startsWith('WRONGTYPE')) throw error;
        refuse(key);
        return null;
      }),
    );
  }

  async function asking<T>(work: Promise<T>): Promise<T> {
    return await work.catch((cause: unknown) => {
      throw unavailable('redis', cause);
    });
  }

  return {
    keysOf,

    async marks(sid) {
      const { ended, session } = keysOf(sid);
      const [signed, noted] = await Promise.all([reading('ended', client.get(ended)), asking(client.exists(session))]);
      const found = openTombstone(sid, signed);
      return { hasTokens: noted > 0, ...(found ? { ended: found } : {}) };
    },

    async kept(sid) {
      const sealed = await reading('session', client.hget(keysOf(sid).session, 'sealed'));
      if (sealed === null) return undefined;
      const kept = openKeptSession(sealKey, sid, sealed);
      if (!kept) refuse('session');
      return kept;
    },

    async predecessor(sid) {
      return (await reading('session', client.hget(keysOf(sid).session, 'continues'))) ?? undefined;
    },

    async continue(sid, predecessor, lifeMs) {
      const { session } = keysOf(sid);
      await asking(client.multi().hset(session, 'continues', predecessor).pexpire(session, lifeMs).exec());
    },

    seal: (sid, kept) => sealKeptSession(sealKey, sid, kept),

    async keep(sid, kept) {
      await asking(keepSession(client, [keysOf(sid).session], [sealKeptSession(sealKey, sid, kept)]));
    },

    now: async (sid) => Number(await asking(timeOf(client, [keysOf(sid).session], []))),

    async end(sid, { ended, reason, upTo, person }) {
      const keys = keysOf(sid);
      const signed = ended ? signText(macKey, `ended\0${sid}`, JSON.stringify({ ...ended, reason })) : '';
      const args = [signed, keepSeconds * 1000, reason, upTo ?? '', person ?? ''];
      const families = await asking(endSession(client, [keys.ended, keys.families, keys.session, keys.family], args));
      return Array.isArray(families) ? families.map(String) : [];
    },
  };
}
