import type { Context } from 'koa';
import type { ClientConfig } from '../config/config.js';
import { CrossfadeError } from '../errors.js';
import type { ClientRegistry, ResolvedClient } from '../rollout/clients.js';
import type { Audit } from '../telemetry/audit.js';
import { malformedRefusal } from './authenticator.js';
import { authenticateClient, type SecretHashes } from './client-authentication.js';
import { clientTraits } from './client-traits.js';
import { readCredentials } from './credentials.js';
import type { Form } from './form.js';
import { passesOriginCheck } from './origin.js';
import type { Peers } from './peer.js';

export interface ClientRequests {
  /**
   * The client that a request to an endpoint comes from: the one that it authenticates as or names, else by what it shows.
   * @throws {CrossfadeError} `invalid_client`.
   */
  resolve(ctx: Context, form: Form): ResolvedClient;
  /**
   * The confidential client that has authenticated.
   * @throws {CrossfadeError} `invalid_client`, and `unauthorized_client` where it lacks the permission.
   */
  confidential(ctx: Context, form: Form, permission?: 'introspect' | 'issue'): ResolvedClient;
  /**
   * Refuses a request that reads or may set a cookie, and does not come from a page of the client's own.
   * @throws {CrossfadeError} `forbidden_origin`.
   */
  checkOrigin(
    ctx: Context,
    client: Pick<ResolvedClient, 'id'> & { readonly config?: ClientConfig | undefined },
    what: { readonly readsCookie: boolean; readonly maySetCookie: boolean },
  ): void;
}

/** Two `Authorization` headers, or a token in the query: nobody can say which credential is meant. */
function refuseMalformed(ctx: Context): void {
  const { malformed } = readCredentials(ctx.req);
  if (!malformed) return;
  const { code, description = '' } = malformedRefusal(malformed);
  throw new CrossfadeError(code, { message: description });
}

export function createClientRequests(clients: ClientRegistry, secretHashes: SecretHashes, peers: Peers, audit: Audit): ClientRequests {
  return {
    resolve(ctx, form) {
      refuseMalformed(ctx);
      const authenticated = authenticateClient(ctx.req, form, clients, secretHashes);
      const client = clients.resolve(clientTraits(ctx.req, peers, authenticated?.id));
      if (!authenticated && client.config?.type === 'confidential') throw new CrossfadeError('invalid_client');
      return client;
    },

    confidential(ctx, form, permission) {
      refuseMalformed(ctx);
      const authenticated = authenticateClient(ctx.req, form, clients, secretHashes);
      if (authenticated?.type !== 'confidential') throw new CrossfadeError('invalid_client');
      if (permission && !authenticated[permission])
        throw new CrossfadeError('unauthorized_client', { message: `this client is not registered with ${permission}: true` });
      return clients.resolve(clientTraits(ctx.req, peers, authenticated.id));
    },

    checkOrigin(ctx, client, what) {
      if (passesOriginCheck(ctx.req, { origins: client.config?.origins ?? [], ...what })) return;
      audit('origin.refused', { client: client.id });
      throw new CrossfadeError('forbidden_origin', { message: 'the origin of this request may not use this client' });
    },
  };
}
