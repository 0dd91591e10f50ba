import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { CrossfadeError } from '../errors.js';
import type { BearerRejection, Principal } from '../principal.js';
import type { ClientRegistry } from '../rollout/clients.js';
import type { Guardrail, OwnFault } from '../rollout/guardrail.js';
import type { SignAccessToken } from './token-answer.js';

/** Tells the guardrail what came of the bridge's own work, and knows its own recent tokens when they come back. */
export interface Guarded {
  /** The same signer, watched. */
  readonly sign: SignAccessToken;
  /** A bearer was good. */
  accepted(principal: Principal): void;
  /** A bearer was refused: a fault of the bridge's own if it is, byte for byte, one that was made here a moment ago. */
  refused(token: string, reason: BearerRejection): void;
  /** A family that nobody has ended is lost, or a session could not be mapped; `subject` tells persons apart. */
  failed(client: string, subject: string, fault: OwnFault, tenant?: string): void;
}

export interface GuardedOptions {
  readonly guardrail: Guardrail;
  readonly clients: Pick<ClientRegistry, 'cohortOf'>;
  readonly sign: SignAccessToken;
}

/** Tokens that are remembered, as hashes, and for how long. */
const MAX_RECENT = 20_000;
const RECENT_MS = 60_000;
/** A token of ours may well be refused for these. */
const RIGHTLY: ReadonlySet<BearerRejection> = new Set(['expired', 'revoked', 'revoked-kid']);

export function createGuarded({ guardrail, clients, sign }: GuardedOptions): Guarded {
  const recent = new LRUCache<string, { cohort: string; subject: string }>({ max: MAX_RECENT, ttl: RECENT_MS });
  const cohortOf = (client: string, tenant: string | undefined) => clients.cohortOf(client, tenant) ?? client;

  return {
    async sign(principal, family, grant) {
      const { subject } = principal;
      const cohort = cohortOf(principal.client, principal.tenant);
      try {
        const issued = await sign(principal, family, grant);
        guardrail.succeeded('issuing', cohort, subject);
        recent.set(hashOf(issued.token), { cohort, subject });
        return issued;
      } catch (error) {
        const fault = faultOf(error);
        if (fault) guardrail.failed('issuing', cohort, subject, fault);
        throw error;
      }
    },
    accepted: ({ client, tenant, subject }) => guardrail.succeeded('verifying', cohortOf(client, tenant), subject),
    refused(token, reason) {
      const known = RIGHTLY.has(reason) ? undefined : recent.get(hashOf(token));
      if (known) guardrail.failed('verifying', known.cohort, known.subject, 'own-token-refused');
    },
    failed: (client, subject, fault, tenant) => guardrail.failed('issuing', cohortOf(client, tenant), subject, fault),
  };
}

/** That there is no key to sign with is no fault of one cohort: it holds all of them by itself. */
function faultOf(error: unknown): OwnFault | undefined {
  if (!(error instanceof CrossfadeError)) return 'signing';
  if (error.details['reason'] === 'token-too-large') return 'token-too-large';
  return error.details['reason'] === 'signing' && error.cause !== undefined ? 'signing' : undefined;
}

function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('base64url');
}
