/**
 * Somebody's login in the legacy app, and what is judged by it. The comparisons are several rules on purpose: each says which of
 * subject, tenant and time count for it. A table for each stands in test/login.unit.test.ts.
 */
export interface Login {
  /** The person, in the legacy app's own naming. */
  readonly subject: string;
  readonly tenant?: string | undefined;
  /** By the legacy app's clock, in ms; absent where the app does not record it. */
  readonly authTimeMs?: number | undefined;
}

/** A logout as a point in time: which login of which session has ended. */
export interface Ended extends Login {
  /** By Redis' clock, in ms. */
  readonly endedAt: number;
  /** Its record is still to be deleted: nobody knew where it is. */
  readonly unfinished?: boolean | undefined;
}

/** A person whose logins up to a moment have all ended. */
export interface EndedPerson {
  readonly subject: string;
  /** By Redis' clock, in ms. */
  readonly endedAt: number;
  /** Compared with the time of a login, which is the legacy app's; in ms. */
  readonly notBefore: number;
  /** The session that goes on: the one in which the password was changed. */
  readonly exceptSid?: string | undefined;
}

/** What an instance has heard of what has ended: asked wherever a session, a family or a login is judged. */
export interface KnownEnds {
  /** The logout of this person in this session. */
  endedLogin(sid: string, subject: string): Ended | undefined;
  /** Whether this login is older than an end of its person. */
  endedPerson(sid: string, login: Login): boolean;
  hasFamilyEnded(family: string): boolean;
}

/**
 * Stands for the subject of a login that ended by a refresh token alone, after Redis had lost whose it was. A release that does not know it
 * takes it for that of nobody.
 */
export const UNKNOWN_SUBJECT = '';

/** The login alone, of whatever holds one. */
export function loginOf({ subject, tenant, authTimeMs }: Login): Login {
  return { subject, tenant, authTimeMs };
}

export function endLogin(login: Login, endedAt: number): Ended {
  return { ...loginOf(login), endedAt };
}

/** Whether two cookies of one request may stand beside each other: subject and tenant count. */
export function samePerson(one: Login, other: Login): boolean {
  return one.subject === other.subject && one.tenant === other.tenant;
}

/** Whether two credentials are of two persons (law 4): in one session somebody who changes the tenant is still the same. */
export function areTwoPersons(one: Login & { readonly sid: string }, other: Login & { readonly sid: string }): boolean {
  return one.subject !== other.subject || (one.sid !== other.sid && one.tenant !== other.tenant);
}

/** Whether a session is still that of the login that tokens were made from: who changed the tenant within one login is the same. */
export function isSameLogin(one: Login, other: Login): boolean {
  if (one.subject !== other.subject) return false;
  return one.tenant === other.tenant || (one.authTimeMs !== undefined && one.authTimeMs === other.authTimeMs);
}

/**
 * Whether a record that is found after a logout belongs to the login that has ended, as one does that a slow request wrote
 * again, and not to a new login under the same id: of somebody else, at a later time, or, where the app records no
 * time, once `resurrectionSeconds` are over. `reusesIds`: whether the app gives an id to the next login as well; where it does not, a
 * record that was never deleted is always that of the login that has ended.
 */
export function refusesRecord(ended: Ended, { subject, authTimeMs }: Login, nowMs: number, resurrectionSeconds: number, reusesIds = true): boolean {
  if (subject !== ended.subject && ended.subject !== UNKNOWN_SUBJECT) return false;
  if (ended.unfinished === true && !reusesIds && authTimeMs === undefined) return true;
  if (authTimeMs === undefined) return nowMs < ended.endedAt + resurrectionSeconds * 1000;
  return authTimeMs <= (ended.authTimeMs ?? ended.endedAt);
}

/** Whether the end of a person ends this login of theirs, in the session `sid`. A login without a time is not judged by it. */
export function endsLogin({ notBefore, exceptSid }: Pick<EndedPerson, 'notBefore' | 'exceptSid'>, sid: string, { authTimeMs }: Login): boolean {
  return exceptSid !== sid && authTimeMs !== undefined && authTimeMs <= notBefore;
}

/** When a family was made, in ms by Redis' clock: its id starts with it. NaN for what is no family id. */
export function madeAt(family: string): number {
  return /^\d{13}[A-Za-z0-9_-]{16}$/.test(family) ? Number(family.slice(0, 13)) : Number.NaN;
}

/** Whether what was made at `madeAtMs` ends with what ended at `endedAt`. What has no time ends. */
export function endsWith(madeAtMs: number, endedAt: number): boolean {
  return !(madeAtMs > endedAt);
}

/** Whether a family of this person ends with a logout. */
export function endsFamily(ended: Ended, subject: string, family: string): boolean {
  return ended.subject === subject && endsWith(madeAt(family), ended.endedAt);
}
