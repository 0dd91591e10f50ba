import { randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import Keygrip from 'keygrip';
import { parse as parseJson } from 'secure-json-parse';
import type { SessionConfig } from '../config/config.js';
import type { CookiePairs } from './cookies.js';
import type { DormantRecord, LocatedSession, ParsedRecord, RestoredRecord, SessionFormat, SessionRecord, StoredRecord } from './format.js';

/** What koa-session makes by itself: a UUID (7, 6, 5) or `<ms>-<uid>` (4), behind the app's own `prefix`. */
const GENERATED_ID = /^([\w.:-]{0,64})(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{13}-[\w-]{16,64})$/;
/** What an app's own `genid` may make, once its signature has proven that the app made it. */
const SIGNED_ID = /^(?!.*\.\.)[\w.:+/=~-]{1,256}$/;

/** A request's cookies of one name that are looked at, at most: each costs an HMAC per secret. */
const MAX_COOKIES_OF_A_NAME = 64;
/** Those of them that name a record, at most: each costs a read. */
const MAX_RECORDS = 4;
const MAX_PAIR_BYTES = 4096;
/** koa-session keeps a record so much longer than the session, in ms. */
const RECORD_OUTLIVES_MS = 10_000;

export type KoaSessionOptions = Pick<SessionConfig, 'cookie' | 'keyPrefix' | 'idPattern' | 'signed' | 'secrets'> & {
  /** What the bridge's own keys start with: no cookie may name one. */
  readonly reservedPrefix: string;
};

/**
 * koa-session 4 to 7 with an external store: the cookie holds the record's key, `<cookie>.sig` signs it with keygrip,
 * and the record is JSON with `_expire` (ms) and `_maxAge`, or `_session: true` for a session without an end of its own.
 */
export function createKoaSessionFormat(options: KoaSessionOptions): SessionFormat {
  const { cookie, keyPrefix, signed, reservedPrefix } = options;
  const signature = `${cookie}.sig`;
  const signers = options.secrets.map((secret) => new Keygrip([secret.reveal()]));
  const idPattern = options.idPattern === undefined ? (signed ? SIGNED_ID : GENERATED_ID) : new RegExp(`^(?:${options.idPattern})$`);

  function locateOne(id: string, signatures: readonly string[]): LocatedSession {
    const key = keyPrefix + id;
    if (id.length + cookie.length >= MAX_PAIR_BYTES || !idPattern.test(id) || key.startsWith(reservedPrefix)) return { rejected: 'bad-id' };
    if (signed && !isSigned(`${cookie}=${id}`, signatures, signers)) return { rejected: 'bad-signature' };
    return { key };
  }

  /** Behind the same prefix as the old one; an app with a `genid` of its own gets what its pattern lets pass. */
  function newId(oldId: string): string | undefined {
    const prefix = GENERATED_ID.exec(oldId)?.[1] ?? '';
    const random = [randomUUID(), randomBytes(16).toString('hex'), randomBytes(24).toString('base64url'), randomBytes(32).toString('base64url')];
    return random.map((text) => prefix + text).find((id) => idPattern.test(id));
  }

  return {
    cookieNames: signed ? [cookie, signature] : [cookie],

    locate(cookies: CookiePairs) {
      const ids = valuesOf(cookies, cookie);
      if (ids.length === 0) return [];
      const signatures = valuesOf(cookies, signature);
      const located = ids.map((id) => locateOne(id, signatures));
      const named = located.filter((outcome) => 'key' in outcome);
      return named.length > 0 ? named.slice(0, MAX_RECORDS) : located;
    },

    parse(stored, nowMs) {
      const record = readRecord(stored.text);
      if (!record) return { rejected: 'unreadable-record' };
      // An unsigned cookie may name any key, so only what koa-session marked as its own is taken for a session.
      if (!signed && typeof record['_expire'] !== 'number' && record['_session'] !== true) return { rejected: 'unreadable-record' };
      return withTimes(record, stored, nowMs);
    },

    cookiesOf(key) {
      const value = key.slice(keyPrefix.length);
      const [newest] = signers;
      return newest && signed
        ? [
            [cookie, value],
            [signature, newest.sign(`${cookie}=${value}`)],
          ]
        : [[cookie, value]];
    },

    restore(dormant) {
      const record = readRecord(dormant.text);
      const id = newId(dormant.key.slice(keyPrefix.length));
      return record && id !== undefined ? withNewTimes(keyPrefix + id, record, dormant) : undefined;
    },
  };
}

/** One HMAC for each secret, however many signatures came: cookies of several paths bring several. */
function isSigned(pair: string, signatures: readonly string[], signers: readonly Keygrip[]): boolean {
  return signers.some((signer) => {
    const expected = Buffer.from(signer.sign(pair));
    return signatures.some((given) => {
      const bytes = Buffer.from(given);
      return bytes.length === expected.length && timingSafeEqual(bytes, expected);
    });
  });
}

function valuesOf(cookies: CookiePairs, name: string): string[] {
  const values: string[] = [];
  for (const [found, value] of cookies) {
    if (found === name && value !== '' && !values.includes(value) && values.length < MAX_COOKIES_OF_A_NAME) values.push(value);
  }
  return values;
}

/** A plain object without members that would reach a prototype; undefined for everything else. */
function readRecord(text: string): SessionRecord | undefined {
  try {
    const value: unknown = parseJson(text, { protoAction: 'error', constructorAction: 'error' });
    return isRecord(value) && !Object.hasOwn(value, 'constructor') ? value : undefined;
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is SessionRecord {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

/** The session ends at `_expire` or with its key, whichever is earlier. koa-session heeds `_expire` only if it is a number. */
function withTimes(record: SessionRecord, { ttlMs }: StoredRecord, nowMs: number): ParsedRecord {
  const { _expire: expire, _maxAge: maxAge } = record;
  const ends = [...(typeof expire === 'number' ? [expire] : []), ...(ttlMs >= 0 ? [nowMs + ttlMs] : [])];
  const expiresAtMs = Math.min(...ends);
  if (expiresAtMs < nowMs) return { rejected: 'expired' };
  return {
    record,
    ...(ends.length > 0 ? { expiresAtMs } : {}),
    ...(typeof maxAge === 'number' && maxAge > 0 ? { idleMs: maxAge } : {}),
  };
}

/** It ends with what it is made for, and no later than it would have itself: unused, where use prolongs it, else at its old end. */
function withNewTimes(key: string, record: SessionRecord, { nowMs, endsAtMs, rolling }: DormantRecord): RestoredRecord {
  const { _expire: expire, _maxAge: maxAge } = record;
  if (typeof expire !== 'number') return { key, text: JSON.stringify(record), ttlMs: endsAtMs - nowMs };
  const own = rolling && typeof maxAge === 'number' ? nowMs + maxAge : expire;
  const ends = Math.min(endsAtMs, own);
  return { key, text: JSON.stringify({ ...record, _expire: ends }), ttlMs: ends - nowMs + RECORD_OUTLIVES_MS };
}
