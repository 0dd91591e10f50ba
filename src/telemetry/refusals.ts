import type { Clock } from '../clock.js';
import type { Audit } from './audit.js';

/** What in Redis was refused a moment ago: somebody writes there who should not, or has another fleet secret. */
export interface Refusals {
  /** Writes the audit, and takes note. */
  readonly audit: Audit;
  /** A sentence for an operator, where there were any. */
  readonly problems: readonly string[];
}

const RECENT_MS = 600_000;

export function watchRefusals(audit: Audit, clock: Clock): Refusals {
  const refusedAt = new Map<string, number>();
  return {
    audit(event, fields = {}) {
      if (event === 'value.refused') refusedAt.set(String(fields['key']), clock.now());
      audit(event, fields);
    },
    get problems() {
      const recent = [...refusedAt].flatMap(([key, at]) => (clock.now() - at < RECENT_MS ? [key] : [])).sort();
      if (recent.length === 0) return [];
      return [`values in Redis were refused in the last 10 minutes (${recent.join(', ')}): they have no effect; see who writes there`];
    },
  };
}
