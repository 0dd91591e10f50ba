import { CrossfadeError, unavailable } from '../errors.js';
import { endsFamily } from '../login.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { SessionLedger } from '../sessions/ledger.js';
import type { Audit } from '../telemetry/audit.js';
import { principalClaims } from '../tokens/claims.js';
import type { Families } from '../tokens/family.js';
import { parseRefreshToken } from '../tokens/refresh-token.js';
import { decodeOneSpelling } from '../tokens/spelling.js';
import type { VerifyBearer } from '../tokens/verify.js';
import type { ClientRequests } from './client-request.js';
import { type ReadBody, readForm } from './form.js';
import { jsonReply, type Reply, type RequestHead } from './reply.js';

export interface IntrospectOptions {
  readonly issuer: string;
  readonly families: Families;
  readonly ledger: Pick<SessionLedger, 'marks'>;
  readonly verifyBearer: VerifyBearer;
  readonly requests: ClientRequests;
  readonly audit: Audit;
}

const INACTIVE = { active: false };

/**
 * `POST /auth/introspect` (RFC 7662), for confidential clients: access tokens where the client has `introspect: true`, refresh
 * tokens of its own. It says what is true now: where Redis cannot be asked, it does not answer from memory.
 */
export function createIntrospectEndpoint(options: IntrospectOptions): (head: RequestHead, readBody: ReadBody) => Promise<Reply> {
  const { issuer, families, ledger, verifyBearer, requests, audit } = options;

  async function describeRefreshToken(text: string, client: ResolvedClient): Promise<object> {
    const token = parseRefreshToken(text);
    const found = token ? await families.find(token) : undefined;
    if (found?.kind === 'unreadable' && found.why === 'later') throw unavailable('family');
    if (!token || found?.kind !== 'live' || found.grant.client !== client.id) return INACTIVE;
    const { identity, endsAt, askedScope } = found.grant;
    const principal = {
      ...identity,
      scope: askedScope ? identity.scope.filter((one) => askedScope.includes(one)) : identity.scope,
      client: client.id,
      sid: token.sid,
      via: 'jwt',
    } as const;
    return { active: true, iss: issuer, exp: endsAt, ...principalClaims(principal, token.family) };
  }

  async function describeAccessToken(text: string, client: ResolvedClient): Promise<object> {
    if (!client.config?.introspect) return INACTIVE;
    const outcome = await verifyBearer(text);
    if (outcome.kind === 'in-doubt') throw unavailable(outcome.about);
    if (outcome.kind !== 'authenticated') return INACTIVE;
    const { principal, token } = outcome;
    // What others have ended a moment ago may not have been heard yet.
    if (token.family !== undefined && (await families.hasEnded(principal.sid, token.family))) return INACTIVE;
    const { ended } = await ledger.marks(principal.sid);
    if (ended && endsFamily(ended, principal.subject, token.family ?? '')) return INACTIVE;
    const { audience, issuedAt } = token;
    return {
      active: true,
      token_type: 'Bearer',
      iss: issuer,
      aud: audience.length === 1 ? audience[0] : audience,
      iat: issuedAt,
      jti: decodeOneSpelling(text)?.payload['jti'],
      exp: principal.expiresAt,
      ...principalClaims(principal, token.family),
    };
  }

  return async function introspectEndpoint(head, readBody) {
    let client: ResolvedClient | undefined;
    try {
      const form = await readForm(head, readBody);
      client = requests.confidential(head, form);
      const token = form.get('token');
      if (token === undefined) throw new CrossfadeError('invalid_request', { message: 'token is missing' });
      const described = await (token.startsWith('xfr1.') ? describeRefreshToken(token, client) : describeAccessToken(token, client));
      return jsonReply(200, described, ['Cache-Control', 'no-store']);
    } catch (error) {
      audit('tokens.refused', {
        at: 'introspect',
        client: client?.id ?? 'unknown',
        code: error instanceof CrossfadeError ? error.code : 'server_error',
      });
      throw error;
    }
  };
}
