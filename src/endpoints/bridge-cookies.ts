import type { Clock } from '../clock.js';
import type { Config, SessionConfig } from '../config/config.js';
import { CrossfadeError } from '../errors.js';
import { parseCookies } from '../formats/cookies.js';
import type { ReturnedSession, SessionCookieLife } from '../grants/return.js';
import type { SessionEntry } from '../sessions/record.js';
import { type HeaderList, header, type RequestHead } from './reply.js';

type CookieOptions = SessionConfig['cookieOptions'];

/** The cookies that the bridge sets and clears: refresh tokens, and the app's own when a session comes back or ends. */
export interface BridgeCookies {
  readonly refreshName: string;
  /**
   * The refresh tokens in the request's cookies, each once: cookies of several paths or domains may have the name.
   * @throws {CrossfadeError} `invalid_request` for five and more.
   */
  readRefresh(head: RequestHead): readonly string[];
  /** The `Set-Cookie` line for a refresh token. `expiresAt` in seconds since the epoch. */
  refreshLine(token: string, expiresAt: number): string;
  /** The `Set-Cookie` line that clears it. */
  clearedRefreshLine(): string;
  /** Sets the cookies of a session, to end as `cookieOptions.expires` says, else as the app would let them end. */
  sessionHeaders(returned: Omit<ReturnedSession, 'outcome'>): HeaderList;
  /** Clears refresh token and all session cookies. */
  clearingHeaders(): HeaderList;
}

export function createBridgeCookies(
  { issuer, http, sessions }: Pick<Config, 'issuer' | 'http' | 'sessions'>,
  entries: readonly Pick<SessionEntry, 'name' | 'format'>[],
  clock: Clock,
): BridgeCookies {
  // On http, which the config allows for a loopback host only, a browser would refuse a Secure cookie and its prefix.
  const secure = issuer.startsWith('https:');
  const refreshName = secure ? '__Secure-xfr' : 'xfr';
  const refreshOptions: CookieOptions = { path: http.basePath, secure, httpOnly: true, sameSite: 'strict' };
  const refreshLine = (token: string, expiresAt: number) => cookieLine(refreshName, token, refreshOptions, expiresAt * 1000);
  const clearedRefreshLine = () => cookieLine(refreshName, '', refreshOptions, 0);

  return {
    refreshName,
    readRefresh: (head) => valuesOfOwnCookie(head, refreshName),
    refreshLine,
    clearedRefreshLine,
    sessionHeaders({ entry, cookies, life }) {
      const options = sessions.find(({ name }) => name === entry)?.cookieOptions;
      if (!options) return [];
      const expiresAtMs = endOfCookie(options.expires, life, clock.now());
      return cookies.flatMap(([name, value]) => ['Set-Cookie', cookieLine(name, value, options, expiresAtMs)]);
    },
    clearingHeaders() {
      const lines = sessions.flatMap(({ name: entry, cookieOptions }) => {
        const names = entries.find(({ name }) => name === entry)?.format.cookieNames ?? [];
        return names.map((name) => cookieLine(name, '', cookieOptions, 0));
      });
      return [clearedRefreshLine(), ...lines].flatMap((line) => ['Set-Cookie', line]);
    },
  };
}

/** The end of a session cookie, in ms; undefined: it ends with the browser. What the configuration says outranks the record. */
function endOfCookie(wanted: CookieOptions['expires'], { ofRecord, recordEndsAtMs }: SessionCookieLife, nowMs: number): number | undefined {
  if (typeof wanted === 'number') return nowMs + wanted * 1000;
  const life = wanted === 'browser' ? wanted : wanted === 'record' ? undefined : ofRecord;
  if (life === 'browser') return undefined;
  if (!life) return recordEndsAtMs;
  return 'untilMs' in life ? life.untilMs : nowMs + life.forMs;
}

/** A browser that really holds so many of one cookie does not exist: each costs a look into Redis. */
const MAX_OF_ONE_NAME = 4;

/**
 * The values of a cookie of the bridge, each once. The server sees neither path nor domain (RFC 6265, section 5.4), so any of them may be
 * the good one.
 * @throws {CrossfadeError} `invalid_request` for five and more.
 */
export function valuesOfOwnCookie(head: RequestHead, wanted: string): readonly string[] {
  const values = new Set(parseCookies(header(head, 'cookie') ?? '').flatMap(([name, value]) => (name === wanted && value !== '' ? [value] : [])));
  if (values.size > MAX_OF_ONE_NAME)
    throw new CrossfadeError('invalid_request', {
      message: `more than ${MAX_OF_ONE_NAME} cookies are named ${wanted}: clear the cookies of this site`,
    });
  return [...values];
}

/** One `Set-Cookie` line (RFC 6265, section 4.1). Names and values are ours or an app's ids: nothing in them needs quoting. */
function cookieLine(name: string, value: string, { path, domain, secure, httpOnly, sameSite }: CookieOptions, expiresAtMs?: number): string {
  return [
    `${name}=${value}`,
    `Path=${path}`,
    ...(domain === undefined ? [] : [`Domain=${domain}`]),
    ...(expiresAtMs === undefined ? [] : [`Expires=${new Date(expiresAtMs).toUTCString()}`]),
    ...(httpOnly ? ['HttpOnly'] : []),
    ...(secure ? ['Secure'] : []),
    `SameSite=${sameSite.charAt(0).toUpperCase()}${sameSite.slice(1)}`,
  ].join('; ');
}
