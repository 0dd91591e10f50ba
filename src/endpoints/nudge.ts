import type { Config } from '../config/config.js';
import type { Metrics } from '../telemetry/metrics.js';
import { type Authenticated, migrationHeader } from './authenticator.js';

/**
 * What tells a client that could do what its stage asks for to do so: to exchange its session, or to return to it. It is the value of
 * `Auth-Migration`, and counts against the rate of nudges; undefined: nothing is told. Whoever sends it sets `Cache-Control: no-store`
 * too: a stored answer would repeat the nudge for as long as it is revalidated, since a 304 leaves stored headers as they are (RFC 9111, section 4.3.4).
 */
export type Nudge = (found: Authenticated) => string | undefined;

export interface NudgeOptions extends NudgeRateOptions {
  readonly metrics: Metrics;
  readonly exchangeUri: string;
  readonly returnUri: string;
}

export function createNudge({ metrics, exchangeUri, returnUri, ...rate }: NudgeOptions): Nudge {
  const mayNudge = createNudgeRate(rate);
  return function nudge({ principal, client, decision: { rules, stage }, staysSession }) {
    if (rules.nudge === undefined) return undefined;
    const forward = rules.nudge === 'forward' && principal.via === 'session' && client.exchanges && !staysSession;
    const back = rules.nudge === 'back' && principal.via === 'jwt' && client.config?.wayBack === true;
    if ((!forward && !back) || !mayNudge()) return undefined;
    metrics.nudges.inc({ client: client.id });
    return forward ? migrationHeader(stage, 'exchange', exchangeUri) : migrationHeader(stage, 'return', returnUri);
  };
}

export interface NudgeRateOptions {
  readonly config: Pick<Config['rollout'], 'nudgesPerSecond'>;
  /** How many instances share the rate of nudges. */
  readonly fleetSize: () => number;
  readonly nowMs: () => number;
}

/** Share of a second's nudges that may go out at once. */
const BURST = 0.1;

/** Whether one more response may carry a nudge: at most `nudgesPerSecond`, of all instances together. */
export function createNudgeRate({ config, fleetSize, nowMs }: NudgeRateOptions): () => boolean {
  let allowance = 1;
  let countedAt = nowMs();
  return function mayNudge() {
    const now = nowMs();
    const perSecond = config.nudgesPerSecond / fleetSize();
    const most = perSecond === 0 ? 0 : Math.max(1, perSecond * BURST);
    allowance = Math.min(most, allowance + (Math.max(0, now - countedAt) / 1000) * perSecond);
    countedAt = now;
    if (allowance < 1) return false;
    allowance -= 1;
    return true;
  };
}
