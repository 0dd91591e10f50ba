import { CrossfadeError } from '../errors.js';
import type { Progress } from '../rollout/progress.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { Tools } from '../telemetry/tools.js';
import { tellSpan } from '../telemetry/tracing.js';

/** One request for credentials, for as far as it has got. */
export interface Attempt {
  client?: { readonly id: string };
  /** Whom it counts for. */
  cohort?: string;
}

export type GrantKind = 'exchange' | 'refresh' | 'return' | 'issue';

/**
 * Counts, audits and traces an attempt, whatever comes of it. `work` gives what came of it, with a word for the metrics.
 * @throws what `work` throws.
 */
export type FrameAttempt = <T extends { readonly outcome: string }>(what: GrantKind, work: (attempt: Attempt) => Promise<T>) => Promise<T>;

export interface FrameOptions extends Pick<Tools, 'audit' | 'metrics'> {
  readonly progress: Pick<Progress, 'count'>;
}

export function createFrameAttempt({ progress, audit, metrics }: FrameOptions): FrameAttempt {
  const counters: Readonly<Record<GrantKind, Pick<Metrics['exchanges'], 'inc'>>> = {
    exchange: metrics.exchanges,
    refresh: metrics.refreshes,
    return: metrics.waysBack,
    issue: metrics.issued,
  };

  /** A login that the app has done itself is no step of the migration. */
  function countProgress(what: GrantKind, outcome: 'granted' | 'failed', attempt: Attempt): void {
    if (what !== 'issue') progress.count(what, outcome, cohortOf(attempt));
  }

  function auditRefusal(what: GrantKind, client: string, code: string, error: unknown): void {
    if (what === 'issue') audit('tokens.refused', { at: 'issue', client, code });
    else audit(REFUSED[what], { client, code, ...reasonOf(error) });
  }

  return async function frameAttempt(what, work) {
    const attempt: Attempt = {};
    const clientOf = () => attempt.client?.id ?? 'unknown';
    const stop = what === 'exchange' ? metrics.exchangeSeconds.startTimer() : undefined;
    let outcome = 'server_error';
    try {
      const done = await work(attempt);
      outcome = done.outcome;
      countProgress(what, 'granted', attempt);
      return done;
    } catch (error) {
      if (error instanceof CrossfadeError) outcome = error.code;
      // What was rightly refused is neither granted nor failed.
      if (!(error instanceof CrossfadeError) || error.status >= 500) countProgress(what, 'failed', attempt);
      auditRefusal(what, clientOf(), outcome, error);
      throw error;
    } finally {
      tellSpan(() => ({ 'crossfade.grant': what, 'crossfade.client': clientOf(), 'crossfade.cohort': cohortOf(attempt) }));
      counters[what].inc({ client: clientOf(), outcome });
      stop?.();
    }
  };
}

const REFUSED = { exchange: 'exchange.refused', refresh: 'refresh.refused', return: 'return.refused' } as const;

function cohortOf({ cohort, client }: Attempt): string {
  return cohort ?? client?.id ?? 'unknown';
}

/** What of an error says why. */
function reasonOf(error: unknown): { stage?: string; reason?: string } {
  if (!(error instanceof CrossfadeError)) return {};
  const { stage, reason = error.auditReason } = error.details;
  return { ...(stage === undefined ? {} : { stage }), ...(reason === undefined ? {} : { reason }) };
}

/** The refresh token is of no use. `why` is for the audit alone: the client is not told. */
export function invalidGrant(why: string): CrossfadeError {
  return new CrossfadeError('invalid_grant', { auditReason: why });
}
