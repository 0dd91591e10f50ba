import { type Clock, epochSeconds } from '../clock.js';
import type { Probe } from '../keys/self-test.js';
import type { Principal } from '../principal.js';
import type { IssueAccessToken } from './access-token.js';
import { createVerifier, type VerificationPolicy } from './verify.js';

/** The principal of probe tokens. They never leave the process. */
const PROBE: Principal = { subject: 'self-test', client: 'self-test', roles: [], scope: [], sid: 'self-test', via: 'session' };

/** A probe that signs and verifies as real traffic does: same issuer, audience, type, algorithm, times. */
export function createProbe(policy: VerificationPolicy, issueAccessToken: IssueAccessToken, clock: Clock): Probe {
  const [audience = ''] = policy.audience;
  return async function probe(key, keys) {
    const { token } = await issueAccessToken(key, { principal: PROBE, family: 'self-test', audience, endsAt: epochSeconds(clock) + 60 });
    const outcome = await createVerifier({ policy, keys, clock })(token);
    if (outcome.kind !== 'authenticated') throw new Error(outcome.kind === 'rejected' ? outcome.reason : outcome.kind);
  };
}
