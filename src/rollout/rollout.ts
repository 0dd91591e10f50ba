import type { Config } from '../config/config.js';
import type { Principal } from '../principal.js';
import type { Clamps } from './clamps.js';
import type { ClientRegistry, ResolvedClient } from './clients.js';
import type { Flags } from './flags.js';
import { type EffectiveStage, effectiveStage, STAGE_TABLE, type StageRules } from './stage.js';
import type { Traffic } from './traffic.js';

export interface Decision extends EffectiveStage {
  readonly rules: StageRules;
  /** The cohort that was decided for: one that the config names, else the client's id. */
  readonly cohort: string;
}

export interface Rollout {
  /** How far this person on this client is, and why. */
  decide(client: ResolvedClient, person: Pick<Principal, 'subject' | 'tenant'>): Promise<Decision>;
  /** Whether one more response may carry a nudge: at most `nudgesPerSecond`, of all instances together. */
  mayNudge(): boolean;
}

export interface RolloutOptions {
  readonly config: Pick<Config['rollout'], 'defaultStage' | 'nudgesPerSecond'>;
  readonly flags: Flags;
  readonly clients: ClientRegistry;
  readonly clamps: Pick<Clamps, 'ceilingsOf'>;
  readonly traffic: Pick<Traffic, 'count'>;
  readonly canSign: () => boolean;
  /** How many instances share the rate of nudges. */
  readonly fleetSize: () => number;
  readonly nowMs: () => number;
}

/** Share of a second's nudges that may go out at once. */
const BURST = 0.1;

export function createRollout(options: RolloutOptions): Rollout {
  const { config, flags, clients, clamps, traffic, canSign, fleetSize, nowMs } = options;
  let allowance = 1;
  let countedAt = nowMs();

  return {
    async decide(client, { subject, tenant }) {
      const named = clients.cohortOf(client.id, tenant);
      const cohort = named ?? client.id;
      const answer = await flags.evaluate({ client: client.id, clientVersion: client.version, cohort: named, tenant, subject });
      const decided = effectiveStage({
        flag: answer.stage,
        defaultStage: config.defaultStage,
        killSwitch: answer.killSwitch,
        signing: canSign(),
        clientExchanges: client.exchanges,
        ...clamps.ceilingsOf(client.id, cohort),
      });
      traffic.count(client.id, cohort, decided, subject);
      return { ...decided, cohort, rules: STAGE_TABLE[decided.stage] };
    },

    mayNudge() {
      const now = nowMs();
      const perSecond = config.nudgesPerSecond / fleetSize();
      const most = perSecond === 0 ? 0 : Math.max(1, perSecond * BURST);
      allowance = Math.min(most, allowance + (Math.max(0, now - countedAt) / 1000) * perSecond);
      countedAt = now;
      if (allowance < 1) return false;
      allowance -= 1;
      return true;
    },
  };
}
