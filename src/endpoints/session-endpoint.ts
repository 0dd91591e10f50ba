import type { FrameAttempt } from '../grants/attempt.js';
import type { Return } from '../grants/return.js';
import type { BridgeCookies } from './bridge-cookies.js';
import { assertInTime } from './budget.js';
import type { ClientRequests } from './client-request.js';
import { type ReadBody, readForm } from './form.js';
import type { RefreshCookies } from './refresh-cookies.js';
import { emptyReply, type Reply, type RequestHead } from './reply.js';

export interface SessionEndpointOptions {
  readonly goBack: Return;
  readonly frameAttempt: FrameAttempt;
  readonly requests: ClientRequests;
  readonly refreshCookies: RefreshCookies;
  readonly cookies: Pick<BridgeCookies, 'sessionHeaders'>;
}

/** `POST /auth/session`: from a refresh token back to the session, for clients that know how. 204, with the cookies of the app. */
export function createSessionEndpoint(options: SessionEndpointOptions): (head: RequestHead, readBody: ReadBody) => Promise<Reply> {
  const { goBack, frameAttempt, requests, refreshCookies, cookies } = options;
  return async function sessionEndpoint(head, readBody) {
    return await frameAttempt('return', async (attempt) => {
      const form = await readForm(head, readBody);
      const client = requests.resolve(head, form);
      attempt.client = client;
      return await refreshCookies.clearIfRefused(client, async () => {
        const presented = refreshCookies.read(head, form, client, { maySetCookie: true });
        const beside = requests.beside(head, client);
        const returned = await goBack({ client, beside, presented, assertInTime: () => assertInTime(head) }, attempt);
        return { outcome: returned.outcome, ...emptyReply(204, [...cookies.sessionHeaders(returned), 'Cache-Control', 'no-store']) };
      });
    });
  };
}
