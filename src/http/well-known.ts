import type { Context } from 'koa';
import { unavailable } from '../errors.js';
import type { JwksDocument } from '../keys/jwks.js';
import { TOKEN_EXCHANGE } from './token-endpoint.js';

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
  readonly tokenEndpoint: string;
  readonly jwksUri: string;
}

/** `GET /.well-known/oauth-authorization-server` (RFC 8414). */
export function createMetadataEndpoint({ issuer, tokenEndpoint, jwksUri }: MetadataOptions): (ctx: Context) => void {
  const metadata = {
    issuer,
    token_endpoint: tokenEndpoint,
    jwks_uri: jwksUri,
    response_types_supported: [],
    grant_types_supported: [TOKEN_EXCHANGE],
    token_endpoint_auth_methods_supported: ['none', 'client_secret_basic', 'client_secret_post'],
  };
  return function metadataEndpoint(ctx) {
    ctx.set('Cache-Control', 'public, max-age=300');
    ctx.body = metadata;
  };
}
