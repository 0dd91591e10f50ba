import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { queueRead, toStored } from '../formats/record-store.js';
import { endLogin, isSameLogin, type KnownEnds, loginOf, refusesRecord } from '../login.js';
import type { Tracking } from '../redis/tracking.js';
import type { SessionLedger } from '../sessions/ledger.js';
import { type LiveSession, type RecordReading, readAs, readSession, type SessionEntry } from '../sessions/record.js';
import type { Tools } from '../telemetry/tools.js';
import type { EndReason, Logout, SessionPlace } from './logout.js';
import type { Places } from './places.js';
import { CONSEQUENCES, type Fate, isMissing, type LastSeen, type LogoutJudge } from './record-fate.js';
import { createSlots, type Slots } from './slots.js';
import type { StoreEpoch, StoreEpochs } from './store-epoch.js';

/** One Redis that holds records. */
export interface WatchedStore {
  /** Starts to listen; undefined where Redis does not track. */
  readonly track: (listeners: { onNews: (key: string) => void; onLost: () => void }) => Tracking | undefined;
  readonly epochs: StoreEpochs;
  readonly entries: readonly SessionEntry[];
}

/** Watches the records that tokens were made from, so that a logout that the legacy app does alone is noticed at once. */
export interface RecordWatch {
  /**
   * Watches this session's record from now on; `epoch` was taken before it was read. Resolves when Redis tells of every
   * change that comes after. Never rejects.
   */
  watch(session: LiveSession, epoch?: StoreEpoch): Promise<void>;
  forget(place: Omit<SessionPlace, 'sid'>): void;
  close(): void;
}

export interface WatchOptions extends Pick<Tools, 'clock' | 'log' | 'metrics'> {
  readonly stores: readonly WatchedStore[];
  readonly ledger: SessionLedger;
  readonly logout: Logout;
  readonly judge: LogoutJudge;
  readonly places: Pick<Places, 'note'>;
  /** Told of records that are gone without having ended: counted and alerted. */
  readonly vanished: (sid: string) => void;
  readonly heard: Pick<KnownEnds, 'endedLogin'>;
  readonly resurrectionSeconds: number;
  /** 0 ≤ x < 1, to spread what is tried again. */
  readonly fraction: () => number;
}

interface Watched {
  readonly sid: string;
  readonly entry: SessionEntry;
  readonly key: string;
  readonly store: ListeningStore;
  last: LastSeen;
  /** What was last read, hashed. */
  seen?: string;
  keyEndsAtMs?: number | undefined;
  looking?: Promise<void> | undefined;
  /** What the next look is for: `news`, or to be told of what comes after. */
  next?: 'news' | 'arm' | undefined;
  /** How long the next news of a record that had not changed is left alone, in ms. */
  calmMs: number;
  /** How long after a failure it is tried again, in ms. */
  retryMs: number;
}

interface ListeningStore {
  readonly watched: LRUCache<string, Watched>;
  readonly epochs: StoreEpochs;
  readonly slots: Slots;
  tracking: Tracking | undefined;
}

/** Sessions that are watched at once, for each Redis; the least recently seen is left to the look at its next refresh. */
const MAX_WATCHED = 100_000;
const RETRY_MS = 1000;
/** How long a missing record waits for very many others to be missing as well. */
const HOLD_MS = 10;
/** Records that are read at once, at most. */
const AT_ONCE = 100;
/**
 * Redis also sends news of a record that it merely has no room to track any longer. To track it again at once would push out
 * another, and so on without end: it is left alone for a while, longer each time.
 */
const CALM_MS = 1000;
const MAX_CALM_MS = 60_000;
/** A record whose end has moved by more was touched. */
const PROLONGED_MS = 250;

export function createRecordWatch(options: WatchOptions): RecordWatch {
  const { stores, ledger, logout, judge, places, vanished, heard, resurrectionSeconds, fraction, clock, log, metrics } = options;
  const byEntry = new Map<string, { readonly entry: SessionEntry; readonly store: ListeningStore }>();
  const listening = stores.map(listen);
  let closed = false;

  function listen({ track, epochs, entries }: WatchedStore): ListeningStore {
    const store: ListeningStore = {
      watched: new LRUCache<string, Watched>({ max: MAX_WATCHED }),
      epochs,
      slots: createSlots(AT_ONCE),
      tracking: undefined,
    };
    store.tracking = track({
      onNews: (key) => {
        const known = store.watched.peek(key);
        if (known) void look(known, 'news');
      },
      onLost: () => {
        for (const known of store.watched.values()) void look(known, 'arm');
      },
    });
    for (const entry of entries) byEntry.set(entry.name, { entry, store });
    return store;
  }

  /** Reads a record again; news that come meanwhile make it read once more. */
  function look(known: Watched, why: 'news' | 'arm'): Promise<void> {
    known.next = known.next === 'arm' ? 'arm' : why;
    known.looking ??= (async () => {
      try {
        for (let next = nextLook(known); next && !closed; next = nextLook(known)) await lookOnce(known, next === 'arm');
        known.retryMs = RETRY_MS;
      } catch (error) {
        log.debug({ err: error }, 'a watched record could not be looked at; trying again');
        // Spread, and ever less often: all of them fail at once.
        lookLater(known, known.retryMs * (0.5 + fraction()));
        known.retryMs = Math.min(2 * known.retryMs, MAX_CALM_MS);
      } finally {
        known.looking = undefined;
      }
    })();
    return known.looking;
  }

  function nextLook(known: Watched): 'news' | 'arm' | undefined {
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
    const { store, sid, last } = known;
    const epoch = await store.epochs.recent();
    const first = await read(known, arm);
    if (first.kind === 'session' && (await judge.judge(first, last, store.epochs.now)) === 'lives') {
      if (!arm) metrics.recordNews.inc({ fate: 'lives' });
      if (isNews(known, first.session, epoch)) known.calmMs = CALM_MS;
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
      judge.missing(sid);
      await new Promise((resolve) => setTimeout(resolve, HOLD_MS));
    }
    // The time is taken before the look that decides: what a new login made after it is not meant.
    const endedAt = await ledger.now(sid);
    const second = await read(known, true);
    await settle(known, last, await judge.judge(second, last, store.epochs.now), endedAt);
  }

  /** Takes note of what was read. */
  function isNews(known: Watched, session: LiveSession, epoch: StoreEpoch | undefined): boolean {
    const seen = createHash('sha1').update(session.source.text).digest('base64');
    const { keyEndsAtMs } = session.source;
    const prolonged = Math.abs((keyEndsAtMs ?? 0) - (known.keyEndsAtMs ?? 0)) > PROLONGED_MS;
    known.keyEndsAtMs = keyEndsAtMs;
    const changed = seen !== known.seen || prolonged;
    known.seen = seen;
    known.last = lastSeen(session, epoch);
    return changed;
  }

  /** `arm`: so that its next change is news. */
  async function read({ store: { tracking, slots }, entry, key, sid }: Watched, arm: boolean): Promise<RecordReading> {
    return await slots.run(async () => {
      if (!arm || !tracking) return await readSession(entry, { key, sid }, clock);
      return await readAs(entry, { key, sid }, await readTracked(tracking, entry, key), clock);
    });
  }

  /** `last` is what it was before this look: a new session under the same id may have taken its place since. */
  async function settle(known: Watched, last: LastSeen, fate: Fate, endedAt: number): Promise<void> {
    const { store, sid, key } = known;
    metrics.recordNews.inc({ fate });
    const consequence = CONSEQUENCES[fate];
    const stays = consequence.kind === 'live' || (consequence.kind === 'dormant' && consequence.record === 'there');
    if (stays || store.watched.peek(key) !== known) return;
    switch (consequence.kind) {
      case 'unknown':
        lookLater(known, RETRY_MS * (0.5 + fraction()));
        return;
      case 'ended':
        await noteEnd(sid, last, consequence.reason, endedAt);
        break;
      case 'dormant':
        if (consequence.isLost) vanished(sid);
        await rememberDormant(sid, last, consequence.isLost);
    }
    // A new login under the same id, of which tokens were made meanwhile, goes on being watched.
    if (known.last === last) drop(store, key);
    else void look(known, 'arm');
  }

  /** At its next refresh it shall be no logout either: the record is lost, or the app may have shortened the session since tokens were made. */
  async function rememberDormant(sid: string, last: LastSeen, isLost: boolean): Promise<void> {
    const kept = await ledger.kept(sid);
    if (!kept || !isSameLogin(kept, last)) return;
    const { expiresAtMs } = last;
    const wasShortened = expiresAtMs !== undefined && (kept.expiresAtMs ?? Number.POSITIVE_INFINITY) > expiresAtMs;
    if (isLost) await ledger.keep(sid, { ...kept, epoch: undefined });
    else if (wasShortened) await ledger.keep(sid, { ...kept, expiresAtMs });
  }

  /** Where somebody else has ended it already, everybody is told once more: they may not have come to it. */
  async function noteEnd(sid: string, last: LastSeen, reason: EndReason, endedAt: number): Promise<void> {
    const { ended } = await ledger.marks(sid);
    if (!ended || !refusesRecord(ended, last, clock.now(), resurrectionSeconds)) {
      await logout.note(sid, reason, endLogin(last, endedAt));
    } else if ((heard.endedLogin(sid, last.subject)?.endedAt ?? 0) < ended.endedAt) {
      await logout.repeat(sid, ended);
    }
  }

  function drop(store: ListeningStore, key: string): void {
    store.watched.delete(key);
    gauge();
  }

  function gauge(): void {
    metrics.watchedRecords.set(listening.reduce((sum, { watched }) => sum + watched.size, 0));
  }

  return {
    async watch(session, epoch) {
      places.note(session);
      const found = byEntry.get(session.source.entry);
      if (!found?.store.tracking?.active) return;
      const { entry, store } = found;
      const { key } = session.source;
      const known = store.watched.get(key);
      if (known && isSameLogin(known.last, session.identity)) {
        known.last = { ...lastSeen(session, epoch ?? known.last.epoch), expiresAtMs: endOf(session, known) };
        // Whoever makes tokens needs to hear of the next change; a request that merely came along does not.
        if (epoch !== undefined) await look(known, 'arm');
        return;
      }
      // The id has gone to another person: what was made for the one before is looked at for the last time.
      if (known) await look(known, 'news');
      const watched: Watched = { sid: session.sid, entry, key, store, last: lastSeen(session, epoch), calmMs: CALM_MS, retryMs: RETRY_MS };
      store.watched.set(key, watched);
      gauge();
      await look(watched, 'arm');
    },
    forget({ entry, key }) {
      const store = byEntry.get(entry)?.store;
      if (store) drop(store, key);
    },
    close() {
      closed = true;
      for (const { tracking } of listening) tracking?.close();
    },
  };
}

async function readTracked(tracking: Tracking, { format: { storage } }: SessionEntry, key: string): Promise<ReturnType<typeof toStored>> {
  return toStored(storage, ...(await tracking.read((pipeline) => queueRead(pipeline, storage, key))));
}

/** What was read together with others does not say when the key ends: that is known from the last look. */
function endOf({ source: { expiresAtMs, keyEndsAtMs } }: LiveSession, { keyEndsAtMs: before }: Watched): number | undefined {
  if (keyEndsAtMs !== undefined || before === undefined) return expiresAtMs;
  return Math.min(expiresAtMs ?? before, before);
}

/** What a later look is compared with. */
function lastSeen({ identity, source }: LiveSession, epoch: StoreEpoch | undefined): LastSeen {
  return { ...loginOf(identity), expiresAtMs: source.expiresAtMs, epoch };
}
