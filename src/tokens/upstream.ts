import { LRUCache } from 'lru-cache';
import { epochSeconds } from '../clock.js';
import type { RevocableToken } from '../endings/revocation.js';
import type { LoadedKey } from '../keys/load.js';
import type { Principal } from '../principal.js';
import type { Tools } from '../telemetry/tools.js';
import type { IssueAccessToken } from './access-token.js';
import { MAX_TOKEN_BYTES, type Revocations } from './verify.js';

/** Tokens for services behind the bridge, made of whatever credential the client sent (`upstream: jwt`). */
export interface UpstreamTokens {
  /**
   * A token of this principal for a service; the same one until 80 % of its life are over, or something of it was revoked. Undefined: there
   * is nothing to sign with, or it would be too large.
   */
  tokenFor(source: UpstreamSource, service: { readonly id: string; readonly audience: string }): Promise<string | undefined>;
}

/** What it is made of. */
export interface UpstreamSource {
  readonly principal: Principal;
  /** Of the bearer; absent for a session. */
  readonly family?: string | undefined;
  /** When that ends, in seconds since the epoch: nothing made of it lives longer (law 2). */
  readonly endsAt: number;
  /** The same, asked where it is known best; absent where it is known. */
  readonly endsExactly?: (() => Promise<number>) | undefined;
}

export interface UpstreamOptions extends Pick<Tools, 'clock' | 'metrics'> {
  readonly signingKey: () => LoadedKey | undefined;
  /** Whether tokens of a key verify: not once it was taken out of use. */
  readonly verifies: (kid: string) => boolean;
  readonly revocations: Pick<Revocations, 'whatEnded'>;
  readonly issueAccessToken: IssueAccessToken;
}

interface Kept {
  /** Undefined where it could not be made. */
  readonly token: Promise<string | undefined>;
  readonly kid: string;
  readonly revocable: RevocableToken;
  /** When it ends at the latest; all times in seconds since the epoch. */
  until: number;
  renewAt: number;
}

/** Such a token lives no longer, in seconds: a service that verifies it by itself does not hear of a logout. */
const UPSTREAM_TTL_SECONDS = 300;
const KEPT_SHARE = 0.8;
/** Sessions whose tokens are kept at once. */
const MAX_SESSIONS = 50_000;

export function createUpstreamTokens(options: UpstreamOptions): UpstreamTokens {
  const { signingKey, verifies, revocations, issueAccessToken, clock, metrics } = options;
  /** By session, then by everything that the token says, its audience first: less scope is another token. */
  const bySession = new LRUCache<string, Map<string, Kept>>({ max: MAX_SESSIONS });

  function isFresh({ renewAt, kid, revocable }: Kept): boolean {
    return renewAt > epochSeconds(clock) && verifies(kid) && revocations.whatEnded(revocable) === undefined;
  }

  function mint({ principal, family, endsAt, endsExactly }: UpstreamSource, audience: string, key: LoadedKey): Kept {
    const { sid, subject } = principal;
    const now = epochSeconds(clock);
    const until = Math.min(endsAt, now + UPSTREAM_TTL_SECONDS);
    const ofFamily = family === undefined ? {} : { family };

    async function issue(): Promise<string | undefined> {
      if (endsExactly) kept.until = Math.min(until, await endsExactly());
      if (kept.until <= now) return undefined;
      const issued = await issueAccessToken(key, { principal, ...ofFamily, audience, endsAt: kept.until });
      if (issued.token.length > MAX_TOKEN_BYTES) return undefined;
      kept.renewAt = now + Math.floor(issued.expiresIn * KEPT_SHARE);
      return issued.token;
    }

    const token = Promise.resolve()
      .then(issue)
      .catch(() => undefined)
      .then((made) => {
        if (made === undefined) kept.renewAt = 0;
        return made;
      });
    const kept: Kept = { token, kid: key.kid, revocable: { sid, subject, ...ofFamily, issuedAt: now }, until, renewAt: until };
    return kept;
  }

  /** Beside those of the session that are still good. */
  function keep(sid: string, says: string, minted: Kept): void {
    const others = [...(bySession.get(sid) ?? [])].filter(([, kept]) => isFresh(kept));
    bySession.set(sid, new Map([...others, [says, minted]]));
  }

  return {
    async tokenFor(source, { id, audience }) {
      const { principal, family, endsAt } = source;
      const { sid, subject, tenant, client, roles, scope, authTime } = principal;
      const says = JSON.stringify([audience, family, subject, tenant, client, roles, scope, authTime]);
      const known = bySession.get(sid)?.get(says);
      const kept = known && known.until <= endsAt && isFresh(known) ? known : undefined;
      const key = kept ? undefined : signingKey();
      const minted = key && endsAt > epochSeconds(clock) ? mint(source, audience, key) : undefined;
      if (minted) keep(sid, says, minted);
      const token = await (kept ?? minted)?.token;
      metrics.upstreamTokens.count(id, token === undefined ? 'unavailable' : kept ? 'kept' : 'minted');
      return token;
    },
  };
}
