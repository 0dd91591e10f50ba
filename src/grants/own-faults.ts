import { LRUCache } from 'lru-cache';
import { CrossfadeError } from '../errors.js';
import type { BearerRejection } from '../principal.js';
import type { ClientRegistry, ResolvedClient } from '../rollout/clients.js';
import type { OwnFault } from '../rollout/fault-windows.js';
import type { Guardrail } from '../rollout/guardrail.js';
import type { Progress } from '../rollout/progress.js';
import type { Metrics } from '../telemetry/metrics.js';
import { digestOf } from '../tokens/remembered.js';
import type { SignAccessToken } from './sign.js';

/** A tenant that is not known; undefined is one that is known not to be. */
export const UNKNOWN = Symbol('unknown tenant');

/** Tells the guardrail what came of the bridge's own work, and knows its own recent tokens when they come back. */
export interface OwnFaults {
  /** The signer, watched. */
  signFor(what: 'exchange' | 'refresh'): SignAccessToken;
  /** A bearer was good. */
  accepted(cohort: string, subject: string): void;
  /** A bearer was refused: a fault of the bridge's own if it is, byte for byte, one that was made here a moment ago. */
  refused(token: string, reason: BearerRejection): void;
  /** A session that is there could be mapped, or not. Without a principal its cohort is known only where the client has no other. */
  mapped(client: ResolvedClient, session: string, succeeded: boolean): void;
  /** A family that nobody has ended is lost; `subject` tells persons apart. */
  lost(client: string, person: { readonly subject: string; readonly tenant: string | undefined | typeof UNKNOWN }): void;
}

export interface OwnFaultsOptions {
  readonly guardrail: Pick<Guardrail, 'succeeded' | 'failed'>;
  readonly clients: Pick<ClientRegistry, 'cohortOf' | 'hasCohorts'>;
  readonly sign: SignAccessToken;
  /** What the bridge itself accepts: a token for another audience is refused here rightly. */
  readonly audience: readonly string[];
  readonly progress: Pick<Progress, 'count'>;
  readonly metrics: Metrics;
}

/** Tokens that are remembered, as hashes, and for how long. */
const MAX_RECENT = 20_000;
const RECENT_MS = 60_000;
/** A token of ours may well be refused for these. */
const RIGHTLY: ReadonlySet<BearerRejection> = new Set(['expired', 'revoked', 'revoked-kid']);

export function createOwnFaults({ guardrail, clients, sign, audience, progress, metrics }: OwnFaultsOptions): OwnFaults {
  const recent = new LRUCache<string, { cohort: string; subject: string }>({ max: MAX_RECENT, ttl: RECENT_MS });
  const cohortOf = (client: string, tenant: string | undefined) => clients.cohortOf(client, tenant) ?? client;

  return {
    signFor: (what) =>
      async function signGuarded(principal, family, grant) {
        const { subject } = principal;
        const cohort = cohortOf(principal.client, principal.tenant);
        try {
          const issued = await sign(principal, family, grant);
          guardrail.succeeded(what, cohort, subject);
          if (audience.includes(grant.audience)) recent.set(digestOf(issued.token), { cohort, subject });
          return issued;
        } catch (error) {
          const fault = faultOf(error);
          if (fault) guardrail.failed(what, cohort, subject, fault);
          throw error;
        }
      },

    accepted: (cohort, subject) => guardrail.succeeded('verify', cohort, subject),

    refused(token, reason) {
      const known = RIGHTLY.has(reason) ? undefined : recent.get(digestOf(token));
      if (!known) return;
      progress.count('refused', '401:own-token', known.cohort);
      guardrail.failed('verify', known.cohort, known.subject, 'own-token-refused');
    },

    mapped({ id, config }, session, succeeded) {
      if (!config?.exchanges || clients.hasCohorts(id)) {
        // Whoever it is may be of any cohort of this client, or comes with one that does not exchange: told, not judged.
        if (!succeeded) metrics.ownFaults.inc({ of: 'mapping', fault: 'mapping' });
      } else if (succeeded) guardrail.succeeded('mapping', id, session);
      else guardrail.failed('mapping', id, session, 'mapping');
    },

    lost(client, { subject, tenant }) {
      if (tenant === UNKNOWN && clients.hasCohorts(client)) metrics.ownFaults.inc({ of: 'refresh', fault: 'lost-family' });
      else guardrail.failed('refresh', cohortOf(client, tenant === UNKNOWN ? undefined : tenant), subject, 'lost-family');
    },
  };
}

/** That there is no key to sign with is no fault of one cohort: it holds all of them by itself. */
function faultOf(error: unknown): OwnFault | undefined {
  if (!(error instanceof CrossfadeError)) return 'signing';
  if (error.reason === 'token-too-large') return error.reason;
  return error.reason === 'signing' && error.cause !== undefined ? 'signing' : undefined;
}
