import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import type { Context } from 'koa';
import { type Clock, epochSeconds } from '../clock.js';
import type { Config } from '../config/config.js';
import type { Secret } from '../config/secret.js';
import { valuesOfOwnCookie } from '../endpoints/bridge-cookies.js';
import { readOneCredential } from '../endpoints/client-request.js';
import { CrossfadeError } from '../errors.js';

/** Who may operate the bridge over HTTP: whoever has the token of `admin.tokenFile`, as a bearer or signed in at the console with it. */
export interface OperatorAccess {
  /** Whether there is a token at all: else nobody can operate it over HTTP. */
  readonly isConfigured: boolean;
  /**
   * A page that a name of its own leads here (DNS rebinding) is no operator.
   * @throws {CrossfadeError} `forbidden_host`.
   */
  checkHost(ctx: Context): void;
  /**
   * By bearer token, or by the console's cookie; by cookie, what changes something must come from the console itself.
   * @throws {CrossfadeError} `missing_credential`, `invalid_token`, `invalid_request`, `forbidden_origin`.
   */
  check(ctx: Context): void;
  /** Takes the token and gives the console's cookie. @throws {CrossfadeError} `invalid_token`, `forbidden_origin`. */
  signIn(ctx: Context, token: string): void;
  signOut(ctx: Context): void;
  /** Whether the console's cookie is there and good. */
  isSignedIn(ctx: Context): boolean;
  /** What the console sends along with whatever changes something, against forgery by other sites. */
  csrfTokenOf(ctx: Context): string;
}

const COOKIE = 'crossfade-console';
const SIGNED_IN_SECONDS = 8 * 3600;
const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD']);

/** `token`: as it is now; undefined where none is configured. */
export function createOperatorAccess(config: Config['admin'], token: () => Secret | undefined, clock: Clock): OperatorAccess {
  const names = new Set(['localhost', config.host, ...config.hosts].map(bareName));
  /** Ends with the token: a new one signs everybody out. */
  const keyNow = () => digest(`crossfade console\0${token()?.reveal() ?? ''}`);
  const macOf = (purpose: string, text: string) => createHmac('sha256', keyNow()).update(`${purpose}\0${text}`).digest('base64url');

  function isToken(given: string): boolean {
    const secret = token();
    return secret !== undefined && timingSafeEqual(digest(given), digest(secret.reveal()));
  }

  /** The value of the console's cookie, if it is good. */
  function readCookie(ctx: Context): string | undefined {
    return valuesOfOwnCookie(ctx.req, COOKIE).find(isGood);
  }

  function isGood(value: string): boolean {
    const [endsAt = '', mac = ''] = value.split('.');
    if (!token() || !timingSafeEqual(digest(mac), digest(macOf('cookie', endsAt)))) return false;
    return Number(endsAt) > epochSeconds(clock);
  }

  /** A form or script of another site cannot set the header, and a browser says where a request comes from. */
  function isOwnPage(ctx: Context): boolean {
    const origin = ctx.get('Origin');
    return URL.canParse(origin) && new URL(origin).host === ctx.get('Host');
  }

  function setCookie(ctx: Context, value: string, maxAge: number): void {
    const secure = ctx.secure || ctx.get('X-Forwarded-Proto') === 'https' ? '; Secure' : '';
    ctx.set('Set-Cookie', `${COOKIE}=${value}; Path=/; Max-Age=${maxAge}; HttpOnly; SameSite=Strict${secure}`);
  }

  return {
    isConfigured: token() !== undefined,

    checkHost(ctx) {
      const name = bareName(ctx.hostname);
      if (!names.has(name) && isIP(name) === 0)
        throw new CrossfadeError('forbidden_host', { message: 'this Host is not one of admin.host and admin.hosts' });
    },

    check(ctx) {
      const { bearer } = readOneCredential(ctx.req);
      if (bearer !== undefined) {
        if (!isToken(bearer)) throw new CrossfadeError('invalid_token');
        return;
      }
      const value = readCookie(ctx);
      if (value === undefined) throw new CrossfadeError('missing_credential');
      if (SAFE.has(ctx.method)) return;
      if (!isOwnPage(ctx) || !timingSafeEqual(digest(ctx.get('X-CSRF-Token')), digest(macOf('csrf', value))))
        throw new CrossfadeError('forbidden_origin', { message: 'this does not come from the console: X-CSRF-Token or Origin is not what it sends' });
    },

    signIn(ctx, given) {
      if (!isOwnPage(ctx)) throw new CrossfadeError('forbidden_origin', { message: 'a sign-in must come from the console itself' });
      if (!isToken(given)) throw new CrossfadeError('invalid_token');
      const endsAt = String(epochSeconds(clock) + SIGNED_IN_SECONDS);
      setCookie(ctx, `${endsAt}.${macOf('cookie', endsAt)}`, SIGNED_IN_SECONDS);
    },

    signOut: (ctx) => setCookie(ctx, '', 0),
    isSignedIn: (ctx) => readCookie(ctx) !== undefined,
    csrfTokenOf: (ctx) => macOf('csrf', readCookie(ctx) ?? ''),
  };
}

/** Names differ by neither case nor the dot of the DNS' root (RFC 4343; RFC 3986, section 3.2.2). */
function bareName(host: string): string {
  return host
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/\.$/, '')
    .toLowerCase();
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
