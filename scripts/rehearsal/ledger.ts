/** What went wrong, of what must not. */
export type Violation = 'lockouts' | 'wrongPrincipals' | 'staleLogins';

/** What was counted while one step or fault was going on. */
export interface StepCounts {
  readonly title: string;
  readonly fault: boolean;
  /** Seconds since the drill began. */
  readonly from: number;
  until: number;
  requests: number;
  lockouts: number;
  wrongPrincipals: number;
  staleLogins: number;
  /** Every 5xx on the wire, those that a client has waited for and tried again too. */
  serverErrors: number;
  /** The longest that one client had to wait from a failure in this step to its next good answer, in ms. */
  worstRecoveryMs: number;
}

/** One second of the drill. */
export interface Second {
  session: number;
  jwt: number;
  unavailable: number;
  violations: number;
}

export interface ViolationNote {
  readonly at: number;
  readonly step: string;
  readonly kind: Violation;
  readonly told: string;
}

/** Counts what clients were answered, by step and by second. */
export class Ledger {
  readonly steps: StepCounts[] = [];
  readonly seconds: Second[] = [];
  readonly notes: ViolationNote[] = [];
  readonly #began = performance.now();

  get elapsed(): number {
    return (performance.now() - this.#began) / 1000;
  }

  begin(title: string, fault: boolean): StepCounts {
    const step: StepCounts = {
      title,
      fault,
      from: this.elapsed,
      until: this.elapsed,
      requests: 0,
      lockouts: 0,
      wrongPrincipals: 0,
      staleLogins: 0,
      serverErrors: 0,
      worstRecoveryMs: 0,
    };
    this.steps.push(step);
    return step;
  }

  answered(status: number, via: string): void {
    const step = this.#step;
    step.requests += 1;
    if (status >= 500) {
      step.serverErrors += 1;
      this.#second.unavailable += 1;
    } else if (via === 'session' || via === 'jwt') this.#second[via] += 1;
  }

  /** Somebody has a good answer again, whose failures began at `failedAt` (`performance.now()`): told where they began. */
  recovered(failedAt: number): void {
    const began = (failedAt - this.#began) / 1000;
    const step = this.steps.findLast(({ from }) => from <= began) ?? this.#step;
    step.worstRecoveryMs = Math.max(step.worstRecoveryMs, performance.now() - failedAt);
  }

  violated(kind: Violation, told: string): void {
    const step = this.#step;
    step[kind] += 1;
    this.#second.violations += 1;
    if (this.notes.length < 200) this.notes.push({ at: Math.round(this.elapsed * 10) / 10, step: step.title, kind, told });
  }

  get #step(): StepCounts {
    const step = this.steps.at(-1) ?? this.begin('before the first step', false);
    step.until = this.elapsed;
    return step;
  }

  get #second(): Second {
    const at = Math.floor(this.elapsed);
    while (this.seconds.length <= at) this.seconds.push({ session: 0, jwt: 0, unavailable: 0, violations: 0 });
    return this.seconds[at] ?? { session: 0, jwt: 0, unavailable: 0, violations: 0 };
  }
}

/** All steps together. */
export function totalOf(steps: readonly StepCounts[]): Pick<StepCounts, 'requests' | Violation | 'serverErrors' | 'worstRecoveryMs'> {
  const sum = (of: 'requests' | Violation | 'serverErrors') => steps.reduce((all, step) => all + step[of], 0);
  return {
    requests: sum('requests'),
    lockouts: sum('lockouts'),
    wrongPrincipals: sum('wrongPrincipals'),
    staleLogins: sum('staleLogins'),
    serverErrors: sum('serverErrors'),
    worstRecoveryMs: Math.max(0, ...steps.map(({ worstRecoveryMs }) => worstRecoveryMs)),
  };
}
