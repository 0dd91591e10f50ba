import type { Clock } from '../clock.js';
import type { Audit, AuditEvent, AuditFields } from './audit.js';

/** An audit event as operators see it. `at` in ms since the epoch; `instance`: where it happened. */
export interface AuditEntry {
  readonly at: number;
  readonly instance: string;
  readonly event: AuditEvent;
  readonly fields: AuditFields;
}

/** The latest audit events of this instance, for whoever looks at the console. */
export interface AuditFeed {
  /** Writes the audit, and keeps it for a while. */
  readonly audit: Audit;
  readonly instance: string;
  /** Oldest first. */
  readonly recent: readonly AuditEntry[];
  /** Calls `heard` for each from now on; gives what stops it. */
  follow(heard: (entry: AuditEntry) => void): () => void;
}

const MAX_RECENT = 200;

export function createAuditFeed(audit: Audit, instance: string, clock: Clock): AuditFeed {
  const recent: AuditEntry[] = [];
  const followers = new Set<(entry: AuditEntry) => void>();
  return {
    instance,
    audit(event, fields = {}) {
      const entry = { at: clock.now(), instance, event, fields };
      recent.push(entry);
      if (recent.length > MAX_RECENT) recent.shift();
      for (const heard of followers) heard(entry);
      audit(event, fields);
    },
    recent,
    follow(heard) {
      followers.add(heard);
      return () => followers.delete(heard);
    },
  };
}
