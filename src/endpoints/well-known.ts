import { unavailable } from '../errors.js';
import type { JwksDocument } from '../keys/jwks.js';
import { type HeaderList, header, jsonReply, type Reply, type RequestHead, textReply } from './reply.js';
import { TOKEN_EXCHANGE } from './token-endpoint.js';

export const JWKS_PATH = '/.well-known/jwks.json';
export const METADATA_PATH = '/.well-known/oauth-authorization-server';

/** `GET /.well-known/jwks.json` (RFC 7517). Without a key it is 503: an empty set would make verifiers drop theirs. */
export function createJwksEndpoint(jwks: () => JwksDocument | undefined, maxAgeSeconds: number): (head: RequestHead) => Reply {
  return function jwksEndpoint(head) {
    const document = jwks();
    if (!document) throw unavailable('keys');
    const headers: HeaderList = ['Cache-Control', `public, max-age=${maxAgeSeconds}`, 'ETag', document.etag];
    if (isFresh(head, document.etag)) return { status: 304, headers };
    return textReply(200, document.body, 'application/jwk-set+json', headers);
  };
}

/** Whether the client holds what has this tag (RFC 9110, section 13.1.2), and does not want it anew. */
function isFresh(head: RequestHead, etag: string): boolean {
  const held = header(head, 'if-none-match');
  if (held === undefined || /(?:^|,)\s*no-cache\s*(?:,|$)/.test(header(head, 'cache-control') ?? '')) return false;
  return held.trim() === '*' || held.split(',').some((one) => one.trim().replace(/^W\//, '') === etag);
}

export interface MetadataOptions {
  readonly issuer: string;
  /** URI of the endpoints, without a slash at the end. */
  readonly base: string;
  readonly jwksUri: string;
}

const AUTH_METHODS = ['none', 'client_secret_basic', 'client_secret_post'];

/** `GET /.well-known/oauth-authorization-server` (RFC 8414). */
export function createMetadataEndpoint({ issuer, base, jwksUri }: MetadataOptions): () => Reply {
  const metadata = {
    issuer,
    token_endpoint: `${base}/token`,
    jwks_uri: jwksUri,
    response_types_supported: [],
    grant_types_supported: [TOKEN_EXCHANGE, 'refresh_token'],
    token_endpoint_auth_methods_supported: AUTH_METHODS,
    revocation_endpoint: `${base}/revoke`,
    revocation_endpoint_auth_methods_supported: AUTH_METHODS,
    introspection_endpoint: `${base}/introspect`,
    introspection_endpoint_auth_methods_supported: AUTH_METHODS.slice(1),
  };
  const reply = jsonReply(200, metadata, ['Cache-Control', 'public, max-age=300']);
  return () => reply;
}
