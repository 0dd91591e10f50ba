import { LRUCache } from 'lru-cache';
import type { Audit } from '../telemetry/audit.js';
import type { Metrics } from '../telemetry/metrics.js';

/** Counts the sessions whose records are gone without a logout, each once. */
export interface Vanished {
  (sid: string): void;
  /** Says what has not been said yet. */
  close(): void;
}

const SAID_EVERY_MS = 1000;
const MAX_KNOWN = 100_000;

/** Counted one by one, said once a second: a flush takes all of them at once, and is one story. */
export function createVanished(audit: Audit, metrics: Metrics): Vanished {
  const known = new LRUCache<string, true>({ max: MAX_KNOWN });
  let unsaid = 0;
  let timer: NodeJS.Timeout | undefined;

  function say(): void {
    clearTimeout(timer);
    timer = undefined;
    if (unsaid > 0) audit('session.vanished', { records: unsaid });
    unsaid = 0;
  }

  function vanished(sid: string): void {
    if (known.has(sid)) return;
    known.set(sid, true);
    metrics.sessionsVanished.inc();
    unsaid += 1;
    timer ??= setTimeout(say, SAID_EVERY_MS).unref();
  }
  return Object.assign(vanished, { close: say });
}
