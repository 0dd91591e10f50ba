/** Whether tokens can be signed, and whether the next restart could still do so. */
export type SigningState = 'healthy' | 'degraded' | 'broken';

export const SIGNING_STATES: readonly SigningState[] = ['broken', 'degraded', 'healthy'];

export interface SigningHealth {
  readonly state: SigningState;
  /** True while a better state was seen once and is waiting for its confirmation. */
  readonly improving: boolean;
  /** Takes the result of a self-test. Worse is believed at once; better after two in a row. */
  observe(result: SigningState): void;
}

/** Starts as what the first self-test says. */
export function createSigningHealth(onChange: (from: SigningState | undefined, to: SigningState) => void): SigningHealth {
  let state: SigningState | undefined;
  let better: SigningState | undefined;

  function move(to: SigningState): void {
    const from = state;
    state = to;
    better = undefined;
    if (from !== to) onChange(from, to);
  }

  return {
    get state() {
      return state ?? 'broken';
    },
    get improving() {
      return better !== undefined;
    },
    observe(result) {
      if (state === undefined || rank(result) <= rank(state)) move(result);
      else if (better === undefined) better = result;
      else move(rank(better) < rank(result) ? better : result);
    },
  };
}

function rank(state: SigningState): number {
  return SIGNING_STATES.indexOf(state);
}
