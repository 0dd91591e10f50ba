import type { Clock } from '../clock.js';
import type { SessionRejection } from '../principal.js';
import type { Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { RecordReading } from './record.js';

/**
 * Notices an entry whose cookies never name a principal. Then everybody is anonymous, and nothing else looks wrong: a secret, a key prefix or
 * `principal.subject` that does not fit.
 */
export interface NobodyKnown {
  note(entry: string, reading: RecordReading): void;
  /** For an operator, a sentence for each such entry. */
  readonly problems: readonly string[];
}

/** So many cookies, over so long, without one that named a principal. */
const MIN_COOKIES = 20;
const MIN_MS = 60_000;
/** They name a principal, of a session that is over. */
const KNOWN: ReadonlySet<SessionRejection> = new Set(['expired', 'logged-out']);

interface Run {
  readonly since: number;
  readonly reasons: Map<SessionRejection, number>;
  isTold: boolean;
}

export function createNobodyKnown({ clock, log, metrics }: { readonly clock: Clock; readonly log: Log; readonly metrics: Metrics }): NobodyKnown {
  const runs = new Map<string, Run>();

  /** What is wrong with most of them; undefined: there are too few to tell. */
  function judge({ since, reasons }: Run): { readonly reason: SessionRejection; readonly cookies: number } | undefined {
    const cookies = [...reasons.values()].reduce((sum, count) => sum + count, 0);
    const [most] = [...reasons].sort(([, one], [, other]) => other - one);
    return most && cookies >= MIN_COOKIES && clock.now() - since >= MIN_MS ? { reason: most[0], cookies } : undefined;
  }

  function describe(entry: string, { reason, cookies }: { readonly reason: SessionRejection; readonly cookies: number }): string {
    return `sessions.${entry}: none of the last ${cookies} cookies named a principal (most: ${reason}). If people are logged in at the app, ${HINTS[reason] ?? 'the entry does not fit the app'}`;
  }

  return {
    note(entry, reading) {
      if (reading.kind === 'session' || KNOWN.has(reading.reason)) {
        if (runs.size > 0) runs.delete(entry);
        return;
      }
      metrics.cookiesWithoutPrincipal.inc({ entry, reason: reading.reason });
      const run = runs.get(entry) ?? { since: clock.now(), reasons: new Map(), isTold: false };
      runs.set(entry, run);
      run.reasons.set(reading.reason, (run.reasons.get(reading.reason) ?? 0) + 1);
      const found = run.isTold ? undefined : judge(run);
      if (!found) return;
      run.isTold = true;
      log.warn({ entry, reason: found.reason, cookies: found.cookies }, describe(entry, found));
    },

    get problems() {
      return [...runs].flatMap(([entry, run]) => {
        const found = judge(run);
        return found ? [describe(entry, found)] : [];
      });
    },
  };
}

const HINTS: Partial<Record<SessionRejection, string>> = {
  'bad-signature': 'secretsFile is not the secret that signs the cookie, or signature does not fit: crossfade check --cookie-value-file',
  'unknown-session': 'keyPrefix or the Redis of the entry is not that of the app: crossfade check --sample 100',
  'unreadable-record': 'format is not how the app writes its records: crossfade check --sample 100',
  'nobody-logged-in':
    'principal.subject is not where the app keeps the id: crossfade check --sample 100, or for format: http crossfade check --cookie-value-file',
  'unmappable-record': 'a path under principal leads to something else: crossfade check --sample 100',
};
