import { createHash, timingSafeEqual } from 'node:crypto';
import type { ClientConfig } from '../config/config.js';
import type { Secret } from '../config/secret.js';
import { CrossfadeError } from '../errors.js';
import type { ClientRegistry } from '../rollout/clients.js';
import type { Form } from './form.js';
import { header, type RequestHead } from './reply.js';

/**
 * The client that a token request names: `client_secret_basic` or `client_secret_post` for confidential clients,
 * `client_id` for public ones (RFC 6749, section 2.3.1). Undefined where it names none.
 * @throws {CrossfadeError} `invalid_client`, or `invalid_request` for two ways at once.
 */
export function authenticateClient(request: RequestHead, form: Form, clients: ClientRegistry, secretHashes: SecretHashes): ClientConfig | undefined {
  const basic = readBasic(header(request, 'authorization'));
  const posted = { id: form.get('client_id'), secret: form.get('client_secret') };
  if (basic && posted.secret !== undefined) throw new CrossfadeError('invalid_request', { message: 'the client authenticates in two ways' });
  if (basic && posted.id !== undefined && posted.id !== basic.id)
    throw new CrossfadeError('invalid_request', { message: 'two different clients are named' });
  const { id, secret } = basic ?? posted;
  if (id === undefined) {
    if (secret !== undefined) throw new CrossfadeError('invalid_client');
    return undefined;
  }
  const client = clients.byId(id);
  if (!client) throw new CrossfadeError('invalid_client', { message: `no client ${printable(id)} is registered here` });
  if (!hasRightSecret(client, secretHashes(client.id), secret)) throw new CrossfadeError('invalid_client');
  return client;
}

/** As it may stand in an `error_description` (RFC 6749, section 5.2), and no longer than an id of ours. */
function printable(id: string): string {
  return /^[\x21\x23-\x5b\x5d-\x7e]{1,64}$/.test(id) ? id : 'of that name';
}

function hasRightSecret({ type }: ClientConfig, hashes: readonly Secret[], secret: string | undefined): boolean {
  if (type === 'public') return secret === undefined;
  if (secret === undefined) return false;
  const given = createHash('sha256').update(secret).digest();
  return hashes.filter((hash) => timingSafeEqual(given, Buffer.from(hash.reveal(), 'hex'))).length > 0;
}

/** Hex SHA-256 of each secret with which a client may authenticate now. */
export type SecretHashes = (client: string) => readonly Secret[];

/** An empty secret is none (RFC 6749, section 2.3.1). */
function readBasic(authorization: string | undefined): { id: string; secret: string | undefined } | undefined {
  if (authorization === undefined || !/^basic(\s|$)/i.test(authorization)) return undefined;
  const encoded = /^basic +([A-Za-z0-9+/=]+)$/i.exec(authorization)?.[1];
  if (encoded === undefined) throw new CrossfadeError('invalid_client');
  const text = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  if (colon < 0) throw new CrossfadeError('invalid_client');
  return { id: formDecode(text.slice(0, colon)), secret: formDecode(text.slice(colon + 1)) || undefined };
}

/** Id and secret are form-encoded before they are joined (RFC 6749, section 2.3.1). */
function formDecode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    throw new CrossfadeError('invalid_client');
  }
}
