import type { Clock } from '../clock.js';
import type { Audit } from './audit.js';

/** What in Redis was refused a moment ago: somebody writes there who should not, or has another fleet secret. */
export interface Refusals {
  /** Writes the audit, and takes note. */
  readonly audit: Audit;
  /** Names of the values. */
  readonly recent: readonly string[];
}

const RECENT_MS = 600_000;

export function watchRefusals(audit: Audit, clock: Clock): Refusals {
  const refusedAt = new Map<string, number>();
  return {
    audit(event, fields = {}) {
      if (event === 'value.refused') refusedAt.set(String(fields['key']), clock.now());
      audit(event, fields);
    },
    get recent() {
      return [...refusedAt].flatMap(([key, at]) => (clock.now() - at < RECENT_MS ? [key] : [])).sort();
    },
  };
}
