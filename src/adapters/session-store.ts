import { LRUCache } from 'lru-cache';
import { parse as parseJson } from 'secure-json-parse';
import { z } from 'zod';
import type { Logout } from '../endings/logout.js';
import type { ResumeSession } from '../endings/resume.js';
import { readJsonRecord } from '../formats/json-record.js';
import { sidOf } from '../formats/sid.js';
import { endLogin } from '../login.js';
import type { Identity, Principal } from '../principal.js';
import type { RedisClient } from '../redis/client.js';
import { asking } from '../redis/replies.js';
import type { KeptSession } from '../sessions/kept-session.js';
import type { SessionLedger } from '../sessions/ledger.js';
import type { SessionReader } from '../sessions/reader.js';
import { type RecordSource, readAs, type SessionEntry } from '../sessions/record.js';
import type { Tools } from '../telemetry/tools.js';

/** A store as koa-session wants it. A Redis that is away is a rejection at once, which is answered 503. */
export interface SessionStore {
  get(key: string, maxAge?: unknown, options?: StoreCall): Promise<object | undefined>;
  /** `maxAge` in ms; `session` for one that lives as long as the browser. */
  set(key: string, session: object, maxAge?: number | 'session', options?: StoreCall): Promise<void>;
  destroy(key: string, options?: StoreCall): Promise<void>;
}

/** What koa-session tells of a call; before version 7 it did not say which request it is for. */
export interface StoreCall {
  readonly ctx?: object;
}

export interface SessionStoreOptions extends Pick<Tools, 'clock' | 'log' | 'metrics'> {
  readonly entry: SessionEntry;
  /** Where the records are, and what stands before an id in their keys. */
  readonly client: RedisClient;
  readonly keyPrefix: string;
  readonly sessions: SessionReader;
  readonly ledger: SessionLedger;
  readonly logout: Logout;
  readonly resume: ResumeSession;
  readonly names: TokenSessionNames;
}

/** Names by which a store finds the session of a request that came with a token. Nobody outside this process can make one. */
export interface TokenSessionNames {
  nameOf(principal: Principal): string;
  read(name: string): TokenSession | undefined;
}

type TokenSession = z.output<typeof tokenSession>;
const tokenSession = z.object({ sid: z.string(), subject: z.string(), tenant: z.string().optional() });

/** `secret`: unguessable, so that no cookie can hold such a name. */
export function createTokenSessionNames(secret: string): TokenSessionNames {
  const prefix = `token-session-${secret}:`;
  return {
    nameOf: ({ sid, subject, tenant }) => prefix + JSON.stringify({ sid, subject, tenant }),
    read: (name) => (name.startsWith(prefix) ? tokenSession.parse(JSON.parse(name.slice(prefix.length))) : undefined),
  };
}

/** What was read of a record, for as long as a slow request may take to write it again. */
const MAX_LOADED = 50_000;
const LOADED_MS = 15 * 60_000;

interface Loaded {
  /** Who was logged in; absent: nobody. */
  readonly identity?: Identity;
}

/**
 * The records of one entry for the app's own koa-session, by cookie or by token. What a request has read it writes again only
 * if the record is still there and its login has not ended: a slow request does not undo a logout. A login is written in any case.
 */
export function createSessionStore(options: SessionStoreOptions): SessionStore {
  const { entry, client, keyPrefix, sessions, ledger, logout, resume, names, clock, log, metrics } = options;
  sessions.share();
  const byKey = new LRUCache<string, Loaded>({ max: MAX_LOADED, ttl: LOADED_MS });
  const handedOut = new WeakSet<object>();
  const byRequest = new WeakMap<object, Map<string, Loaded>>();
  let toldOfNone = false;

  function noteLoaded(key: string, loaded: Loaded, { ctx }: StoreCall): void {
    byKey.set(key, loaded);
    if (!ctx) return;
    const own = byRequest.get(ctx) ?? new Map<string, Loaded>();
    byRequest.set(ctx, own.set(key, loaded));
  }

  /** What this request has read; where koa-session does not tell requests apart, what any has. */
  function findLoaded(key: string, { ctx }: StoreCall): Loaded | undefined {
    return ctx ? byRequest.get(ctx)?.get(key) : byKey.get(key);
  }

  async function getByKey(key: string, call: StoreCall): Promise<object | undefined> {
    const reading = await sessions.readKnown(entry.name, key, { request: requestOf(call) });
    if (reading.kind === 'session') {
      noteLoaded(key, { identity: reading.session.identity }, call);
      return toHandOut(reading.session.source);
    }
    if (reading.text === undefined) return undefined;
    noteLoaded(key, {}, call);
    return toObject(reading.text);
  }

  async function setByKey(key: string, text: string, ttlMs: number, call: StoreCall): Promise<void> {
    const sid = sidOf(entry.name, key);
    const known = findLoaded(key, call);
    const next = await readAs(entry, { key, sid }, { text, ttlMs }, clock);
    if (next.kind === 'session' && (await sessions.isEnded(sid, next.session.identity))) return refuse();
    const before = known?.identity;
    const isLogin = next.kind === 'session' && (!before || isNewer(next.session.identity, before));
    // The record may be there, and its person gone: a logout in place, while this request took its time.
    if (before && next.kind === 'session' && !isLogin && (await sessions.readKnown(entry.name, key)).kind === 'rejected') return refuse();
    const isLogout = before !== undefined && next.kind === 'rejected' && next.reason === 'nobody-logged-in';
    // Where nothing tells logins apart, a tombstone would refuse the next one under the same id: it is set only for the sake of tokens.
    const noted = isLogout && (before.authTimeMs !== undefined || (await ledger.kept(sid)) !== undefined);
    const endedAt = noted ? await ledger.now(sid) : undefined;
    const px = Math.max(1, Math.ceil(ttlMs));
    const written = await asking(known && !isLogin ? client.set(key, text, 'PX', px, 'XX') : client.set(key, text, 'PX', px));
    if (written === null) return refuse();
    noteLoaded(key, next.kind === 'session' ? { identity: next.session.identity } : {}, call);
    if (before && endedAt !== undefined) await logout.note(sid, 'legacy-logout', endLogin(before, endedAt));
  }

  /** As it was parsed for this request; whoever asks once more gets one of their own, since an app changes what it is given. */
  function toHandOut({ record, text }: RecordSource): object | undefined {
    if (handedOut.has(record)) return toObject(text);
    handedOut.add(record);
    return { ...record };
  }

  /** What this request has read is no longer what is there. */
  function forgetRead(call: StoreCall): void {
    const request = requestOf(call);
    if (request) sessions.forget(request);
  }

  function refuse(): void {
    metrics.lateWrites.inc();
    log.info('a session that has ended in the meantime was not written again');
  }

  async function destroyByKey(key: string, call: StoreCall): Promise<void> {
    const identity = findLoaded(key, call)?.identity;
    noteLoaded(key, {}, call);
    const place = { entry: entry.name, key };
    await logout.end(sidOf(entry.name, key), 'legacy-logout', { place, ...(identity ? { person: identity } : {}) });
  }

  async function destroyByToken(token: TokenSession, call: StoreCall): Promise<void> {
    const kept = await find(token);
    if (kept) noteLoaded(kept.key, {}, call);
    await logout.end(token.sid, 'legacy-logout', { person: toPerson(token) });
  }

  /** The session behind a token; undefined where there is none, or it is not this entry's. */
  async function find({ sid }: TokenSession): Promise<KeptSession | undefined> {
    const kept = await ledger.kept(sid);
    return kept?.entry === entry.name ? kept : undefined;
  }

  async function getByToken(token: TokenSession, call: StoreCall): Promise<object> {
    const kept = await find(token);
    if (!kept) return {};
    const resumed = await resume(token.sid, loginOf(token, kept));
    if (resumed.kind === 'ended') return {};
    if (resumed.kind === 'dormant') return withoutEnd(toObject(resumed.kept.text));
    noteLoaded(kept.key, { identity: resumed.session.identity }, call);
    return toObject(resumed.session.source.text) ?? {};
  }

  async function setByToken(token: TokenSession, text: string, ttlMs: number, call: StoreCall): Promise<void> {
    const kept = await find(token);
    if (!kept) {
      if (!toldOfNone) log.warn('ctx.session was written in a request whose token has no session: it is not kept');
      toldOfNone = true;
      return;
    }
    const reading = await sessions.readKnown(kept.entry, kept.key);
    if (reading.kind === 'session' && reading.session.identity.subject !== token.subject) return refuse();
    if (reading.kind === 'session') await setByKey(kept.key, text, ttlMs, call);
    // A logout in place meanwhile is noted there, and not undone.
    else await setDormant(token, kept, text, ttlMs);
  }

  /** The record is gone and nobody logged out: what is brought back one day is the newest. */
  async function setDormant(token: TokenSession, kept: KeptSession, text: string, ttlMs: number): Promise<void> {
    const { key } = kept;
    const resumed = await resume(token.sid, loginOf(token, kept));
    if (resumed.kind !== 'dormant') return refuse();
    const next = await readAs(entry, { key, sid: token.sid }, { text, ttlMs }, clock);
    if (next.kind === 'session' && next.session.identity.subject === token.subject) await ledger.keep(token.sid, { ...resumed.kept, text });
    else if (next.kind === 'rejected' && next.reason === 'nobody-logged-in') {
      await logout.note(token.sid, 'legacy-logout', endLogin(resumed.kept, await ledger.now(token.sid)));
    } else refuse();
  }

  return {
    async get(key, _maxAge, call = {}) {
      const token = names.read(key);
      return token ? await getByToken(token, call) : await getByKey(keyPrefix + key, call);
    },
    async set(key, session, maxAge, call = {}) {
      const token = names.read(key);
      const text = JSON.stringify(session);
      const ttlMs = typeof maxAge === 'number' ? maxAge : entry.limits.absoluteTtlSeconds * 1000;
      try {
        await (token ? setByToken(token, text, ttlMs, call) : setByKey(keyPrefix + key, text, ttlMs, call));
      } finally {
        forgetRead(call);
      }
    },
    async destroy(key, call = {}) {
      const token = names.read(key);
      try {
        await (token ? destroyByToken(token, call) : destroyByKey(keyPrefix + key, call));
      } finally {
        forgetRead(call);
      }
    },
  };
}

/** Node's own request, which all who serve it share. */
function requestOf({ ctx }: StoreCall): object | undefined {
  const request: unknown = ctx && Reflect.get(ctx, 'req');
  return typeof request === 'object' && request !== null ? request : undefined;
}

/** A token names the tenant of when it was made; in one login that may have changed since. */
function loginOf(token: TokenSession, { subject, tenant, authTimeMs }: KeptSession): Parameters<ResumeSession>[1] {
  return subject === token.subject ? { subject, tenant, authTimeMs } : { subject: token.subject, tenant: token.tenant };
}

function isNewer(next: Identity, before: Identity): boolean {
  return next.authTimeMs !== undefined && next.authTimeMs > (before.authTimeMs ?? 0);
}

/** Its end has come, but not that of its tokens: koa-session would take it for expired. */
function withoutEnd(session: object | undefined): object {
  return Object.fromEntries(Object.entries(session ?? {}).filter(([name]) => name !== '_expire'));
}

function toPerson({ subject, tenant }: TokenSession): Pick<Identity, 'subject' | 'tenant'> {
  return { subject, ...(tenant === undefined ? {} : { tenant }) };
}

function toObject(text: string): object | undefined {
  const value: unknown = parseJson(text, { protoAction: 'remove', constructorAction: 'remove' });
  return value !== null && typeof value === 'object' ? (readJsonRecord(text) ?? value) : undefined;
}
