import type { Context } from 'koa';
import { type Clock, epochSeconds } from '../clock.js';
import { CrossfadeError } from '../errors.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { Families, FoundFamily } from '../tokens/families.js';
import { parseRefreshToken, type RefreshToken } from '../tokens/refresh-token.js';
import type { Revocations } from '../tokens/verify.js';
import type { ClientRequests } from './client-request.js';
import type { BridgeCookies } from './cookies.js';
import type { Form } from './form.js';
import { type Guarded, UNKNOWN } from './guarded.js';

export type UsableFamily = Extract<FoundFamily, { kind: 'live' | 'returned' }>;

export interface PresentedRefresh {
  readonly token: RefreshToken;
  readonly found: UsableFamily;
}

export interface PresentedRefreshOptions {
  readonly families: Families;
  readonly requests: ClientRequests;
  readonly revocations: Pick<Revocations, 'whatEnded'>;
  readonly cookies: BridgeCookies;
  readonly guarded: Pick<Guarded, 'lost'>;
  readonly clock: Clock;
}

/** The refresh token of a request, by the way that its client has: in the form, or in the bridge's own cookie. */
export type ReadRefresh = (ctx: Context, form: Form, client: ResolvedClient, what: { readonly maySetCookie: boolean }) => Promise<PresentedRefresh>;

export function createReadRefresh({ families, requests, revocations, cookies, guarded, clock }: PresentedRefreshOptions): ReadRefresh {
  function readText(ctx: Context, form: Form, client: ResolvedClient, maySetCookie: boolean): string {
    const inCookie = client.config?.refreshTransport === 'cookie';
    requests.checkOrigin(ctx, client, { readsCookie: inCookie, maySetCookie: maySetCookie || inCookie });
    const posted = form.get('refresh_token');
    if (inCookie && posted !== undefined)
      throw new CrossfadeError('invalid_request', { message: 'this client keeps its refresh token in the cookie, not in the form' });
    const text = inCookie ? cookies.readRefresh(ctx) : posted;
    if (text === undefined) throw new CrossfadeError('invalid_request', { message: 'refresh_token is missing' });
    return text;
  }

  return async function readRefresh(ctx, form, client, { maySetCookie }) {
    const token = parseRefreshToken(readText(ctx, form, client, maySetCookie));
    if (!token) throw invalidGrant(client, cookies, 'malformed');
    const found = await families.find(token);
    if (found.kind === 'unknown') throw invalidGrant(client, cookies, 'unknown');
    if (found.kind === 'unreadable') {
      guarded.lost(client.id, { subject: token.family, tenant: UNKNOWN });
      throw invalidGrant(client, cookies, 'unreadable');
    }
    if (found.kind === 'ended') throw invalidGrant(client, cookies, found.reason);
    // Another client's token is none of this one's business: the family stays as it is.
    if ((found.kind === 'returned' ? found.client : found.grant.client) !== client.id) throw invalidGrant(client, cookies, 'other-client');
    if (found.kind === 'returned') return { token, found };
    if (found.kind === 'reused') {
      await families.end(token.sid, token.family, 'reused');
      throw invalidGrant(client, cookies, 'reused');
    }
    const { grant } = found;
    if (grant.endsAt <= epochSeconds(clock)) throw invalidGrant(client, cookies, 'expired');
    // A Redis that was restored from an older copy may have forgotten what this instance knows.
    const { sid, family } = token;
    if (revocations.whatEnded({ sid, family, subject: grant.identity.subject, issuedAt: 0 })) throw invalidGrant(client, cookies, 'revoked');
    return { token, found };
  };
}

/** A client that keeps the token in a cookie is rid of it. `why` is for the audit alone: the client is not told. */
export function invalidGrant(client: ResolvedClient, cookies: BridgeCookies, why: string): CrossfadeError {
  const inCookie = client.config?.refreshTransport === 'cookie';
  return new CrossfadeError('invalid_grant', { cause: why, ...(inCookie ? { headers: { 'Set-Cookie': cookies.clearedRefreshLine() } } : {}) });
}
