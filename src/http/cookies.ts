import type { Context } from 'koa';
import type { Config, SessionConfig } from '../config/config.js';
import { parseCookies } from '../sessions/cookies.js';
import type { SessionEntry } from '../sessions/record.js';

type CookieOptions = SessionConfig['cookieOptions'];

/** The cookies that the bridge sets and clears: refresh tokens, and the app's own when a session comes back or ends. */
export interface BridgeCookies {
  /** The refresh token that the request's cookie holds. */
  readRefresh(ctx: Context): string | undefined;
  /** `expiresAt` in seconds since the epoch. */
  setRefresh(ctx: Context, token: string, expiresAt: number): void;
  /** The `Set-Cookie` line of the same, for somebody else to send. */
  refreshLine(token: string, expiresAt: number): string;
  /** The `Set-Cookie` line that clears it. */
  clearedRefreshLine(): string;
  /** Sets the cookies of a session; without an end they live as long as the browser does. */
  setSession(ctx: Context, entry: string, cookies: readonly (readonly [name: string, value: string])[], expiresAtMs?: number): void;
  /** Clears refresh token and all session cookies. */
  clearAll(ctx: Context): void;
}

export function createBridgeCookies(
  { issuer, http, sessions }: Pick<Config, 'issuer' | 'http' | 'sessions'>,
  entries: readonly Pick<SessionEntry, 'name' | 'format'>[],
): BridgeCookies {
  // On http, which the config allows for a loopback host only, a browser would refuse a Secure cookie and its prefix.
  const secure = issuer.startsWith('https:');
  const refreshName = secure ? '__Secure-xfr' : 'xfr';
  const refreshOptions: CookieOptions = { path: http.basePath, secure, httpOnly: true, sameSite: 'strict' };
  const refreshLine = (token: string, expiresAt: number) => cookieLine(refreshName, token, refreshOptions, expiresAt * 1000);

  return {
    readRefresh(ctx) {
      const pair = parseCookies(ctx.get('Cookie')).find(([name]) => name === refreshName);
      return pair?.[1] || undefined;
    },
    setRefresh(ctx, token, expiresAt) {
      ctx.append('Set-Cookie', refreshLine(token, expiresAt));
    },
    refreshLine,
    clearedRefreshLine: () => cookieLine(refreshName, '', refreshOptions, 0),
    setSession(ctx, entry, cookies, expiresAtMs) {
      const options = sessions.find(({ name }) => name === entry)?.cookieOptions;
      if (options) for (const [name, value] of cookies) ctx.append('Set-Cookie', cookieLine(name, value, options, expiresAtMs));
    },
    clearAll(ctx) {
      ctx.append('Set-Cookie', cookieLine(refreshName, '', refreshOptions, 0));
      for (const { name: entry, cookieOptions } of sessions) {
        const names = entries.find(({ name }) => name === entry)?.format.cookieNames ?? [];
        for (const name of names) ctx.append('Set-Cookie', cookieLine(name, '', cookieOptions, 0));
      }
    },
  };
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
