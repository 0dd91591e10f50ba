import type { Context } from 'koa';
import { unavailable } from '../errors.js';
import type { JwksDocument } from '../keys/jwks.js';
import { TOKEN_EXCHANGE } from './exchange.js';

export const JWKS_PATH = '/.well-known/jwks.json';
export const METADATA_PATH = '/.well-known/oauth-authorization-server';

/** `GET /.well-known/jwks.json` (RFC 7517). Without a key it is 503: an empty set would make verifiers drop theirs. */
export function createJwksEndpoint(jwks: () => JwksDocument | undefined, maxAgeSeconds: number): (ctx: Context) => void {
  return function jwksEndpoint(ctx) {
    const document = jwks();
    if (!document) throw unavailable('keys');
    ctx.set('Cache-Control', `public, max-age=${maxAgeSeconds}`);
    ctx.set('ETag', document.etag);
    ctx.type = 'application/jwk-set+json';
    ctx.status = 200;
    if (ctx.fresh) {
      ctx.status = 304;
      return;
    }
    ctx.body = document.body;
  };
}

export interface MetadataOptions {
  readonly issuer: string;
  /** URI of the endpoints, without a slash at the end. */
  readonly base: string;
  readonly jwksUri: string;
}

const AUTH_METHODS = ['none', 'client_secret_basic', 'client_secret_post'];

/** `GET /.well-known/oauth-authorization-server` (RFC 8414). */
export function createMetadataEndpoint({ issuer, base, jwksUri }: MetadataOptions): (ctx: Context) => void {
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
  return function metadataEndpoint(ctx) {
    ctx.set('Cache-Control', 'public, max-age=300');
    ctx.body = metadata;
  };
}
