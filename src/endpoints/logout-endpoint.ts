import type { Config } from '../config/config.js';
import type { Logout, SessionPlace } from '../endings/logout.js';
import { CrossfadeError, unavailable } from '../errors.js';
import type { CookiePairs } from '../formats/cookies.js';
import type { OtherPrincipals } from '../grants/two-persons.js';
import { areTwoPersons } from '../login.js';
import type { Identity } from '../principal.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { SessionReader } from '../sessions/reader.js';
import type { Families } from '../tokens/family.js';
import { parseRefreshToken, type RefreshToken } from '../tokens/refresh-token.js';
import type { VerifyBearer } from '../tokens/verify.js';
import type { BridgeCookies } from './bridge-cookies.js';
import { assertInTime } from './budget.js';
import type { ClientRequests } from './client-request.js';
import { readCredentials } from './credentials.js';
import { type Form, isForm, type ReadBody, readForm } from './form.js';
import { emptyReply, type Reply, type RequestHead } from './reply.js';
import { readSubjectToken } from './token-form.js';

export interface LogoutEndpointOptions {
  readonly sessions: SessionReader;
  readonly verifyBearer: VerifyBearer;
  readonly foreignBearer: Config['bearer']['foreign'];
  readonly families: Families;
  readonly logout: Logout;
  readonly requests: ClientRequests;
  readonly cookies: BridgeCookies;
  readonly others: Pick<OtherPrincipals, 'conflict'>;
}

/** A session that a credential of the request names, and whose it is where that is known. */
interface Target {
  readonly sid: string;
  readonly person?: Identity;
  readonly place?: Omit<SessionPlace, 'sid'>;
  /** The token of ours that names it: Redis has lost the family, and whose it was. */
  readonly lost?: RefreshToken;
  /** The bridge's own name of the person, of a family that has ended. */
  readonly onlyOf?: string;
  /** Where the record is, if what is kept does not say so. */
  readonly at?: Omit<SessionPlace, 'sid'>;
  /** A token of ours names it, and this instance cannot read whose it is: another one can. */
  readonly isUnreadable?: boolean;
}

/**
 * `POST /auth/logout`: ends session and tokens, by cookie, bearer or refresh token, whichever came. 204, and both cookies are
 * cleared, also where nothing was left to end.
 */
export function createLogoutEndpoint(options: LogoutEndpointOptions): (head: RequestHead, readBody: ReadBody) => Promise<Reply> {
  const { sessions, verifyBearer, foreignBearer, families, logout, requests, cookies, others } = options;

  /** `hasMore`: whether another credential names a session; then one that has run out is not needed. */
  async function byBearer(bearer: string | undefined, hasMore: boolean): Promise<Target[]> {
    if (bearer === undefined) return [];
    const outcome = await verifyBearer(bearer);
    switch (outcome.kind) {
      case 'authenticated':
        return [{ sid: outcome.principal.sid, person: outcome.principal }];
      case 'in-doubt':
        throw unavailable(outcome.about);
      case 'foreign':
        if (foreignBearer === 'pass') return [];
        throw new CrossfadeError('invalid_token');
      case 'rejected':
        // Its session has ended already: there is nothing left to end. Where only its family has, the session lives: 204 would be untrue.
        if (outcome.ended === 'session' || outcome.ended === 'person') return [];
        if (outcome.reason === 'expired' && hasMore) return [];
        throw new CrossfadeError('invalid_token');
    }
  }

  async function byCookie(pairs: CookiePairs): Promise<Target[]> {
    const outcome = await sessions.read(pairs);
    if (outcome.kind === 'conflict') throw conflict();
    const live = outcome.kind === 'authenticated' ? outcome.session : undefined;
    return sessions.named(pairs).map(({ sid, entry, key }) => ({
      sid,
      place: { entry, key },
      ...(live?.sid === sid ? { person: live.identity } : {}),
    }));
  }

  async function byRefreshToken(text: string | undefined): Promise<Target[]> {
    const token = text === undefined ? undefined : parseRefreshToken(text);
    const found = token ? await families.find(token) : undefined;
    if (!token || !found || found.kind === 'unknown') return [];
    if (found.kind === 'unreadable') return [{ sid: token.sid, ...(found.why === 'later' ? { isUnreadable: true } : { onlyOf: found.person }) }];
    // Redis has lost it, and with it whose it was. The session ends where this instance knows it.
    if (found.kind === 'lost') return [{ sid: token.sid, lost: token }];
    if (found.kind === 'returned') return [{ sid: found.to.sid, at: found.to, onlyOf: found.person }];
    // One that has ended names its session all the same: that may live, or may have to be told of once more.
    return found.kind === 'ended' ? [{ sid: token.sid, onlyOf: found.person }] : [{ sid: token.sid, person: found.grant.identity }];
  }

  async function findTargets(head: RequestHead, form: Form, client: ResolvedClient): Promise<readonly Target[]> {
    const { bearer, cookies: pairs } = readCredentials(head);
    const hasCookie = pairs.some(([name]) => name === cookies.refreshName || sessions.cookieNames.has(name));
    // The cookies of a client without pages are not read.
    const readsCookie = hasCookie && (client.config?.origins ?? []).length > 0;
    const refreshCookies = readsCookie ? cookies.readRefresh(head) : [];
    requests.checkOrigin(head, client, { readsCookie, maySetCookie: true });
    const subjectToken = readSubjectToken(form, sessions.cookieNames);
    const found = await Promise.all([
      readsCookie ? byCookie(pairs) : [],
      subjectToken ? byCookie(subjectToken) : [],
      byRefreshToken(form.get('refresh_token')),
      ...refreshCookies.map(byRefreshToken),
    ]);
    const others = found.flat();
    const targets = [...(await byBearer(bearer, others.length > 0)), ...others];
    if (targets.length === 0 && hasCookie && !readsCookie)
      throw new CrossfadeError('invalid_request', {
        message: 'this client has no origins for which the cookie would be read; send it as subject_token, or a bearer or refresh token',
      });
    return targets;
  }

  /** @throws {CrossfadeError} `temporarily_unavailable` where a session is meant that no other credential names. */
  function refuseUnreadable(targets: readonly Target[]): void {
    const isNamedElse = ({ sid }: Target) => targets.some((other) => other.sid === sid && !other.isUnreadable);
    if (targets.some((target) => target.isUnreadable && !isNamedElse(target))) throw unavailable('family');
  }

  function refuseConflict(targets: readonly Target[]): void {
    const persons = targets.flatMap(({ sid, person }) => (person ? [{ sid, ...person }] : []));
    const [first] = persons;
    if (first && persons.some((person) => areTwoPersons(person, first))) throw conflict();
  }

  function conflict(): CrossfadeError {
    return others.conflict('logout', 'the credentials are of different principals');
  }

  return async function logoutEndpoint(head, readBody) {
    const form: Form = isForm(head) ? await readForm(head, readBody) : new Map();
    const targets = await findTargets(head, form, requests.resolve(head, form));
    refuseConflict(targets);
    for (const sid of new Set(targets.filter(({ isUnreadable }) => !isUnreadable).map((target) => target.sid))) {
      const same = targets.filter((target) => target.sid === sid);
      // What the record itself says is the most exact.
      const person = same.find((target) => target.person?.authTimeMs !== undefined)?.person ?? same.find((target) => target.person)?.person;
      const place = same.find((target) => target.place)?.place;
      const onlyOf = person ? undefined : same.find((target) => target.onlyOf !== undefined)?.onlyOf;
      const at = same.find((target) => target.at)?.at;
      await logout.end(sid, 'logout', {
        ...(at ? { at } : {}),
        ...(person ? { person } : {}),
        ...(place ? { place } : {}),
        ...(same.some(({ lost }) => lost) ? { isOurs: true } : {}),
        ...(onlyOf === undefined ? {} : { onlyOf }),
      });
      for (const { lost } of same) if (lost) await families.endLost(lost);
    }
    refuseUnreadable(targets);
    assertInTime(head);
    return emptyReply(204, [...cookies.clearingHeaders(), 'Cache-Control', 'no-store']);
  };
}
