import type { Context } from 'koa';
import type { Logout, SessionPlace } from '../endings/logout.js';
import type { ResumeSession } from '../endings/resume.js';
import { CrossfadeError, unavailable } from '../errors.js';
import { endsFamily } from '../login.js';
import type { Identity } from '../principal.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { Progress } from '../rollout/progress.js';
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
import { type Attempt, frameAttempt, invalidGrant } from './attempt.js';
import { assertInTime } from './budget.js';
import type { ClientRequests } from './client-request.js';
import type { BridgeCookies } from './cookies.js';
import { type Form, readForm } from './form.js';
import type { OtherPrincipals } from './other-principals.js';
import type { ReadRefresh } from './presented-refresh.js';

export interface WayBackOptions extends Pick<Tools, 'audit' | 'metrics'> {
  readonly readRefresh: ReadRefresh;
  readonly resume: ResumeSession;
  readonly restore: Restore;
  readonly ledger: Pick<SessionLedger, 'marks'>;
  readonly logout: Pick<Logout, 'end'>;
  readonly sessions: Pick<SessionReader, 'readKnown'>;
  readonly families: Families;
  readonly requests: ClientRequests;
  readonly rollout: Rollout;
  readonly progress: Pick<Progress, 'count'>;
  readonly others: OtherPrincipals;
  readonly cookies: BridgeCookies;
}

type Outcome = 'live' | 'restored' | 'repeated';

/** A client that returns, because signing is broken or it was called, may well hold a bearer that has run out. */
const CHECK = { where: 'return', cookies: true, expiredBearer: true } as const;

/** `POST /auth/session`: from a refresh token back to the session, for clients that know how. */
export function createWayBack(options: WayBackOptions): (ctx: Context) => Promise<void> {
  const { readRefresh, resume, restore, ledger, logout, sessions, families, requests, rollout, progress, others, cookies, audit, metrics } = options;

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

  function giveCookies(ctx: Context, { source }: LiveSession): void {
    const pairs = restore.cookiesOf(source.entry, source.key);
    if (!pairs) throw invalidGrant('session-ended');
    assertInTime(ctx);
    cookies.setSession(ctx, source.entry, pairs, { ofRecord: restore.cookieLifeOf(source.entry, source.text), recordEndsAtMs: source.expiresAtMs });
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

  async function goBack(ctx: Context, form: Form, client: ResolvedClient, attempt: Attempt): Promise<Outcome> {
    const { token, found } = await readRefresh(ctx, form, client, 'return');
    if (found.kind === 'returned') {
      const session = await openSession(found.to);
      // The id may have gone to somebody else since.
      if (!families.isOf(found.person, session.identity.subject)) throw invalidGrant('other-person');
      await others.refuse(ctx, client, { sid: session.sid, ...session.identity }, CHECK);
      await link(token, found.to, session.identity, session.endsAt * 1000);
      giveCookies(ctx, session);
      return 'repeated';
    }
    const { grant } = found;
    refuseByGrant(client, grant);
    await others.refuse(ctx, client, { sid: token.sid, ...grant.identity }, CHECK);
    await refuseByStage(client, grant, attempt);
    const resumed = await resume(token.sid, grant.identity);
    if (resumed.kind === 'ended') throw invalidGrant('session-ended');
    if (resumed.kind === 'live') {
      giveCookies(ctx, resumed.session);
      return 'live';
    }
    // Whether its person has logged out meanwhile cannot be told: a second record must not bring that back.
    if (resumed.isThere) throw unavailable('mapping');
    giveCookies(ctx, await openSession(await bringBack(token, found, resumed.kept)));
    return 'restored';
  }

  return async function wayBackEndpoint(ctx) {
    await frameAttempt({ what: 'return', counter: metrics.waysBack, progress, cookies, audit }, async (attempt) => {
      const form = await readForm(ctx);
      const client = requests.resolve(ctx, form);
      attempt.client = client;
      const outcome = await goBack(ctx, form, client, attempt);
      ctx.set('Cache-Control', 'no-store');
      ctx.status = 204;
      audit('return.granted', { client: client.id, outcome });
      return outcome;
    });
  };
}

function unauthorized(message: string): CrossfadeError {
  return new CrossfadeError('unauthorized_client', { message });
}
