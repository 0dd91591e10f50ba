import type { Logout, SessionPlace } from '../endings/logout.js';
import type { ResumeSession } from '../endings/resume.js';
import { CrossfadeError, unavailable } from '../errors.js';
import type { CookieLife } from '../formats/format.js';
import { endsFamily } from '../login.js';
import type { Identity } from '../principal.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { Rollout } from '../rollout/rollout.js';
import type { KeptSession } from '../sessions/kept-session.js';
import type { SessionLedger } from '../sessions/ledger.js';
import type { SessionReader } from '../sessions/reader.js';
import type { LiveSession } from '../sessions/record.js';
import type { Restore } from '../sessions/restore.js';
import type { Tools } from '../telemetry/tools.js';
import type { Families, LiveFamily } from '../tokens/family.js';
import type { Grant } from '../tokens/grant.js';
import type { RefreshToken } from '../tokens/refresh-token.js';
import { type Attempt, invalidGrant } from './attempt.js';
import type { GrantCommand } from './command.js';
import type { JudgePresented } from './presented.js';
import type { OtherPrincipals } from './two-persons.js';

export interface ReturnOptions extends Pick<Tools, 'audit'> {
  readonly judgePresented: JudgePresented;
  readonly resume: ResumeSession;
  readonly restore: Restore;
  readonly ledger: Pick<SessionLedger, 'marks'>;
  readonly logout: Pick<Logout, 'end'>;
  readonly sessions: Pick<SessionReader, 'readKnown'>;
  readonly families: Families;
  readonly rollout: Rollout;
  readonly others: OtherPrincipals;
}

export interface ReturnCommand extends GrantCommand {
  /** Refresh tokens, of which the good one counts. */
  readonly presented: readonly string[];
}

/** A session that its client may go on with. */
export interface ReturnedSession {
  readonly outcome: 'live' | 'restored' | 'repeated';
  /** The entry of the configuration that it belongs to. */
  readonly entry: string;
  /** Cookies as the app itself would have set them. */
  readonly cookies: readonly (readonly [name: string, value: string])[];
  readonly life: SessionCookieLife;
}

/** What is known of how long a session cookie lives. */
export interface SessionCookieLife {
  /** As the app writes it, by the record. */
  readonly ofRecord: CookieLife | undefined;
  /** When the record ends, in ms. */
  readonly recordEndsAtMs: number | undefined;
}

export type Return = (command: ReturnCommand, attempt: Attempt) => Promise<ReturnedSession>;

/** A client that returns, because signing is broken or it was called, may well hold a bearer that has run out. */
const CHECK = { where: 'return', expiredBearer: true } as const;

/** From a refresh token back to the session, for clients that know how. */
export function createReturn(options: ReturnOptions): Return {
  const { judgePresented, resume, restore, ledger, logout, sessions, families, rollout, others, audit } = options;

  function refuseByGrant(client: ResolvedClient, { narrowed, hasSession }: Grant): void {
    if (narrowed) throw unauthorized('tokens that were narrowed cannot return to a whole session');
    if (!hasSession) throw unauthorized('these tokens do not come from a session');
    if (!client.config?.wayBack) throw unauthorized('this client is not registered with wayBack: true');
  }

  async function refuseByStage(client: ResolvedClient, { identity }: Grant, attempt: Attempt): Promise<void> {
    const { rules, stage, reason, cohort } = await rollout.decide(client, identity);
    attempt.cohort = cohort;
    if (rules.wayBack) return;
    throw new CrossfadeError('unauthorized_client', { message: 'no client returns at this stage', details: { stage, reason } });
  }

  async function openSession({ entry, key }: Omit<SessionPlace, 'sid'>): Promise<LiveSession> {
    const reading = await sessions.readKnown(entry, key, { strict: true });
    if (reading.kind === 'rejected') throw invalidGrant(reading.reason);
    return reading.session;
  }

  function cookiesOf({ source }: LiveSession): Omit<ReturnedSession, 'outcome'> {
    const { entry, key, text, expiresAtMs } = source;
    const cookies = restore.cookiesOf(entry, key);
    if (!cookies) throw invalidGrant('session-ended');
    return { entry, cookies, life: { ofRecord: restore.cookieLifeOf(entry, text), recordEndsAtMs: expiresAtMs } };
  }

  /** From here on the two end together; a logout of the old one that came before is made up for. */
  async function link(token: RefreshToken, to: SessionPlace, person: Identity, endsAtMs: number): Promise<void> {
    await restore.link(to, token.sid, endsAtMs);
    const { ended } = await ledger.marks(token.sid);
    if (!ended || !endsFamily(ended, person.subject, token.family)) return;
    await logout.end(to.sid, 'logout', { person, at: to });
    throw invalidGrant('session-ended');
  }

  /** Makes the session anew; of two requests at once both get the same. */
  async function bringBack(token: RefreshToken, found: LiveFamily, kept: KeptSession): Promise<SessionPlace> {
    const { grant } = found;
    const made = await restore.restore(kept, grant.endsAt * 1000);
    if (!made) throw unauthorized('this session cannot be made anew');
    const counts = await families.close(token, found, made);
    if (counts?.sid !== made.sid) await restore.discard(made);
    if (!counts) throw invalidGrant('session-ended');
    await link(token, counts, grant.identity, grant.endsAt * 1000);
    return counts;
  }

  async function goBack({ client, beside, presented }: ReturnCommand, attempt: Attempt): Promise<ReturnedSession> {
    const { token, found } = await judgePresented(presented, client, 'return');
    if (found.kind === 'returned') {
      const session = await openSession(found.to);
      // The id may have gone to somebody else since.
      if (!families.isOf(found.person, session.identity.subject)) throw invalidGrant('other-person');
      await others.refuse(beside, { sid: session.sid, ...session.identity }, CHECK);
      await link(token, found.to, session.identity, session.endsAt * 1000);
      return { outcome: 'repeated', ...cookiesOf(session) };
    }
    const { grant } = found;
    refuseByGrant(client, grant);
    await others.refuse(beside, { sid: token.sid, ...grant.identity }, CHECK);
    await refuseByStage(client, grant, attempt);
    const resumed = await resume(token.sid, grant.identity);
    if (resumed.kind === 'ended') throw invalidGrant('session-ended');
    if (resumed.kind === 'live') return { outcome: 'live', ...cookiesOf(resumed.session) };
    // Whether its person has logged out meanwhile cannot be told: a second record must not bring that back.
    if (resumed.isThere) throw unavailable('mapping');
    return { outcome: 'restored', ...cookiesOf(await openSession(await bringBack(token, found, resumed.kept))) };
  }

  return async function returnGrant(command, attempt) {
    const returned = await goBack(command, attempt);
    command.assertInTime();
    audit('return.granted', { client: command.client.id, outcome: returned.outcome });
    return returned;
  };
}

function unauthorized(message: string): CrossfadeError {
  return new CrossfadeError('unauthorized_client', { message });
}
