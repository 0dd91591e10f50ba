import { CrossfadeError } from '../errors.js';
import type { Progress } from '../rollout/progress.js';

/** One request for credentials, for as far as it has got: whose cohort it counts for. */
export interface Attempt {
  cohort?: string;
}

/** Counts what came of it: granted, or failed where the bridge could not do it. What was rightly refused is neither. */
export function countGrant(
  progress: Pick<Progress, 'count'>,
  what: 'exchange' | 'refresh' | 'return',
  { cohort = 'unknown' }: Attempt,
  error?: unknown,
): void {
  if (error === undefined) progress.count(what, 'granted', cohort);
  else if (!(error instanceof CrossfadeError) || error.status >= 500) progress.count(what, 'failed', cohort);
}
