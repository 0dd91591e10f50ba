import type { Audit } from '../telemetry/audit.js';
import type { Metrics } from '../telemetry/metrics.js';

/** Counts records that are gone without a logout. */
export interface Vanished {
  (): void;
  /** Says what has not been said yet. */
  close(): void;
}

const SAID_EVERY_MS = 1000;

/** Counted one by one, said once a second: a flush takes all of them at once, and is one story. */
export function createVanished(audit: Audit, metrics: Metrics): Vanished {
  let unsaid = 0;
  let timer: NodeJS.Timeout | undefined;

  function say(): void {
    clearTimeout(timer);
    timer = undefined;
    if (unsaid > 0) audit('session.vanished', { records: unsaid });
    unsaid = 0;
  }

  function vanished(): void {
    metrics.sessionsVanished.inc();
    unsaid += 1;
    timer ??= setTimeout(say, SAID_EVERY_MS).unref();
  }
  return Object.assign(vanished, { close: say });
}
