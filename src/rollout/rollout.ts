import type { Config } from '../config/config.js';
import type { Principal } from '../principal.js';
import type { ClientRegistry, ResolvedClient } from './clients.js';
import type { Flags } from './flags.js';
import { type EffectiveStage, effectiveStage, STAGE_TABLE, type StageRules } from './stage.js';

export interface Decision extends EffectiveStage {
  readonly rules: StageRules;
}

export interface Rollout {
  /** How far this person on this client is, and why. */
  decide(client: ResolvedClient, person: Pick<Principal, 'subject' | 'tenant'>): Promise<Decision>;
  /** Whether one more response may carry a nudge: at most `nudgesPerSecond`. */
  mayNudge(): boolean;
}

export interface RolloutOptions {
  readonly config: Pick<Config['rollout'], 'defaultStage' | 'nudgesPerSecond'>;
  readonly flags: Flags;
  readonly clients: ClientRegistry;
  readonly canSign: () => boolean;
  readonly nowMs: () => number;
}

export function createRollout({ config, flags, clients, canSign, nowMs }: RolloutOptions): Rollout {
  const most = config.nudgesPerSecond === 0 ? 0 : Math.max(1, config.nudgesPerSecond);
  let allowance = most;
  let countedAt = nowMs();

  return {
    async decide(client, { subject, tenant }) {
      const answer = await flags.evaluate({
        client: client.id,
        clientVersion: client.version,
        cohort: clients.cohortOf(client.id, tenant),
        tenant,
        subject,
      });
      const decided = effectiveStage({
        flag: answer.stage,
        defaultStage: config.defaultStage,
        killSwitch: answer.killSwitch,
        signing: canSign(),
        clientExchanges: client.exchanges,
      });
      return { ...decided, rules: STAGE_TABLE[decided.stage] };
    },

    mayNudge() {
      const now = nowMs();
      allowance = Math.min(most, allowance + (Math.max(0, now - countedAt) / 1000) * config.nudgesPerSecond);
      countedAt = now;
      if (allowance < 1) return false;
      allowance -= 1;
      return true;
    },
  };
}
