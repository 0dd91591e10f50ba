import type { Identity } from './principal.js';

/** A logout as a point in time: which login of which session has ended. */
export interface Ended {
  readonly subject: string;
  readonly tenant?: string | undefined;
  /** The time of that login by the legacy app's clock, in ms; absent where the app does not record it. */
  readonly authTimeMs?: number | undefined;
  /** By Redis' clock, in ms. */
  readonly endedAt: number;
  /** Its record is still to be deleted: nobody knew where it is. */
  readonly unfinished?: boolean | undefined;
}

/**
 * Stands for the subject of a login that ended by a refresh token alone, after Redis had lost whose it was. A release that does not know it
 * takes it for that of nobody.
 */
export const UNKNOWN_SUBJECT = '';

export function endedLogin({ subject, tenant, authTimeMs }: Omit<Ended, 'endedAt' | 'unfinished'>, endedAt: number): Ended {
  return { subject, tenant, authTimeMs, endedAt };
}

/**
 * Whether a record that is found after a logout belongs to the login that has ended, as one does that a slow request wrote
 * again, and not to a new login under the same id: of somebody else, at a later time, or, where the app records no
 * time, once `resurrectionSeconds` are over. `reusesIds`: whether the app gives an id to the next login as well; where it does not, a
 * record that was never deleted is always that of the login that has ended.
 */
export function refusesRecord(
  ended: Ended,
  { subject, authTimeMs }: Pick<Identity, 'subject' | 'authTimeMs'>,
  nowMs: number,
  resurrectionSeconds: number,
  reusesIds = true,
): boolean {
  if (subject !== ended.subject && ended.subject !== UNKNOWN_SUBJECT) return false;
  if (ended.unfinished === true && !reusesIds && authTimeMs === undefined) return true;
  if (authTimeMs === undefined) return nowMs < ended.endedAt + resurrectionSeconds * 1000;
  return authTimeMs <= (ended.authTimeMs ?? ended.endedAt);
}
