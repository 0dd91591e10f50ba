import { CrossfadeError } from '../errors.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { Progress } from '../rollout/progress.js';
import type { Audit } from '../telemetry/audit.js';
import { tellSpan } from '../telemetry/tracing.js';
import type { BridgeCookies } from './cookies.js';

/** One request for credentials, for as far as it has got. */
export interface Attempt {
  client?: ResolvedClient;
  /** Whom it counts for. */
  cohort?: string;
}

export interface AttemptFrame {
  readonly what: 'exchange' | 'refresh' | 'return';
  /** Counts what came of it. */
  readonly counter: { inc(labels: { client: string; outcome: string }): void };
  readonly progress: Pick<Progress, 'count'>;
  readonly cookies: Pick<BridgeCookies, 'clearedRefreshLine'>;
  readonly audit: Audit;
}

const REFUSED = { exchange: 'exchange.refused', refresh: 'refresh.refused', return: 'return.refused' } as const;

/** A refresh token for which these are the reason may be good again: Redis may get its data back, or this instance another release. */
const KEEPS_COOKIE: ReadonlySet<string | undefined> = new Set(['lost', 'unreadable']);

/**
 * Counts, audits and traces an attempt, whatever comes of it. `work` gives what it came to. A client that keeps a refresh token in a cookie is
 * rid of one that is refused.
 * @throws what `work` throws.
 */
export async function frameAttempt(frame: AttemptFrame, work: (attempt: Attempt) => Promise<string>): Promise<void> {
  const { what, counter, progress, audit } = frame;
  const attempt: Attempt = {};
  let outcome = 'server_error';
  try {
    outcome = await work(attempt);
    progress.count(what, 'granted', cohortOf(attempt));
  } catch (error) {
    if (error instanceof CrossfadeError) outcome = error.code;
    // What was rightly refused is neither granted nor failed.
    if (!(error instanceof CrossfadeError) || error.status >= 500) progress.count(what, 'failed', cohortOf(attempt));
    audit(REFUSED[what], { client: attempt.client?.id ?? 'unknown', code: outcome, ...reasonOf(error) });
    throw withClearedCookie(error, attempt.client, frame.cookies);
  } finally {
    tellSpan(() => ({ 'crossfade.grant': what, 'crossfade.client': attempt.client?.id ?? 'unknown', 'crossfade.cohort': cohortOf(attempt) }));
    counter.inc({ client: attempt.client?.id ?? 'unknown', outcome });
  }
}

function cohortOf({ cohort, client }: Attempt): string {
  return cohort ?? client?.id ?? 'unknown';
}

/** What of an error says why. */
function reasonOf(error: unknown): { stage?: string; reason?: string } {
  if (!(error instanceof CrossfadeError)) return {};
  const { stage, reason = error.auditReason } = error.details;
  return { ...(stage === undefined ? {} : { stage }), ...(reason === undefined ? {} : { reason }) };
}

function withClearedCookie(error: unknown, client: ResolvedClient | undefined, cookies: AttemptFrame['cookies']): unknown {
  const isGone = error instanceof CrossfadeError && error.code === 'invalid_grant' && !KEEPS_COOKIE.has(error.auditReason);
  if (!isGone || client?.config?.refreshTransport !== 'cookie') return error;
  return new CrossfadeError('invalid_grant', { auditReason: error.auditReason, headers: { 'Set-Cookie': cookies.clearedRefreshLine() } });
}

/** The refresh token is of no use. `why` is for the audit alone: the client is not told. */
export function invalidGrant(why: string): CrossfadeError {
  return new CrossfadeError('invalid_grant', { auditReason: why });
}
