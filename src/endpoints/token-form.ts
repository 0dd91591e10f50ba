import { CrossfadeError } from '../errors.js';
import { type CookiePairs, parseCookies } from '../formats/cookies.js';
import type { AskedTokens } from '../grants/command.js';
import type { Form } from './form.js';

const SESSION_TOKEN_TYPE = 'urn:crossfade:params:oauth:token-type:session';
export const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token';

/** What tokens a form asks for. */
export function readAsked(form: Form): AskedTokens {
  return { targets: ['audience', 'resource'].flatMap((name) => form.get(name) ?? []), scope: form.get('scope') };
}

/** `subject_token` holds cookie pairs as in a `Cookie` header, of the configured names only. Undefined: there is none. */
export function readSubjectToken(form: Form, names: ReadonlySet<string>): CookiePairs | undefined {
  const token = form.get('subject_token');
  const type = form.get('subject_token_type');
  if (type !== undefined && type !== SESSION_TOKEN_TYPE)
    throw new CrossfadeError('invalid_request', { message: `subject_token_type must be ${SESSION_TOKEN_TYPE}` });
  if (token === undefined) return undefined;
  if (type === undefined) throw new CrossfadeError('invalid_request', { message: 'subject_token_type is missing' });
  const pairs = parseCookies(token);
  if (pairs.length === 0 || pairs.length !== token.split(';').length || pairs.some(([name]) => !names.has(name))) {
    throw new CrossfadeError('invalid_request', { message: 'subject_token must be cookie pairs of the configured names' });
  }
  return pairs;
}

/** @throws {CrossfadeError} `invalid_request`. */
export function refuseUnknownParameters(form: Form): void {
  const requested = form.get('requested_token_type');
  if (requested !== undefined && requested !== ACCESS_TOKEN_TYPE)
    throw new CrossfadeError('invalid_request', { message: `requested_token_type must be ${ACCESS_TOKEN_TYPE}` });
  if (form.has('actor_token')) throw new CrossfadeError('invalid_request', { message: 'actor_token is not supported' });
}
