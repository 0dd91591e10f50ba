import type { Announcement } from './announcement.js';

/**
 * The forms of what stands in Redis, counted: 1 is that of release 0.1. A release writes the form that the release before it reads, so that
 * two can run side by side and either way back is open; nothing is negotiated while they run. What needs a new form is written from the
 * release after.
 */
export const FORMS = { writes: 1, reads: 2 };

type Spoken = Pick<Announcement, 'host' | 'version' | 'startedAt' | 'reads'>;

/**
 * Why this instance must not take part, a sentence each: a release lies between it and one that was there before it. `startedAt`: of this
 * instance. One that starts later says the same of itself: the fleet does not stop for it.
 */
export function describeSkipped(others: readonly Spoken[], startedAt: number, { writes, reads } = FORMS): string[] {
  return others.flatMap(({ host, version, startedAt: since, reads: theirs = 1 }) => {
    if (since > startedAt) return [];
    if (writes > theirs) return [`this release writes what ${host} (${version}) does not read: upgrade to the release between them first`];
    // Each writes what the one before it reads.
    if (theirs - 1 > reads) return [`${host} (${version}) writes what this release does not read: upgrade this one first`];
    return [];
  });
}
