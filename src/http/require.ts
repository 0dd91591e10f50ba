import type { Context, Middleware, Next } from 'koa';
import { isScopeToken } from '../principal.js';
import type { Answers, Refusal } from './answer.js';

export interface RequireOptions {
  /** Scope that the principal must have: names with spaces between, or a list. All are needed. Default: none. */
  readonly scope?: string | readonly string[];
}

/**
 * Middleware for routes that need somebody: 401 for an anonymous request, 403 where a scope is missing. It comes after
 * `authenticate()`.
 * @throws {TypeError} at once, for a scope that is no scope (RFC 6749, section 3.3).
 */
export function createRequire(answers: Answers, { scope = [] }: RequireOptions = {}): Middleware {
  const needed = (typeof scope === 'string' ? scope.split(' ') : scope).filter((token) => token !== '');
  const wrong = needed.find((token) => !isScopeToken(token));
  if (wrong !== undefined) throw new TypeError(`require({ scope }): ${JSON.stringify(wrong)} is not a scope`);

  return function crossfadeRequire(ctx: Context, next: Next): void | Promise<void> {
    const { principal } = ctx.state;
    if (!principal) {
      answers.refuse(ctx, MISSING_CREDENTIAL);
      return;
    }
    if (!needed.every((token) => principal.scope.includes(token))) {
      answers.refuse(ctx, { code: 'insufficient_scope', details: { scope: needed.join(' ') } });
      return;
    }
    return next();
  };
}

const MISSING_CREDENTIAL: Refusal = { code: 'missing_credential' };
