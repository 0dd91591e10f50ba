import type { Redis } from 'ioredis';
import { LRUCache } from 'lru-cache';
import type { RedisAccess } from '../config/config.js';
import type { Log } from '../telemetry/log.js';
import { type RedisState, stateOf } from './faults.js';

/** The credentials of one Redis while their files change. */
export interface LiveAccess {
  /** Those to connect with now. */
  readonly current: RedisAccess;
  /** Whether these are the ones that the files hold. */
  readonly isNewest: boolean;
  /** For an operator. Undefined: Redis takes what the files hold. */
  readonly problem: string | undefined;
  /** Notes with what a server is being connected to. */
  opening(server: string): void;
  /** Notes that every server takes the current ones, and lets them do what is needed: the ones before are not needed again. */
  confirm(): void;
  /** Notes that a server takes the current ones, and does not let them do what is needed: uses the ones before for a while. */
  fallBack(): Promise<void>;
  /** The files hold others. */
  change(next: RedisAccess): Promise<void>;
  /** Tries what the files hold on the living connections, and uses it where Redis takes it. */
  tryNewest(): Promise<void>;
  /** A server has answered an attempt to connect. Where it refuses the credentials, the others are tried at the next attempt. */
  answered(server: string | undefined, state: RedisState | undefined): void;
}

export interface LiveAccessOptions {
  /** What the connection is called in logs. */
  readonly name: string;
  readonly initial: RedisAccess;
  /** All connections that are open with these credentials. */
  readonly living: () => readonly Redis[];
  /** Sends a command also while the connection is not to be believed. */
  readonly unheld: <T>(send: () => T) => T;
  /** Called where Redis refuses the credentials: the files may have changed. */
  readonly onRefused: (() => void) | undefined;
  readonly log: Log;
}

/** How long the ones before are used where a server took the new ones, and did not let them do what is needed. */
const FALL_BACK_MS = 30_000;
/** Servers of which is kept what they were last connected to with. */
const MAX_SERVERS = 100;
const REFUSED = 'Redis refuses the credentials that the files hold now; those before are still used, and the new ones are tried again';

/** Credentials that Redis refuses change nothing: a secret store may be ahead of Redis. They are tried again. */
export function createLiveAccess({ name, initial, living, unheld, onRefused, log }: LiveAccessOptions): LiveAccess {
  let current = initial;
  let newest = initial;
  /** Those that were good before, in case that the current ones are not. */
  let previous: RedisAccess | undefined;
  let isRefused = false;
  /** The newest are not tried before this time. */
  let notBefore = Number.NEGATIVE_INFINITY;
  const openedWith = new LRUCache<string, RedisAccess>({ max: MAX_SERVERS });

  /** Whether a living connection takes them; undefined: it was not asked. A subscriber of RESP2 may not even ask. */
  async function takes(connection: Redis, { username, password }: RedisAccess): Promise<boolean | undefined> {
    if (connection.status !== 'ready' || password === undefined) return undefined;
    const secret = password.reveal();
    try {
      await unheld(() => (username === undefined ? connection.auth(secret) : connection.auth(username, secret)));
      return true;
    } catch (error) {
      return error instanceof Error && stateOf(error) === 'WRONGPASS' ? false : undefined;
    }
  }

  async function tryNewest(): Promise<void> {
    if (performance.now() < notBefore) return;
    const tried = newest;
    const answers = await Promise.all(living().map(async (connection) => await takes(connection, tried)));
    if (tried !== newest) return;
    if (answers.includes(false)) {
      if (!isRefused) log.error({ connection: name }, REFUSED);
      isRefused = true;
      return;
    }
    if (isRefused) log.info({ connection: name }, 'redis takes the new credentials');
    isRefused = false;
    if (tried !== current) previous = current;
    current = tried;
  }

  return {
    get current() {
      return current;
    },
    get isNewest() {
      return newest === current;
    },
    get problem() {
      return isRefused ? `${name}: ${REFUSED}` : undefined;
    },
    opening: (server) => void openedWith.set(server, current),
    confirm() {
      previous = undefined;
    },
    async fallBack() {
      if (!previous || current !== newest) return;
      const good = previous;
      log.error({ connection: name }, REFUSED);
      isRefused = true;
      notBefore = performance.now() + FALL_BACK_MS;
      [current, previous] = [good, undefined];
      await Promise.all(living().map(async (connection) => await takes(connection, good)));
    },
    async change(next) {
      newest = next;
      notBefore = Number.NEGATIVE_INFINITY;
      // A living connection says whether user and password are good. The rest counts from the next connect on.
      const { username: _, password: __, ...rest } = next;
      current = { ...rest, ...credentialsOf(current) };
      await tryNewest();
    },
    tryNewest,
    answered(server, state) {
      if (state !== 'NOAUTH' && state !== 'WRONGPASS') return;
      const next = current === newest ? previous : newest;
      // Another node may have refused the same before.
      if (next !== undefined && server !== undefined && openedWith.get(server) === current) [current, previous] = [next, current];
      onRefused?.();
    },
  };
}

function credentialsOf({ username, password }: RedisAccess): Pick<RedisAccess, 'username' | 'password'> {
  return { ...(username === undefined ? {} : { username }), ...(password === undefined ? {} : { password }) };
}
