import type { GrantedTokens } from '../grants/command.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { BridgeCookies } from './bridge-cookies.js';
import { jsonReply, type Reply } from './reply.js';

/** Tokens as they go to the client (RFC 6749, section 5.1): the refresh token in the body or in a cookie. `issuedTokenType`: for exchanges (RFC 8693, section 2.2.1). */
export function replyTokens(
  client: ResolvedClient,
  { access, refreshToken, scope, unusedEnd }: GrantedTokens,
  cookies: Pick<BridgeCookies, 'refreshLine'>,
  issuedTokenType?: string,
): Reply {
  const inCookie = client.config?.refreshTransport === 'cookie';
  const body = {
    access_token: access.token,
    ...(issuedTokenType === undefined ? {} : { issued_token_type: issuedTokenType }),
    token_type: 'Bearer',
    expires_in: access.expiresIn,
    ...(scope.length > 0 ? { scope: scope.join(' ') } : {}),
    ...(inCookie || refreshToken === undefined ? {} : { refresh_token: refreshToken }),
  };
  const setCookie = inCookie && refreshToken !== undefined ? ['Set-Cookie', cookies.refreshLine(refreshToken, unusedEnd)] : [];
  return jsonReply(200, body, [...setCookie, 'Cache-Control', 'no-store', 'Pragma', 'no-cache']);
}
