import type { IssueGrant, IssueOptions, IssuePrincipal } from '../grants/issue.js';
import type { BridgeCookies } from './bridge-cookies.js';

/** Tokens at a login. */
export interface IssuedTokens {
  readonly accessToken: string;
  /** Seconds. */
  readonly expiresIn: number;
  /** For a client with `refreshTransport: body`. */
  readonly refreshToken?: string;
  /** For a client with `refreshTransport: cookie`: the `Set-Cookie` line to send with the answer to the login. */
  readonly setCookie?: string;
  readonly scope: readonly string[];
  /** The public name of what takes the place of a session: for `onEnded` and `endSubject({ exceptSid })`. */
  readonly sid: string;
}

/**
 * Issues tokens for a login that the app has done without a session. A refresh repeats the principal as it is given here.
 * @throws {CrossfadeError} `unauthorized_client` for a client that is not registered, `invalid_target` for an unknown audience,
 * `invalid_request` for a principal that is none, `temporarily_unavailable` while Redis is away or signing is broken.
 */
export type IssueFor = (principal: IssuePrincipal, options: IssueOptions) => Promise<IssuedTokens>;

/** The same for who may stop waiting: `assertInTime` throws then. */
export type IssueForRequest = (...given: Parameters<IssueGrant>) => Promise<IssuedTokens>;

export function createIssueFor(issue: IssueGrant, cookies: Pick<BridgeCookies, 'refreshLine'>): IssueForRequest {
  return async function issueFor(...given) {
    const { access, refreshToken, scope, unusedEnd, client, sid } = await issue(...given);
    const inCookie = client.refreshTransport === 'cookie';
    return {
      accessToken: access.token,
      expiresIn: access.expiresIn,
      scope,
      sid,
      ...(inCookie ? { setCookie: cookies.refreshLine(refreshToken, unusedEnd) } : { refreshToken }),
    };
  };
}
