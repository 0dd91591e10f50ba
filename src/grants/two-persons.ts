import type { Config } from '../config/config.js';
import { CrossfadeError, unavailable } from '../errors.js';
import { areTwoPersons } from '../login.js';
import type { Principal } from '../principal.js';
import type { SessionReader } from '../sessions/reader.js';
import type { Tools } from '../telemetry/tools.js';
import type { VerifyBearer } from '../tokens/verify.js';
import type { Beside } from './command.js';

export interface OtherPrincipals {
  /**
   * Law 4: what else a request carries that creates credentials for `person` must belong to the same.
   * @throws {CrossfadeError} `invalid_request` for another's, `invalid_token` for a bad bearer.
   */
  refuse(beside: Beside, person: KnownPerson, where: OtherPrincipalsCheck): Promise<void>;
  /** The error for two persons in one request: counted and audited. */
  conflict(where: ConflictPlace, message: string): CrossfadeError;
}

/** Whose session this is. */
export type KnownPerson = Pick<Principal, 'sid' | 'subject' | 'tenant'>;

export type ConflictPlace = 'exchange' | 'refresh' | 'return' | 'logout';

export interface OtherPrincipalsCheck {
  readonly where: ConflictPlace;
  /** Whether a bearer that has run out is let pass: a client that renews it may well send it along. */
  readonly expiredBearer?: boolean;
}

export interface OtherPrincipalsOptions extends Pick<Tools, 'audit' | 'metrics'> {
  readonly sessions: SessionReader;
  readonly verifyBearer: VerifyBearer;
  readonly foreignBearer: Config['bearer']['foreign'];
}

export function createOtherPrincipals({ sessions, verifyBearer, foreignBearer, audit, metrics }: OtherPrincipalsOptions): OtherPrincipals {
  function conflict(where: ConflictPlace, message: string): CrossfadeError {
    metrics.conflicts.inc({ where });
    audit('principal.conflict', { where });
    return new CrossfadeError('invalid_request', { message });
  }

  return {
    conflict,

    async refuse({ bearer, cookies }, person, { where, expiredBearer = false }) {
      if (bearer !== undefined) {
        const outcome = await verifyBearer(bearer);
        if (outcome.kind === 'in-doubt') throw unavailable(outcome.about);
        const bad = outcome.kind === 'rejected' && !(expiredBearer && outcome.reason === 'expired');
        if (bad || (outcome.kind === 'foreign' && foreignBearer === 'reject')) throw new CrossfadeError('invalid_token');
        if (outcome.kind === 'authenticated' && areTwoPersons(outcome.principal, person))
          throw conflict(where, 'the bearer is of a different principal');
      }
      if (!cookies.some(([name]) => sessions.cookieNames.has(name))) return;
      const outcome = await sessions.read(cookies);
      const other =
        outcome.kind === 'conflict' ||
        (outcome.kind === 'authenticated' && areTwoPersons({ sid: outcome.session.sid, ...outcome.session.identity }, person));
      if (other) throw conflict(where, 'the session cookie is of a different principal');
    },
  };
}
