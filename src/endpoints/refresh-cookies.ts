import { CrossfadeError } from '../errors.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { BridgeCookies } from './bridge-cookies.js';
import type { ClientRequests } from './client-request.js';
import type { Form } from './form.js';
import type { RequestHead } from './reply.js';

/** How a refresh token comes, and what becomes of the cookie that it came in. */
export interface RefreshCookies {
  /**
   * The refresh tokens of a request, by the way that its client has: one in the form, or those in the bridge's own cookie.
   * @throws {CrossfadeError} `invalid_request`, `forbidden_origin`.
   */
  read(head: RequestHead, form: Form, client: ResolvedClient, also: { readonly maySetCookie: boolean }): readonly string[];
  /** Where `work` refuses a token, a client that keeps it in a cookie is rid of it. Throws what `work` throws. */
  clearIfRefused<T>(client: ResolvedClient, work: () => Promise<T>): Promise<T>;
}

/** A refresh token for which these are the reason may be good again: Redis may get its data back, or this instance another release. */
const KEEPS_COOKIE: ReadonlySet<string | undefined> = new Set(['lost', 'unreadable']);

export function createRefreshCookies(
  requests: Pick<ClientRequests, 'checkOrigin'>,
  cookies: Pick<BridgeCookies, 'readRefresh' | 'clearedRefreshLine'>,
): RefreshCookies {
  return {
    read(head, form, client, { maySetCookie }) {
      const inCookie = client.config?.refreshTransport === 'cookie';
      requests.checkOrigin(head, client, { readsCookie: inCookie, maySetCookie: maySetCookie || inCookie });
      const posted = form.get('refresh_token');
      if (inCookie && posted !== undefined)
        throw new CrossfadeError('invalid_request', { message: 'this client keeps its refresh token in the cookie, not in the form' });
      const texts = inCookie ? cookies.readRefresh(head) : posted === undefined ? [] : [posted];
      if (texts.length === 0) throw new CrossfadeError('invalid_request', { message: 'refresh_token is missing' });
      return texts;
    },

    async clearIfRefused(client, work) {
      return await work().catch((error: unknown) => {
        const isGone = error instanceof CrossfadeError && error.code === 'invalid_grant' && !KEEPS_COOKIE.has(error.auditReason);
        if (!isGone || client.config?.refreshTransport !== 'cookie') throw error;
        throw new CrossfadeError('invalid_grant', { auditReason: error.auditReason, headers: { 'Set-Cookie': cookies.clearedRefreshLine() } });
      });
    },
  };
}
