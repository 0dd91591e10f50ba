import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../clock.js';
import type { Tracking } from '../redis/tracking.js';
import type { Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { SessionLedger } from './ledger.js';
import { type Fate, isMissing, type LastSeen, type LogoutJudge } from './legacy-logout.js';
import type { Logout, SessionPlace } from './logout.js';
import { type LiveSession, type RecordReading, readAs, readSession, type SessionEntry, toStored } from './record.js';
import type { StoreEpochs } from './store-epoch.js';
import { refusesRecord } from './tombstone.js';

/** One Redis that holds records. */
export interface WatchedStore {
  /** Starts to listen; undefined where Redis does not track. */
  readonly track: (listeners: { onNews: (key: string) => void; onLost: () => void }) => Tracking | undefined;
  readonly epochs: StoreEpochs;
  readonly entries: readonly SessionEntry[];
}

/** Watches the records that tokens were made from, so that a logout that the legacy app does alone is noticed at once. */
export interface RecordWatch {
  /** Watches this session's record from now on. Resolves when Redis tells of every change that comes after. Never rejects. */
  watch(session: LiveSession): Promise<void>;
  forget(place: Omit<SessionPlace, 'sid'>): void;
  close(): void;
}

export interface WatchOptions {
  readonly stores: readonly WatchedStore[];
  readonly ledger: SessionLedger;
  readonly logout: Logout;
  readonly judge: LogoutJudge;
  /** Told of records that are gone without having ended: counted and alerted. */
  readonly vanished: () => void;
  readonly resurrectionSeconds: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

interface Watched {
  readonly sid: string;
  readonly entry: SessionEntry;
  readonly key: string;
  readonly store: ListeningStore;
  last: LastSeen;
  /** What was last read, hashed. */
  seen?: string;
  looking?: Promise<void> | undefined;
  /** What the next look is for: `news`, or to be told of what comes after. */
  next?: 'news' | 'arm' | undefined;
  /** How long the next news of a record that had not changed is left alone, in ms. */
  calmMs: number;
}

interface ListeningStore {
  readonly watched: LRUCache<string, Watched>;
  readonly epochs: StoreEpochs;
  tracking: Tracking | undefined;
  /** The epoch of one and two beats ago: what was before the news came. */
  before: string | undefined;
  latest: string | undefined;
}

/** Sessions that are watched at once, for each Redis; the least recently seen is left to the look at its next refresh. */
const MAX_WATCHED = 100_000;
const BEAT_MS = 1000;
const RETRY_MS = 1000;
/** How long a missing record waits for very many others to be missing as well. */
const HOLD_MS = 10;
/** Records that are read again at once after a connection was lost. */
const AT_ONCE = 100;
/**
 * Redis also sends news of a record that it merely has no room to track any longer. To track it again at once would push out
 * another, and so on without end: it is left alone for a while, longer each time.
 */
const CALM_MS = 1000;
const MAX_CALM_MS = 60_000;

export function createRecordWatch(options: WatchOptions): RecordWatch {
  const { stores, ledger, logout, judge, vanished, resurrectionSeconds, clock, log, metrics } = options;
  const byEntry = new Map<string, { readonly entry: SessionEntry; readonly store: ListeningStore }>();
  const listening = stores.map(listen);
  let closed = false;

  function listen({ track, epochs, entries }: WatchedStore): ListeningStore {
    const store: ListeningStore = {
      watched: new LRUCache<string, Watched>({ max: MAX_WATCHED }),
      epochs,
      tracking: undefined,
      before: undefined,
      latest: undefined,
    };
    store.tracking = track({
      onNews: (key) => {
        const known = store.watched.peek(key);
        if (known) void look(known, 'news');
      },
      onLost: () => void lookAtAll(store),
    });
    for (const entry of entries) byEntry.set(entry.name, { entry, store });
    return store;
  }

  async function lookAtAll({ watched }: ListeningStore): Promise<void> {
    const all = [...watched.values()];
    for (let at = 0; at < all.length && !closed; at += AT_ONCE)
      await Promise.all(all.slice(at, at + AT_ONCE).map(async (known) => await look(known, 'arm')));
  }

  /** Reads a record again; news that come meanwhile make it read once more. */
  function look(known: Watched, why: 'news' | 'arm'): Promise<void> {
    known.next = known.next === 'arm' ? 'arm' : why;
    known.looking ??= (async () => {
      try {
        for (let next = take(known); next && !closed; next = take(known)) await lookOnce(known, next === 'arm');
      } catch (error) {
        log.debug({ err: error }, 'a watched record could not be looked at; trying again');
        lookLater(known, RETRY_MS);
      } finally {
        known.looking = undefined;
      }
    })();
    return known.looking;
  }

  function take(known: Watched): 'news' | 'arm' | undefined {
    const { next } = known;
    known.next = undefined;
    return next;
  }

  function lookLater(known: Watched, afterMs: number): void {
    setTimeout(() => {
      if (!closed && known.store.watched.peek(known.key) === known) void look(known, 'arm');
    }, afterMs).unref();
  }

  async function lookOnce(known: Watched, arm: boolean): Promise<void> {
    const { store, sid } = known;
    const last = { ...known.last, epoch: store.before };
    const first = await read(known, arm);
    if (first.kind === 'session' && (await judge.judge(first, last, store.epochs.now)) === 'lives') {
      if (isNews(known, first.session)) known.calmMs = CALM_MS;
      else if (!arm) {
        lookLater(known, known.calmMs);
        known.calmMs = Math.min(2 * known.calmMs, MAX_CALM_MS);
        return;
      }
      if (!arm) await lookOnce(known, true);
      return;
    }
    if (store.watched.peek(known.key) !== known) return;
    if (isMissing(first)) {
      judge.missing();
      await new Promise((resolve) => setTimeout(resolve, HOLD_MS));
    }
    // The time is taken before the look that decides: what a new login made after it is not meant.
    const endedAt = await ledger.now(sid);
    const second = await read(known, true);
    await settle(known, await judge.judge(second, last, store.epochs.now), endedAt);
  }

  /** Takes note of what was read. */
  function isNews(known: Watched, session: LiveSession): boolean {
    const seen = createHash('sha1').update(session.source.text).digest('base64');
    const changed = seen !== known.seen;
    known.seen = seen;
    known.last = lastSeen(session);
    return changed;
  }

  /** `arm`: so that its next change is news. */
  async function read({ store, entry, key }: Watched, arm: boolean): Promise<RecordReading> {
    if (!arm || !store.tracking) return await readSession(entry, key, clock);
    return await readAs(entry, key, toStored(...(await store.tracking.read(key))), clock);
  }

  async function settle(known: Watched, fate: Fate, endedAt: number): Promise<void> {
    const { store, sid, key, last } = known;
    metrics.recordNews.inc({ fate });
    if (fate === 'lives' || fate === 'unclear') return;
    if (store.watched.peek(key) !== known) return;
    if (fate === 'logged-out' || fate === 'other-person') {
      const { subject, tenant, authTimeMs } = last;
      const { ended } = await ledger.marks(sid);
      const identity = { subject, roles: [], scope: [], ...(authTimeMs === undefined ? {} : { authTimeMs }) };
      if (!ended || !refusesRecord(ended, identity, clock.now(), resurrectionSeconds)) {
        await logout.note(sid, fate === 'logged-out' ? 'legacy-logout' : 'other-person', { subject, tenant, authTimeMs, endedAt });
      }
    } else if (fate === 'vanished') {
      vanished();
      // At its next refresh it shall be no logout either.
      const kept = await ledger.kept(sid);
      if (kept) await ledger.keep(sid, { ...kept, epoch: undefined });
    }
    store.watched.delete(key);
  }

  async function beatOnce(store: ListeningStore): Promise<void> {
    const epoch = await store.epochs.now();
    // While Redis does not answer, what was before its outage is what counts.
    if (epoch === undefined) return;
    store.before = store.latest ?? epoch;
    store.latest = epoch;
  }

  const beat = setInterval(() => {
    for (const store of listening) if (store.watched.size > 0) void beatOnce(store);
  }, BEAT_MS);
  beat.unref();

  return {
    async watch(session) {
      const found = byEntry.get(session.source.entry);
      if (!found?.store.tracking?.active) return;
      const { entry, store } = found;
      const { key } = session.source;
      if (store.before === undefined) {
        store.before = await store.epochs.recent();
        store.latest ??= store.before;
      }
      const known = store.watched.get(key);
      if (known) {
        known.last = lastSeen(session);
        return;
      }
      const watched: Watched = { sid: session.sid, entry, key, store, last: lastSeen(session), calmMs: CALM_MS };
      store.watched.set(key, watched);
      metrics.watchedRecords.set(listening.reduce((sum, { watched: all }) => sum + all.size, 0));
      await look(watched, 'arm');
    },
    forget({ entry, key }) {
      byEntry.get(entry)?.store.watched.delete(key);
    },
    close() {
      closed = true;
      clearInterval(beat);
      for (const { tracking } of listening) tracking?.close();
    },
  };
}

/** What a later look is compared with. */
function lastSeen({ identity, source }: LiveSession, epoch?: string): LastSeen {
  const { subject, tenant, authTimeMs } = identity;
  return { subject, tenant, authTimeMs, expiresAtMs: source.expiresAtMs, epoch };
}
