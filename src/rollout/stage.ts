import { STAGES } from '../config/schema.js';

export type Stage = (typeof STAGES)[number];

/** What a stage decides. It decides what is issued next, never what happens to what was issued (law 5). */
export interface StageRules {
  /** `navigation`: for page navigations, at exchange and at logout; elsewhere the session must be exchanged first. */
  readonly session: 'accepted' | 'navigation';
  readonly exchange: boolean;
  /** `return`: a client that can return to its session is told to; all others go on. */
  readonly refresh: 'granted' | 'return';
  /** Whether a client may return to its session. */
  readonly wayBack: boolean;
  /** Whether some sessions are minted as tokens off the request's path, to see what would come of it. */
  readonly shadowMint?: boolean;
  /** What a client is told to do of its own accord. */
  readonly nudge?: 'forward' | 'back';
}

/** The one table of the stages, lowest first. Nothing else in the code compares their names. */
export const STAGE_TABLE: Readonly<Record<Stage, StageRules>> = {
  recall: { session: 'accepted', exchange: false, refresh: 'return', wayBack: true, nudge: 'back' },
  'session-only': { session: 'accepted', exchange: false, refresh: 'granted', wayBack: true },
  shadow: { session: 'accepted', exchange: false, refresh: 'granted', wayBack: true, shadowMint: true },
  dual: { session: 'accepted', exchange: true, refresh: 'granted', wayBack: true },
  'jwt-preferred': { session: 'accepted', exchange: true, refresh: 'granted', wayBack: false, nudge: 'forward' },
  'jwt-only': { session: 'navigation', exchange: true, refresh: 'granted', wayBack: false, nudge: 'forward' },
};

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
  if (!ceilings.clientExchanges) hold('jwt-preferred', 'client');
  if (ceilings.guardrail) hold('session-only', 'guardrail');
  if (ceilings.operator) hold(ceilings.operator, 'operator');
  if (ceilings.killSwitch) hold('session-only', 'kill-switch');
  if (!ceilings.signing) hold('session-only', 'signing');
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

export function isStage(value: unknown): value is Stage {
  return STAGES.some((stage) => stage === value);
}

const RANKS = new Map(STAGES.map((stage, at) => [stage, at]));

function rank(stage: Stage): number {
  return RANKS.get(stage) ?? 0;
}
