import type { Clock } from '../clock.js';
import type { RandomSource } from '../random.js';
import type { Audit } from './audit.js';
import type { Log } from './log.js';
import type { Metrics } from './metrics.js';

/** What every part needs some of, and none makes for itself. */
export interface Tools {
  /** The time that counts: with an instance that of the fleet, as well as it is known. */
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Log;
  readonly audit: Audit;
  readonly metrics: Metrics;
}
