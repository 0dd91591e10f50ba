import type { ClientConfig } from '../config/config.js';
import { CrossfadeError } from '../errors.js';
import type { Beside } from '../grants/command.js';
import type { ClientRegistry, ResolvedClient } from '../rollout/clients.js';
import type { Audit } from '../telemetry/audit.js';
import { malformedRefusal } from './authenticator.js';
import { authenticateClient, type SecretHashes } from './client-authentication.js';
import { clientTraits } from './client-traits.js';
import { type PresentedCredentials, readCredentials } from './credentials.js';
import type { Form } from './form.js';
import { passesOriginCheck } from './origin.js';
import type { Peers } from './peer.js';
import type { RequestHead } from './reply.js';

export interface ClientRequests {
  /**
   * The client that a request to an endpoint comes from: the one that it authenticates as or names, else by what it shows.
   * @throws {CrossfadeError} `invalid_client`.
   */
  resolve(head: RequestHead, form: Form): ResolvedClient;
  /**
   * The confidential client that has authenticated.
   * @throws {CrossfadeError} `invalid_client`, and `unauthorized_client` where it lacks the permission.
   */
  confidential(head: RequestHead, form: Form, permission?: 'introspect' | 'issue'): ResolvedClient;
  /** What else came along with a request; without cookies where its origin may not have them read. */
  beside(head: RequestHead, client: ResolvedClient): Beside;
  /**
   * Refuses a request that reads or may set a cookie, and does not come from a page of the client's own.
   * @throws {CrossfadeError} `forbidden_origin`.
   */
  checkOrigin(
    head: RequestHead,
    client: Pick<ResolvedClient, 'id'> & { readonly config?: ClientConfig | undefined },
    what: { readonly readsCookie: boolean; readonly maySetCookie: boolean },
  ): void;
}

/** @throws {CrossfadeError} `invalid_request`: two `Authorization` headers, or a token in the query, do not say which credential is meant. */
export function readOneCredential(head: RequestHead): PresentedCredentials {
  const presented = readCredentials(head);
  if (!presented.malformed) return presented;
  const { code, description = '' } = malformedRefusal(presented.malformed);
  throw new CrossfadeError(code, { message: description });
}

export function createClientRequests(clients: ClientRegistry, secretHashes: SecretHashes, peers: Peers, audit: Audit): ClientRequests {
  return {
    resolve(head, form) {
      readOneCredential(head);
      const authenticated = authenticateClient(head, form, clients, secretHashes);
      const client = clients.resolve(clientTraits(head, peers, authenticated?.id));
      if (!authenticated && client.config?.type === 'confidential') throw new CrossfadeError('invalid_client');
      return client;
    },

    confidential(head, form, permission) {
      readOneCredential(head);
      const authenticated = authenticateClient(head, form, clients, secretHashes);
      if (authenticated?.type !== 'confidential') throw new CrossfadeError('invalid_client');
      if (permission && !authenticated[permission])
        throw new CrossfadeError('unauthorized_client', { message: `this client is not registered with ${permission}: true` });
      return clients.resolve(clientTraits(head, peers, authenticated.id));
    },

    beside(head, client) {
      const { bearer, cookies } = readCredentials(head);
      const origins = client.config?.origins ?? [];
      const mayBeRead = origins.length > 0 && passesOriginCheck(head, { origins, readsCookie: true, maySetCookie: false });
      return { bearer, cookies: mayBeRead ? cookies : [] };
    },

    checkOrigin(head, client, what) {
      if (passesOriginCheck(head, { origins: client.config?.origins ?? [], ...what })) return;
      audit('origin.refused', { client: client.id });
      throw new CrossfadeError('forbidden_origin', { message: 'the origin of this request may not use this client' });
    },
  };
}
