import type { Rollout } from '../rollout/rollout.js';
import type { Metrics } from '../telemetry/metrics.js';
import { type Authenticated, migrationHeader } from './authenticator.js';

/**
 * What tells a client that could do what its stage asks for to do so: to exchange its session, or to return to it. It is the value of
 * `Auth-Migration`, and counts against the rate of nudges; undefined: nothing is told. Whoever sends it sets `Cache-Control: no-store`
 * too: a stored answer would repeat the nudge for as long as it is revalidated, since a 304 leaves stored headers as they are (RFC 9111, section 4.3.4).
 */
export type Nudge = (found: Authenticated) => string | undefined;

export interface NudgeOptions {
  readonly rollout: Pick<Rollout, 'mayNudge'>;
  readonly metrics: Metrics;
  readonly exchangeUri: string;
  readonly returnUri: string;
}

export function createNudge({ rollout, metrics, exchangeUri, returnUri }: NudgeOptions): Nudge {
  return function nudge({ principal, client, decision: { rules, stage }, staysSession }) {
    if (rules.nudge === undefined) return undefined;
    const forward = rules.nudge === 'forward' && principal.via === 'session' && client.exchanges && !staysSession;
    const back = rules.nudge === 'back' && principal.via === 'jwt' && client.config?.wayBack === true;
    if ((!forward && !back) || !rollout.mayNudge()) return undefined;
    metrics.nudges.inc({ client: client.id });
    return forward ? migrationHeader(stage, 'exchange', exchangeUri) : migrationHeader(stage, 'return', returnUri);
  };
}
