import type { Config } from '../config/config.js';
import type { PeopleCount } from '../rollout/progress.js';
import { type CheckName, STAGE_TABLE, STAGES, type Stage } from '../stages.js';
import type { CohortStatus, FleetStatus } from './status.js';

/** What one cohort's requests came to. */
export interface CohortFigures {
  /** Requests of the last hour by credential. */
  readonly lastHour: { readonly session: number; readonly jwt: number };
  /** Distinct persons of the day under way (UTC). */
  readonly today: PeopleCount;
  /** Of the last 24 hours. */
  readonly exchange: Outcome;
  readonly refresh: Outcome;
  readonly shadow: { readonly same: number; readonly mismatch: number; readonly codes: Readonly<Record<string, number>> };
  /** Of the last 30 days. */
  readonly returns: number;
  /** Sessions that were told to be exchanged first, in the last hour. */
  readonly exchangeFirst: number;
}

/** `failed`: by the bridge's own fault. What was rightly refused is in neither. */
export interface Outcome {
  readonly granted: number;
  readonly failed: number;
}

/** One line of a checklist, with the figure behind its tick. */
export interface Check {
  readonly name: string;
  /** Undefined: there is nothing yet to tell it by. */
  readonly ok?: boolean;
  readonly figure: string;
}

/** How far a cohort is, and whether the next step is safe. */
export interface StepReadiness {
  /** What most of its requests of the last minute got; absent: there were none. */
  readonly stage?: Stage;
  /** Absent at the last stage, and where the stage is not known. */
  readonly next?: Stage;
  readonly checks: readonly Check[];
  /** Names of the checks that do not pass. */
  readonly blockedBy: readonly string[];
}

/** Of what may fail, the share that must not. */
const GOOD_RATE = 0.995;
/** Share of the people of a cohort who should be on tokens before sessions alone are no longer accepted. */
const MOST_PEOPLE = 0.9;

export interface ReadinessInput {
  readonly cohort: CohortStatus;
  readonly figures: CohortFigures;
  readonly fleet: Pick<FleetStatus, 'instances' | 'configurations' | 'clamps' | 'problems'>;
  readonly config: Pick<Config, 'clients'>;
  /** Good credentials that were refused in the last hour. */
  readonly refused: number;
}

export function judgeReadiness(input: ReadinessInput): StepReadiness {
  const [most] = input.cohort.stages;
  const stage = STAGES.find((known) => known === most?.stage);
  const next = stage && STAGES[STAGES.indexOf(stage) + 1];
  const names = next ? STAGE_TABLE[next].needs : [];
  const checks = names.flatMap((name) => {
    const found = CHECKS[name](input);
    return found ? [{ name, ...found }] : [];
  });
  return {
    ...(stage ? { stage } : {}),
    ...(next ? { next } : {}),
    checks,
    blockedBy: checks.filter(({ ok }) => ok !== true).map(({ name }) => name),
  };
}

/** Undefined: it does not apply. */
type Judge = (input: ReadinessInput) => Omit<Check, 'name'> | undefined;

const CHECKS: Readonly<Record<CheckName, Judge>> = {
  signing({ fleet: { instances } }) {
    const healthy = instances.filter(({ signing }) => signing === 'healthy').length;
    return { ok: instances.length > 0 && healthy === instances.length, figure: `${healthy} of ${instances.length} instances healthy` };
  },

  fleet({ fleet: { instances, configurations, problems } }) {
    const needed = problems.length === 0 ? 'nothing needs you' : `${problems.length} ${problems.length === 1 ? 'thing needs' : 'things need'} you`;
    return {
      ok: configurations === 1 && problems.length === 0,
      figure: `${instances.length} live, ${configurations} ${configurations === 1 ? 'configuration' : 'configurations'}, ${needed}`,
    };
  },

  // What holds a version that does not exchange is another line.
  clamps({ cohort: { stages } }) {
    const held = stages.filter(({ reason }) => !['flag', 'default', 'client'].includes(reason));
    const reasons = [...new Set(held.map(({ reason }) => reason))];
    return { ok: held.length === 0, figure: reasons.length === 0 ? 'none' : `held by ${reasons.join(', ')}` };
  },

  client({ cohort, config }) {
    const exchanges = config.clients.find(({ id }) => id === cohort.client)?.exchanges === true;
    return { ok: exchanges, figure: exchanges ? 'knows the exchange' : 'clients[].exchanges is not set' };
  },

  shadow({ figures: { shadow } }) {
    const tried = shadow.same + shadow.mismatch;
    const codes = Object.keys(shadow.codes).sort();
    const figure = `${said(shadow.mismatch)} mismatches of ${said(tried)} in 24 h${codes.length > 0 ? ` (${codes.join(', ')})` : ''}`;
    return tried === 0 ? { figure } : { ok: shadow.mismatch === 0, figure };
  },

  exchange: ({ figures }) => rate(figures.exchange),
  refresh: ({ figures }) => rate(figures.refresh),

  return({ cohort, config, figures: { returns } }) {
    if (config.clients.find(({ id }) => id === cohort.client)?.wayBack !== true) return undefined;
    return { ok: returns > 0, figure: returns === 0 ? 'not rehearsed in 30 days' : `taken ${said(returns)} times in 30 days` };
  },

  refusals: ({ refused }) => ({ ok: refused === 0, figure: `${said(refused)} good credentials refused in the last hour` }),

  people({ figures: { today } }) {
    const figure = `${said(today.jwt)} of ${said(today.all)} people came with a token today`;
    return today.all === 0 ? { figure } : { ok: today.jwt >= today.all * MOST_PEOPLE, figure };
  },

  versions({ cohort: { stages, requests } }) {
    const held = stages.filter(({ reason }) => reason === 'client').reduce((sum, one) => sum + one.requests, 0);
    return { ok: held === 0, figure: `${said(held)} of ${said(requests)} requests came from versions that do not exchange` };
  },
};

function rate({ granted, failed }: Outcome): Omit<Check, 'name'> {
  const tried = granted + failed;
  const figure = `${said(granted)} of ${said(tried)} succeeded in 24 h`;
  return tried === 0 ? { figure } : { ok: granted >= tried * GOOD_RATE, figure };
}

function said(count: number): string {
  return count.toLocaleString('en-US');
}
