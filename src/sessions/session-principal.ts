import type { Mutable, Principal } from '../principal.js';
import type { LiveSession } from './record.js';

/** Frozen, as that of a token is: what a handler may do does not depend on the credential. */
export function toPrincipal({ sid, identity, expiresAt }: LiveSession, client: string): Principal {
  const { subject, tenant, roles, scope, authTime } = identity;
  const principal: Mutable<Principal> = { subject, client, roles, scope, sid, via: 'session' };
  if (tenant !== undefined) principal.tenant = tenant;
  if (authTime !== undefined) principal.authTime = authTime;
  if (expiresAt !== undefined) principal.expiresAt = expiresAt;
  Object.freeze(roles);
  Object.freeze(scope);
  return Object.freeze(principal);
}
