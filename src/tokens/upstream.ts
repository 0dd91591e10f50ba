import { LRUCache } from 'lru-cache';
import { type Clock, epochSeconds } from '../clock.js';
import type { LoadedKey } from '../keys/load.js';
import type { Principal } from '../principal.js';
import type { EndEvent } from '../redis/events.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { IssueAccessToken } from './issue.js';

/** Tokens for services behind the bridge, made of whatever credential the client sent (`upstream: jwt`). */
export interface UpstreamTokens {
  /**
   * A token of this principal for a service; the same one until 80 % of its life are over. Undefined: there is nothing to sign with.
   * `endsAt`: when what it is made of ends, in seconds since the epoch; it never lives longer (law 2).
   */
  tokenFor(principal: Principal, service: { readonly id: string; readonly audience: string }, endsAt: number): Promise<string | undefined>;
  /** Drops what was made for somebody whose session, family or person has ended. */
  apply(event: EndEvent): void;
}

export interface UpstreamOptions {
  readonly signingKey: () => LoadedKey | undefined;
  /** Whether tokens of a key verify: not once it was taken out of use. */
  readonly verifies: (kid: string) => boolean;
  readonly issueAccessToken: IssueAccessToken;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

interface Kept {
  /** Undefined where it could not be signed. */
  readonly token: Promise<string | undefined>;
  readonly kid: string;
  readonly subject: string;
  /** When it ends at the latest; all times in seconds since the epoch. */
  readonly until: number;
  renewAt: number;
}

/** Such a token lives no longer, in seconds: a service that verifies it by itself does not hear of a logout. */
const UPSTREAM_TTL_SECONDS = 300;
const KEPT_SHARE = 0.8;
/** Sessions whose tokens are kept at once. */
const MAX_SESSIONS = 50_000;

export function createUpstreamTokens({ signingKey, verifies, issueAccessToken, clock, metrics }: UpstreamOptions): UpstreamTokens {
  /** By session, then by everything that the token says, its audience first: less scope is another token. */
  const bySession = new LRUCache<string, Map<string, Kept>>({ max: MAX_SESSIONS });

  function isGood({ renewAt, until, kid }: Kept, endsAt: number): boolean {
    return renewAt > epochSeconds(clock) && until <= endsAt && verifies(kid);
  }

  function mint(principal: Principal, audience: string, endsAt: number, key: LoadedKey): Kept {
    const now = epochSeconds(clock);
    const until = Math.min(endsAt, now + UPSTREAM_TTL_SECONDS);
    const token = issueAccessToken(key, { principal, audience, endsAt: until }).then(
      (issued) => {
        kept.renewAt = now + Math.floor(issued.expiresIn * KEPT_SHARE);
        return issued.token;
      },
      () => {
        kept.renewAt = 0;
        return undefined;
      },
    );
    const kept: Kept = { token, kid: key.kid, subject: principal.subject, until, renewAt: until };
    return kept;
  }

  return {
    async tokenFor(principal, { id, audience }, endsAt) {
      const { sid, subject, tenant, client, roles, scope, authTime } = principal;
      const says = JSON.stringify([audience, subject, tenant, client, roles, scope, authTime]);
      const ofSession = bySession.get(sid) ?? new Map<string, Kept>();
      const known = ofSession.get(says);
      const kept = known && isGood(known, endsAt) ? known : undefined;
      const key = kept ? undefined : signingKey();
      const minted = key && endsAt > epochSeconds(clock) ? mint(principal, audience, endsAt, key) : undefined;
      if (minted) bySession.set(sid, ofSession.set(says, minted));
      const token = await (kept ?? minted)?.token;
      metrics.upstreamTokens.inc({ service: id, outcome: token === undefined ? 'unavailable' : kept ? 'kept' : 'minted' });
      return token;
    },

    apply(event) {
      if (event.type !== 'subject.ended') bySession.delete(event.sid);
      else for (const [sid, all] of bySession) if ([...all.values()].some(({ subject }) => subject === event.subject)) bySession.delete(sid);
    },
  };
}
