import type { Principal } from '../principal.js';

/** What of a principal gets into an access token (RFC 9068, section 2.2), with the session that it goes back to: nothing else does. */
export function principalClaims({ subject, tenant, client, roles, scope, sid, authTime }: Principal, family: string | undefined) {
  return {
    sub: subject,
    client_id: client,
    sid,
    ...(family === undefined ? {} : { fid: family }),
    ...(authTime === undefined ? {} : { auth_time: authTime }),
    ...(tenant === undefined ? {} : { tenant }),
    ...(roles.length > 0 ? { roles } : {}),
    ...(scope.length > 0 ? { scope: scope.join(' ') } : {}),
  };
}

/** The family that a token belongs to; absent in tokens of a release that had none. */
export function claimedFamily({ fid }: Readonly<Record<string, unknown>>): string | undefined {
  return typeof fid === 'string' ? fid : undefined;
}

/** The principal of claims whose issuer, audience and times are checked; undefined where a claim is of a wrong type. */
export function claimedPrincipal(claims: Readonly<Record<string, unknown>>): Principal | undefined {
  const { sub, client_id: client, sid, jti, exp, auth_time: authTime, tenant, roles = [], scope = '' } = claims;
  if (!isText(sub) || !isText(client) || !isText(sid) || !isText(jti) || !isTime(exp)) return undefined;
  if (authTime !== undefined && !isTime(authTime)) return undefined;
  if (tenant !== undefined && !isText(tenant)) return undefined;
  if (!Array.isArray(roles) || !roles.every(isText) || typeof scope !== 'string') return undefined;
  return {
    subject: sub,
    client,
    sid,
    roles,
    scope: scope.split(' ').filter((token) => token !== ''),
    expiresAt: exp,
    via: 'jwt',
    ...(authTime === undefined ? {} : { authTime }),
    ...(tenant === undefined ? {} : { tenant }),
  };
}

/** A NumericDate that is a whole, finite number of seconds. */
export function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}
