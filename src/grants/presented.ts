import { epochSeconds } from '../clock.js';
import type { ResumeSession } from '../endings/resume.js';
import { type CrossfadeError, unavailable } from '../errors.js';
import { areTwoPersons } from '../login.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { Tools } from '../telemetry/tools.js';
import type { Families, FoundFamily, PartRank } from '../tokens/family.js';
import { parseRefreshToken, type RefreshToken } from '../tokens/refresh-token.js';
import { invalidGrant } from './attempt.js';
import { type OwnFaults, UNKNOWN } from './own-faults.js';
import type { OtherPrincipals } from './two-persons.js';

export type UsableFamily = Extract<FoundFamily, { kind: 'live' | 'returned' }>;

export interface PresentedRefresh {
  readonly token: RefreshToken;
  readonly found: UsableFamily;
}

/** A refresh token that opens nothing. `token`: where its family must end (`reused`), or cannot be read (`unreadable`). */
interface BadRefresh {
  readonly why: string;
  readonly token?: RefreshToken;
}

export interface PresentedRefreshOptions extends Pick<Tools, 'clock' | 'metrics'> {
  readonly families: Families;
  readonly others: Pick<OtherPrincipals, 'conflict'>;
  readonly resume: ResumeSession;
  readonly ownFaults: Pick<OwnFaults, 'lost'>;
}

/** Of the refresh tokens that somebody presents, the one that is good. @throws {CrossfadeError} `invalid_grant`, and `invalid_request` for two persons'. */
export type JudgePresented = (texts: readonly string[], client: ResolvedClient, where: 'refresh' | 'return') => Promise<PresentedRefresh>;

export function createJudgePresented(options: PresentedRefreshOptions): JudgePresented {
  const { families, others, resume, ownFaults, clock, metrics } = options;

  /** Changes nothing, whatever it finds. */
  async function judge(text: string, client: ResolvedClient): Promise<PresentedRefresh | BadRefresh> {
    const token = parseRefreshToken(text);
    if (!token) return { why: 'malformed' };
    const found = await families.find(token);
    if (found.kind === 'unknown') return { why: 'unknown' };
    if (found.kind === 'lost') {
      metrics.familiesLost.inc();
      return { why: 'lost' };
    }
    if (found.kind === 'unreadable') return { why: found.why === 'later' ? 'later' : 'unreadable', token };
    if (found.kind === 'ended') return { why: found.reason };
    // Another client's token is none of this one's business: the family stays as it is.
    if ((found.kind === 'returned' ? found.client : found.grant.client) !== client.id) return { why: 'other-client' };
    if (found.kind === 'returned') return { token, found };
    if (found.kind === 'reused') return { why: 'reused', token };
    const { grant } = found;
    if (grant.endsAt <= epochSeconds(clock)) return { why: 'expired' };
    return { token, found };
  }

  /** A part that was used before ends its family, unless its successor came beside it: then one browser sent both. */
  async function endReused(bad: readonly BadRefresh[], good: readonly PresentedRefresh[]): Promise<void> {
    for (const { why, token } of bad) {
      if (why === 'reused' && token && !good.some((one) => one.token.family === token.family)) await families.end(token.sid, token.family, 'reused');
    }
  }

  /** Of several, one whose session has ended is as good as none. Of one alone the endpoint finds out by itself. */
  async function withSession(good: readonly PresentedRefresh[]): Promise<readonly PresentedRefresh[]> {
    if (good.length < 2) return good;
    const live = await Promise.all(good.map(hasSession));
    return good.filter((_, at) => live[at]);
  }

  async function hasSession({ token, found }: PresentedRefresh): Promise<boolean> {
    if (found.kind !== 'live' || !found.grant.hasSession) return true;
    return (await resume(token.sid, found.grant.identity)).kind !== 'ended';
  }

  /** The grant may be of a later release, or under another secret. Nobody has ended it: the cookie stays. */
  function refuseUnreadable(client: ResolvedClient, { why, token }: BadRefresh): CrossfadeError {
    if (why === 'later') return unavailable('family');
    if (token) ownFaults.lost(client.id, { subject: token.family, tenant: UNKNOWN });
    return invalidGrant('unreadable');
  }

  return async function judgePresented(texts, client, where) {
    const judged = await Promise.all(texts.map(async (text) => await judge(text, client)));
    const bad = judged.filter((one) => 'why' in one);
    const found = judged.filter((one) => 'found' in one).sort((one, other) => rank(one) - rank(other));
    await endReused(bad, found);
    const good = await withSession(found);
    const [best] = good;
    if (!best) {
      const unreadable = bad.find(({ why }) => why === 'later') ?? bad.find(({ why }) => why === 'unreadable');
      if (unreadable) throw refuseUnreadable(client, unreadable);
      // A Redis that has lost its data may get it back: the cookie stays.
      if (bad.some(({ why }) => why === 'lost')) throw invalidGrant('lost');
      throw invalidGrant(bad[0]?.why ?? 'malformed');
    }
    const persons = good.flatMap(({ token: { sid }, found }) => (found.kind === 'live' ? [{ sid, ...found.grant.identity }] : []));
    const [first] = persons;
    if (first && persons.some((person) => areTwoPersons(first, person))) throw others.conflict(where, 'two refresh cookies of different principals');
    return best;
  };
}

/** The newest part of a live family first, then an earlier one, then a family that has returned. */
function rank({ found }: PresentedRefresh): number {
  return found.kind === 'returned' ? 3 : PART_RANKS[found.part];
}

const PART_RANKS: Readonly<Record<PartRank, number>> = { ahead: 0, current: 1, earlier: 2 };
