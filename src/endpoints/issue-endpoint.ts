import { z } from 'zod';
import { CrossfadeError } from '../errors.js';
import { assertInTime } from './budget.js';
import type { ClientRequests } from './client-request.js';
import { type ReadBody, readJsonBody } from './form.js';
import type { IssueForRequest } from './issue-for.js';
import { jsonReply, type Reply, type RequestHead } from './reply.js';

/** Named as the claims of a token are, where there is such a claim. */
const bodySchema = z.strictObject({
  client_id: z.string(),
  subject: z.string(),
  tenant: z.string().optional(),
  roles: z.array(z.string()).optional(),
  scope: z.string().optional(),
  auth_time: z.number().optional(),
  audience: z.string().optional(),
});

/**
 * `POST /auth/issue`: tokens at a login, for an app in another language whose login has moved on from sessions. It authenticates
 * with Basic as a client with `issue: true`; the body is JSON and names the client that the tokens are for. Where that client keeps its refresh token in a
 * cookie, the answer carries `Set-Cookie`, for the app to pass on.
 */
export function createIssueEndpoint(requests: ClientRequests, issueFor: IssueForRequest): (head: RequestHead, readBody: ReadBody) => Promise<Reply> {
  return async function issueEndpoint(head, readBody) {
    const client = requests.confidential(head, new Map(), 'issue');
    // An app's backend asks, never a page.
    requests.checkOrigin(head, { ...client, config: undefined }, { readsCookie: false, maySetCookie: true });
    const parsed = bodySchema.safeParse(await readJsonBody(head, readBody));
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      throw new CrossfadeError('invalid_request', { message: `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'does not fit'}` });
    }
    const { client_id: forClient, auth_time: authTime, subject, tenant, roles, scope, audience } = parsed.data;
    const issued = await issueFor(
      {
        subject,
        scope: (scope ?? '').split(' ').filter((token) => token !== ''),
        ...(roles ? { roles } : {}),
        ...(tenant === undefined ? {} : { tenant }),
        ...(authTime === undefined ? {} : { authTime }),
      },
      // As everywhere, what is empty counts as omitted.
      { client: forClient, ...(audience ? { audience } : {}) },
      () => assertInTime(head),
    );
    const body = {
      access_token: issued.accessToken,
      token_type: 'Bearer',
      expires_in: issued.expiresIn,
      sid: issued.sid,
      ...(issued.scope.length > 0 ? { scope: issued.scope.join(' ') } : {}),
      ...(issued.refreshToken === undefined ? {} : { refresh_token: issued.refreshToken }),
    };
    return jsonReply(200, body, [...(issued.setCookie === undefined ? [] : ['Set-Cookie', issued.setCookie]), 'Cache-Control', 'no-store']);
  };
}
