import { LRUCache } from 'lru-cache';
import { parse as parseJson } from 'secure-json-parse';
import { z } from 'zod';
import type { Clock } from '../clock.js';
import { unavailable } from '../errors.js';
import type { Identity, Principal } from '../principal.js';
import type { Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { KeptSession } from './kept-session.js';
import type { SessionLedger } from './ledger.js';
import type { Logout } from './logout.js';
import type { SessionReader } from './reader.js';
import { readAs, type SessionEntry, sidOf } from './record.js';
import type { ResumeSession } from './resume.js';

/** A store as koa-session wants it. A Redis that is away is a rejection at once, which Koa answers 503. */
export interface SessionStore {
  get(key: string): Promise<object | undefined>;
  /** `maxAge` in ms; `session` for one that lives as long as the browser. */
  set(key: string, session: object, maxAge?: number | 'session'): Promise<void>;
  destroy(key: string): Promise<void>;
}

export interface SessionStoreOptions {
  readonly entry: SessionEntry;
  readonly sessions: SessionReader;
  readonly ledger: SessionLedger;
  readonly logout: Logout;
  readonly resume: ResumeSession;
  readonly names: TokenSessionNames;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
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

/** Records that this process has read, for as long as a slow request may take to write one again. */
const MAX_LOADED = 50_000;
const LOADED_MS = 15 * 60_000;

/**
 * The records of one entry for the app's own koa-session, by cookie or by token. What a request has read it writes again only
 * if the record is still there and its login has not ended: a slow request does not undo a logout.
 */
export function createSessionStore(options: SessionStoreOptions): SessionStore {
  const { entry, sessions, ledger, logout, resume, names, clock, log, metrics } = options;
  const loaded = new LRUCache<string, { readonly identity?: Identity }>({ max: MAX_LOADED, ttl: LOADED_MS });
  let toldOfNone = false;

  async function getByKey(key: string): Promise<object | undefined> {
    const reading = await sessions.readKnown(entry.name, key);
    if (reading.kind === 'session') {
      loaded.set(key, { identity: reading.session.identity });
      return toObject(reading.session.source.text);
    }
    if (reading.text === undefined) return undefined;
    loaded.set(key, {});
    return toObject(reading.text);
  }

  async function setByKey(key: string, text: string, ttlMs: number): Promise<void> {
    const sid = sidOf(entry.name, key);
    const known = loaded.get(key);
    const next = await readAs(entry, key, { text, ttlMs }, clock);
    if (next.kind === 'session' && (await sessions.isEnded(sid, next.session.identity))) return refuse();
    const loggedOut = known?.identity !== undefined && next.kind === 'rejected' && next.reason === 'nobody-logged-in';
    const endedAt = loggedOut ? await ledger.now(sid) : 0;
    const px = Math.max(1, Math.ceil(ttlMs));
    const written = await asking(known ? entry.client.set(key, text, 'PX', px, 'XX') : entry.client.set(key, text, 'PX', px));
    if (written === null) return refuse();
    loaded.set(key, next.kind === 'session' ? { identity: next.session.identity } : {});
    if (loggedOut && known?.identity) {
      const { subject, tenant, authTimeMs } = known.identity;
      await logout.note(sid, 'legacy-logout', { subject, tenant, authTimeMs, endedAt });
    }
  }

  function refuse(): void {
    metrics.lateWrites.inc();
    log.info('a session that has ended in the meantime was not written again');
  }

  async function destroyByKey(key: string): Promise<void> {
    const identity = loaded.get(key)?.identity;
    loaded.delete(key);
    const place = { entry: entry.name, key };
    await logout.end(sidOf(entry.name, key), 'legacy-logout', { place, ...(identity ? { person: identity } : {}) });
  }

  /** The session behind a token; undefined where there is none, or it is not this entry's. */
  async function find({ sid }: TokenSession): Promise<KeptSession | undefined> {
    const kept = await ledger.kept(sid);
    return kept?.entry === entry.name ? kept : undefined;
  }

  async function getByToken(token: TokenSession): Promise<object> {
    const kept = await find(token);
    if (!kept) return {};
    const resumed = await resume(token.sid, token);
    if (resumed.kind === 'ended') return {};
    if (resumed.kind === 'dormant') return toObject(resumed.kept.text) ?? {};
    loaded.set(kept.key, { identity: resumed.session.identity });
    return toObject(resumed.session.source.text) ?? {};
  }

  async function setByToken(token: TokenSession, text: string, ttlMs: number): Promise<void> {
    const kept = await find(token);
    if (!kept) {
      if (!toldOfNone) log.warn('ctx.session was written in a request whose token has no session: it is not kept');
      toldOfNone = true;
      return;
    }
    const reading = await sessions.readKnown(kept.entry, kept.key);
    if (reading.kind === 'session' && reading.session.identity.subject !== token.subject) return refuse();
    if (reading.kind === 'rejected' && reading.reason === 'unknown-session') {
      // The record is gone and nobody logged out: what is brought back one day is the newest.
      const resumed = await resume(token.sid, token);
      if (resumed.kind === 'dormant') await ledger.keep(token.sid, { ...resumed.kept, text });
      else refuse();
      return;
    }
    await setByKey(kept.key, text, ttlMs);
  }

  return {
    async get(key) {
      const token = names.read(key);
      return token ? await getByToken(token) : await getByKey(entry.keyPrefix + key);
    },
    async set(key, session, maxAge) {
      const token = names.read(key);
      const text = JSON.stringify(session);
      const ttlMs = typeof maxAge === 'number' ? maxAge : entry.limits.absoluteTtlSeconds * 1000;
      await (token ? setByToken(token, text, ttlMs) : setByKey(entry.keyPrefix + key, text, ttlMs));
    },
    async destroy(key) {
      const token = names.read(key);
      if (!token) return await destroyByKey(entry.keyPrefix + key);
      const kept = await find(token);
      if (kept) loaded.delete(kept.key);
      await logout.end(token.sid, 'legacy-logout', { person: { roles: [], scope: [], ...toPerson(token) } });
    },
  };
}

function toPerson({ subject, tenant }: TokenSession): Pick<Identity, 'subject' | 'tenant'> {
  return { subject, ...(tenant === undefined ? {} : { tenant }) };
}

function toObject(text: string): object | undefined {
  const value: unknown = parseJson(text, { protoAction: 'remove', constructorAction: 'remove' });
  return value !== null && typeof value === 'object' ? value : undefined;
}

async function asking<T>(work: Promise<T>): Promise<T> {
  return await work.catch((cause: unknown) => {
    throw unavailable('redis', cause);
  });
}
