import { epochSeconds } from '../clock.js';
import type { LoadedKey } from '../keys/load.js';
import type { Principal } from '../principal.js';
import type { Tools } from '../telemetry/tools.js';
import type { IssueAccessToken } from '../tokens/access-token.js';
import type { VerifyBearer } from '../tokens/verify.js';
import { compare, type Mismatch } from './comparison.js';
import type { Progress } from './progress.js';

/** Mints the token that a session would be exchanged for, now and then, beside the request; nobody ever gets it. */
export type ShadowMint = (principal: Principal, cohort: string) => void;

export interface ShadowMintOptions extends Pick<Tools, 'clock' | 'metrics'> {
  /** Share of the requests that are sampled. */
  readonly sampleRate: number;
  readonly audience: string;
  readonly signingKey: () => LoadedKey | undefined;
  readonly issueAccessToken: IssueAccessToken;
  readonly verifyOnce: VerifyBearer;
  /** 0 ≤ x < 1. */
  readonly fraction: () => number;
  readonly progress: Pick<Progress, 'count'>;
}

/** More than these at once are left out: a shadow must not cost what it only shows. */
const AT_ONCE = 16;
const LIFE_SECONDS = 30;

export function createShadowMint(options: ShadowMintOptions): ShadowMint {
  const { sampleRate, audience, signingKey, issueAccessToken, verifyOnce, fraction, clock, progress, metrics } = options;
  let underWay = 0;

  /** In what the token's principal differs from the session's. Never rejects. */
  async function mint(principal: Principal): Promise<readonly Mismatch[]> {
    const key = signingKey();
    if (!key) return ['not-signed'];
    const request = { principal, family: 'shadow', audience, endsAt: epochSeconds(clock) + LIFE_SECONDS };
    const issued = await issueAccessToken(key, request).catch(() => undefined);
    if (!issued) return ['not-signed'];
    const outcome = await verifyOnce(issued.token);
    if (outcome.kind !== 'authenticated') return ['not-verified'];
    const { subject, tenant, roles, scope, authTime, client, sid } = principal;
    return compare(outcome.principal, { subject, tenant, roles, scope, authTime, client, sid });
  }

  return function shadowMint(principal, cohort) {
    if (fraction() >= sampleRate) return;
    if (underWay >= AT_ONCE) {
      metrics.shadowMints.inc({ client: principal.client, outcome: 'left-out' });
      return;
    }
    underWay += 1;
    // After the answer to this request, and to those that came with it.
    setImmediate(async () => {
      const found = await mint(principal);
      underWay -= 1;
      const outcome = found.length === 0 ? 'same' : 'mismatch';
      metrics.shadowMints.inc({ client: principal.client, outcome });
      progress.count('shadow', outcome, cohort);
      for (const code of found) {
        metrics.mismatches.inc({ where: 'shadow', code });
        progress.count('mismatch', code, cohort);
      }
    });
  };
}
