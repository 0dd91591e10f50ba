import { CrossfadeError, unavailable } from '../errors.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { Audit } from '../telemetry/audit.js';
import type { Families } from '../tokens/family.js';
import { parseRefreshToken } from '../tokens/refresh-token.js';
import type { VerifyBearer } from '../tokens/verify.js';
import { assertInTime } from './budget.js';
import type { ClientRequests } from './client-request.js';
import { type ReadBody, readForm } from './form.js';
import { jsonReply, type Reply, type RequestHead } from './reply.js';

export interface RevokeEndpointOptions {
  readonly families: Families;
  readonly verifyBearer: VerifyBearer;
  readonly requests: ClientRequests;
  readonly audit: Audit;
}

/**
 * `POST /auth/revoke` (RFC 7009): ends the family that a refresh or access token belongs to; the session goes on. Hints are
 * not needed: a token shows what it is. What is unknown, or has ended, is answered 200 as well.
 */
export function createRevokeEndpoint({
  families,
  verifyBearer,
  requests,
  audit,
}: RevokeEndpointOptions): (head: RequestHead, readBody: ReadBody) => Promise<Reply> {
  async function revokeRefreshToken(text: string, client: ResolvedClient): Promise<void> {
    const token = parseRefreshToken(text);
    if (!token) return;
    const found = await families.find(token);
    if (found.kind === 'unknown') return;
    // Nobody knows the client of a lost family any more: to hold the token is enough.
    if (found.kind === 'lost') return await families.endLost(token);
    if (found.kind === 'unreadable' && found.why === 'later') throw unavailable('family');
    refuseOthers('grant' in found ? found.grant.client : found.client, client);
    await families.end(token.sid, token.family, found.kind === 'reused' ? 'reused' : 'revoked');
  }

  async function revokeAccessToken(text: string, client: ResolvedClient): Promise<void> {
    const outcome = await verifyBearer(text);
    if (outcome.kind === 'in-doubt') throw unavailable(outcome.about);
    if (outcome.kind !== 'authenticated') return;
    const { principal, token } = outcome;
    refuseOthers(principal.client, client);
    if (token.family !== undefined) await families.end(principal.sid, token.family, 'revoked');
  }

  return async function revokeEndpoint(head, readBody) {
    let client: ResolvedClient | undefined;
    try {
      const form = await readForm(head, readBody);
      client = requests.resolve(head, form);
      const token = form.get('token');
      if (token === undefined) throw new CrossfadeError('invalid_request', { message: 'token is missing' });
      await (token.startsWith('xfr1.') ? revokeRefreshToken(token, client) : revokeAccessToken(token, client));
      assertInTime(head);
      // RFC 7009, section 2.2, lets the body be ignored. OAuth libraries parse it as JSON all the same.
      return jsonReply(200, {}, ['Cache-Control', 'no-store']);
    } catch (error) {
      audit('tokens.refused', { at: 'revoke', client: client?.id ?? 'unknown', code: error instanceof CrossfadeError ? error.code : 'server_error' });
      throw error;
    }
  };
}

function refuseOthers(owner: string, client: ResolvedClient): void {
  if (owner !== client.id) throw new CrossfadeError('invalid_grant', { message: 'the token was issued to another client' });
}
