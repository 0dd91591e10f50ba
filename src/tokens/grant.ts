import { z } from 'zod';
import type { Identity } from '../principal.js';
import type { Seals } from '../redis/fleet-keyring.js';

const schema = z.object({
  client: z.string(),
  audience: z.string(),
  /** Who it was granted to, as last seen. */
  identity: z.object({
    subject: z.string(),
    tenant: z.string().optional(),
    roles: z.array(z.string()),
    scope: z.array(z.string()),
    authTime: z.number().optional(),
    authTimeMs: z.number().optional(),
  }),
  /** The scope that was asked for, where one was: what the session gets later is not in it. */
  askedScope: z.array(z.string()).optional(),
  /** Whether it is less than the session: by scope, or by another audience than the default. Such a family cannot return. */
  narrowed: z.boolean(),
  /** Whether it comes from a session; else the app issued it at a login of its own. */
  hasSession: z.boolean(),
  /** When the family ends at the latest, in seconds since the epoch. */
  endsAt: z.number(),
  /** How long it may lie unused, in seconds. */
  idleSeconds: z.number(),
  /** The fleet secrets that it was sealed under before: where one of them leaks, what passed through it is not believed. */
  under: z.array(z.string()).optional(),
});

/** What a family of refresh tokens may be turned into. */
export type Grant = Omit<z.output<typeof schema>, 'identity'> & { readonly identity: Identity };

/** What the seal of a grant is bound to. */
export const grantContext = (sid: string, secretHash: string) => `grant\0${sid}\0${secretHash}`;

/**
 * Redis keeps grants, but can make none (law 10): they are sealed with the fleet's secret, and bound to the session and to the
 * family's own secret.
 */
export function sealGrant(secrets: Pick<Seals, 'seal'>, sid: string, secretHash: string, grant: Grant): string {
  return secrets.seal(grantContext(sid, secretHash), JSON.stringify(grant));
}

/** Undefined for what no secret here opens; `later` for what a later release has sealed and this one does not understand. */
export function openGrant(secrets: Pick<Seals, 'unseal'>, sid: string, secretHash: string, sealed: string): Grant | 'later' | undefined {
  const text = secrets.unseal(grantContext(sid, secretHash), sealed);
  if (text === undefined) return undefined;
  const grant = schema.safeParse(JSON.parse(text)).data;
  if (!grant) return 'later';
  const { subject, roles, scope, tenant, authTime, authTimeMs } = grant.identity;
  return {
    ...grant,
    identity: {
      subject,
      roles,
      scope,
      ...(tenant === undefined ? {} : { tenant }),
      ...(authTime === undefined ? {} : { authTime }),
      ...(authTimeMs === undefined ? {} : { authTimeMs }),
    },
  };
}
