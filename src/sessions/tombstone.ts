import type { Identity } from '../principal.js';

/** A logout as a point in time: which login of which session has ended. */
export interface Ended {
  readonly subject: string;
  readonly tenant?: string | undefined;
  /** The time of that login by the legacy app's clock, in ms; absent where the app does not record it. */
  readonly authTimeMs?: number | undefined;
  /** By Redis' clock, in ms. */
  readonly endedAt: number;
}

export function endedLogin({ subject, tenant, authTimeMs }: Omit<Ended, 'endedAt'>, endedAt: number): Ended {
  return { subject, tenant, authTimeMs, endedAt };
}

/**
 * Whether a record that is found after a logout belongs to the login that has ended, as one does that a slow request wrote
 * again, and not to a new login under the same id: of somebody else, at a later time, or, where the app records no
 * time, once `resurrectionSeconds` are over.
 */
export function refusesRecord(ended: Ended, { subject, authTimeMs }: Identity, nowMs: number, resurrectionSeconds: number): boolean {
  if (subject !== ended.subject) return false;
  if (authTimeMs === undefined) return nowMs < ended.endedAt + resurrectionSeconds * 1000;
  return authTimeMs <= (ended.authTimeMs ?? ended.endedAt);
}
