import { HIGHEST_WITHOUT_EXCHANGE, SAFE_STAGE, STAGES, type Stage } from '../stages.js';

/** What holds a stage down, strongest first: at a tie the earlier one is the reason. */
export type StageReason = 'signing' | 'kill-switch' | 'operator' | 'guardrail' | 'client' | 'default' | 'flag';

export interface EffectiveStage {
  readonly stage: Stage;
  readonly reason: StageReason;
}

export interface StageInputs {
  /** What the flag says; undefined where it says nothing usable. */
  readonly flag: Stage | undefined;
  readonly defaultStage: Stage;
  readonly killSwitch: boolean;
  /** Whether tokens can be signed. */
  readonly signing: boolean;
  /** Whether the client knows how to exchange, at its version. */
  readonly clientExchanges: boolean;
  /** An operator's clamp. */
  readonly operator?: Stage;
  /** Whether the guardrail holds the cohort. */
  readonly guardrail?: boolean;
}

/** The minimum of the flag's stage and all ceilings, with the reason. Pure. */
export function effectiveStage({ flag, defaultStage, ...ceilings }: StageInputs): EffectiveStage {
  let stage = flag ?? defaultStage;
  let reason: StageReason = flag === undefined ? 'default' : 'flag';
  function hold(ceiling: Stage, why: StageReason): void {
    if (rank(ceiling) > rank(stage)) return;
    stage = ceiling;
    reason = why;
  }
  // From the weakest to the strongest: at a tie the later one is the reason.
  if (!ceilings.clientExchanges) hold(HIGHEST_WITHOUT_EXCHANGE, 'client');
  if (ceilings.guardrail) hold(SAFE_STAGE, 'guardrail');
  if (ceilings.operator) hold(ceilings.operator, 'operator');
  if (ceilings.killSwitch) hold(SAFE_STAGE, 'kill-switch');
  if (!ceilings.signing) hold(SAFE_STAGE, 'signing');
  return { stage, reason };
}

/** The lowest of some stages; undefined of none. */
export function lowestStage(stages: readonly Stage[]): Stage | undefined {
  return STAGES.find((stage) => stages.includes(stage));
}

/** The stages that a ceiling of this stage would bring down. */
export function stagesAbove(ceiling: Stage): readonly Stage[] {
  return STAGES.filter((stage) => rank(stage) > rank(ceiling));
}

const RANKS = new Map(STAGES.map((stage, at) => [stage, at]));

function rank(stage: Stage): number {
  return RANKS.get(stage) ?? 0;
}
