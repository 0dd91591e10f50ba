import type { Context } from 'koa';
import type { TokenSessionNames } from './session-store.js';

/** What koa-session's option `externalKey` takes. */
export interface ExternalKey {
  /** Empty where the request has no session. */
  get(ctx: Context): string;
  set(ctx: Context, key: string): void;
}

/**
 * Lets koa-session find the session of a request that came with a token, by the token's `sid`; for all others the cookie is read
 * and set as koa-session itself would. `authenticate()` must come before koa-session, and the store must be the bridge's.
 */
export function createExternalKey(names: TokenSessionNames): ExternalKey {
  return {
    get(ctx) {
      const { principal, rejection } = ctx.state;
      if (principal?.via === 'jwt') return names.nameOf(principal);
      // Somebody else's bearer, or a login that has ended: the cookie says nothing here.
      if (rejection?.credential === 'bearer' || rejection?.reason === 'logged-out') return '';
      const { key, signed } = optionsOf(ctx);
      return ctx.cookies.get(key, { signed }) ?? '';
    },
    set(ctx, key) {
      if (names.read(key)) return;
      const { key: name, ...options } = optionsOf(ctx);
      ctx.cookies.set(name, key, options);
    },
  };
}

/** koa-session's own options, which hold those of its cookie. */
function optionsOf(ctx: Context): { readonly key: string; readonly signed: boolean } {
  const options: unknown = Reflect.get(ctx, 'sessionOptions');
  if (options === null || typeof options !== 'object') throw new TypeError('bridge.externalKey() is for koa-session');
  const key: unknown = Reflect.get(options, 'key');
  const signed = Reflect.get(options, 'signed') !== false;
  return { ...options, signed, key: typeof key === 'string' ? key : 'koa.sess' };
}
