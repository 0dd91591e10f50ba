import { isScopeToken, type Principal } from '../principal.js';
import type { Answers, Refusal } from './answer.js';
import type { Reply } from './reply.js';

export interface RequireOptions {
  /** Scope that the principal must have: names with spaces between, or a list. All are needed. Default: none. */
  readonly scope?: string | readonly string[];
}

/** What a route needs: somebody, with a scope. Gives the answer where that is not there: 401 for an anonymous request, 403 where a scope is missing. */
export type Requirement = (principal: Principal | undefined) => Reply | undefined;

/** @throws {TypeError} at once, for a scope that is no scope (RFC 6749, section 3.3). */
export function createRequirement(answers: Pick<Answers, 'refuse'>, { scope = [] }: RequireOptions = {}): Requirement {
  const needed = (typeof scope === 'string' ? scope.split(' ') : scope).filter((token) => token !== '');
  const wrong = needed.find((token) => !isScopeToken(token));
  if (wrong !== undefined) throw new TypeError(`require({ scope }): ${JSON.stringify(wrong)} is not a scope`);
  return (principal) => {
    if (!principal) return answers.refuse(MISSING_CREDENTIAL);
    if (needed.every((token) => principal.scope.includes(token))) return undefined;
    return answers.refuse({ code: 'insufficient_scope', details: { scope: needed.join(' ') } });
  };
}

const MISSING_CREDENTIAL: Refusal = { code: 'missing_credential' };
