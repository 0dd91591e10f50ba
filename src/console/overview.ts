import type { Config } from '../config/config.js';
import type { FleetStore } from '../fleet/store.js';
import type { DenyList } from '../keys/deny-list.js';
import type { StoredJwks } from '../keys/jwks.js';
import type { RedisClient } from '../redis/client.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { type SignedValue, unlessUnreadable } from '../redis/signed-value.js';
import type { Clamps } from '../rollout/clamps.js';
import {
  type Counted,
  LAST_SESSION_DAYS,
  type LastSession,
  type ProgressBucket,
  readLastSessions,
  readPeople,
  readProgress,
  type Span,
} from '../rollout/progress.js';
import { type CohortFigures, judgeReadiness, type StepReadiness } from './checklist.js';
import { type Forecast, forecast } from './forecast.js';
import { type CohortStatus, composeStatus, type FleetStatus } from './status.js';

/** Where what is told comes from. */
export interface OverviewSource {
  readonly config: Config;
  readonly control: {
    /** What all of the bridge's keys start with. */
    readonly prefix: string;
    readonly fleet: FleetStore;
    readonly jwks: SignedValue<StoredJwks>;
    readonly denyList: DenyList;
    readonly clamps: Clamps;
    /** What of it cannot be understood here, a sentence each. */
    readonly blocked: readonly string[];
    readonly secrets: Pick<FleetSecrets, 'writes' | 'first'>;
    readonly isNamed: boolean;
  };
  readonly client: RedisClient;
  /** By Redis' clock, in ms. */
  readonly nowMs: () => Promise<number>;
  /** What of Redis cannot be used from here, a sentence each: instances cannot announce it where Redis takes no writes. */
  readonly redisProblems: () => readonly string[];
}

/** Requests with a good credential that were answered 401 or 503. */
export interface RefusedCount {
  /** `401:own-token`: a token of the bridge's own, a moment old; `503:` and what it was waiting for. */
  readonly what: string;
  readonly requests: number;
}

/** A cohort with the figures behind what is said of it. */
export interface CohortOverview extends CohortStatus, StepReadiness {
  readonly figures: CohortFigures;
  /** What would happen at the next stage; absent where there is none, or nobody came. */
  readonly forecast?: Forecast;
}

/** Whether anybody would notice if sessions were no longer accepted (`sessions: []`). */
export interface SessionsOff {
  readonly ok: boolean;
  /** Who still comes with a session, and since when nobody has: latest first. */
  readonly lastSessions: readonly LastSession[];
}

/** All that operators see, of all instances together: what `crossfade status` prints and the console shows. */
export interface Overview extends Omit<FleetStatus, 'cohorts'> {
  /** The question of the night, answered in a sentence. */
  readonly sentence: string;
  /** Of the last hour, by what; and all of the last five minutes. */
  readonly refused: { readonly lastHour: readonly RefusedCount[]; readonly lastMinutes: number };
  readonly cohorts: readonly CohortOverview[];
  readonly sessionsOff: SessionsOff;
}

/** Minutes after which a refusal is no longer "now". */
const NOW_MINUTES = 5;
/** For so long nobody may have come with a session before it is called safe to switch them off: somebody may be on holiday. */
const QUIET_MS = 14 * 86_400_000;
/** What is told to be exchanged first is refused by design: at `jwt-only`, and nobody is locked out by it. */
const BY_DESIGN = '401:exchange-first';

/** The fleet as Redis has it now. Rejects with what ioredis rejects with. */
export async function readStatus({ config, control, redisProblems, nowMs }: Omit<OverviewSource, 'client'>): Promise<FleetStatus> {
  const at = await nowMs();
  const [{ live, strangers }, stored] = await Promise.all([
    control.fleet.read(at),
    control.jwks.read(),
    control.denyList.sync().catch(unlessUnreadable),
    control.clamps.sync().catch(unlessUnreadable),
  ]);
  const denied = [...control.denyList.kids.values()];
  return composeStatus({
    config,
    announcements: live,
    strangers,
    keys: stored?.keys ?? [],
    denied,
    clamps: control.clamps.all,
    blocked: [...control.blocked, ...redisProblems()],
    firstSecret: control.secrets.first,
    isNamed: control.isNamed,
    nowMs: at,
  });
}

/** The same with all that was counted. Rejects with what ioredis rejects with. */
export async function readOverview(source: OverviewSource): Promise<Overview> {
  const { client, config } = source;
  const { prefix } = source.control;
  const status = await readStatus(source);
  const { at } = status;
  const [lastHour, lastDay, lastDays, lastSessions] = await Promise.all([
    readProgress(client, prefix, 'minute', 60, at),
    readProgress(client, prefix, 'hour', 24, at),
    readProgress(client, prefix, 'day', LAST_SESSION_DAYS, at),
    readLastSessions(client, prefix, at),
  ]);
  const [minutes, hours, days] = [sumsOf(lastHour), sumsOf(lastDay), sumsOf(lastDays)];
  const refused = { lastHour: refusedOf(lastHour), lastMinutes: total(refusedOf(lastHour.slice(-NOW_MINUTES))) };
  const cohorts = await Promise.all(
    status.cohorts.map(async (cohort): Promise<CohortOverview> => {
      const figures: CohortFigures = {
        lastHour: { session: sum(minutes, 'requests', 'session', cohort), jwt: sum(minutes, 'requests', 'jwt', cohort) },
        today: await readPeople(client, prefix, [cohort.cohort], at),
        exchange: outcomeOf(hours, 'exchange', cohort),
        refresh: outcomeOf(hours, 'refresh', cohort),
        shadow: {
          same: sum(hours, 'shadow', 'same', cohort),
          mismatch: sum(hours, 'shadow', 'mismatch', cohort),
          codes: codesOf(hours, cohort),
        },
        returns: sum(days, 'return', 'granted', cohort),
        exchangeFirst: sum(minutes, 'refused', BY_DESIGN, cohort),
      };
      const readiness = judgeReadiness({ cohort, figures, fleet: status, config, refused: total(refused.lastHour) });
      const { next } = readiness;
      const ahead = next && (await forecast({ config, client, prefix }, { cohort: cohort.cohort, stage: next, lastHour, nowMs: at }));
      return { ...cohort, ...readiness, figures, ...(ahead ? { forecast: ahead } : {}) };
    }),
  );
  const latest = lastSessions[0]?.at;
  return {
    ...status,
    sentence: describe(refused, status.problems.length),
    refused,
    cohorts,
    sessionsOff: { ok: latest === undefined || at - latest > QUIET_MS, lastSessions },
  };
}

function describe({ lastMinutes, lastHour }: Overview['refused'], problems: number): string {
  const worst = lastHour.map(({ what }) => what).join(', ');
  const now =
    lastMinutes === 0
      ? 'Nobody is being refused.'
      : `${lastMinutes} ${lastMinutes === 1 ? 'request' : 'requests'} with a good credential ${lastMinutes === 1 ? 'was' : 'were'} refused in the last ${NOW_MINUTES} minutes (${worst}).`;
  return `${now} ${problems === 0 ? 'Nothing needs you.' : problems === 1 ? '1 thing needs you.' : `${problems} things need you.`}`;
}

function refusedOf(buckets: readonly ProgressBucket[]): RefusedCount[] {
  const found = new Map<string, number>();
  for (const { what, outcome, times } of buckets.flatMap(({ counts }) => counts))
    if (what === 'refused' && outcome !== BY_DESIGN) found.set(outcome, (found.get(outcome) ?? 0) + times);
  return [...found].map(([what, requests]) => ({ what, requests })).sort((one, other) => other.requests - one.requests);
}

function total(counts: readonly RefusedCount[]): number {
  return counts.reduce((all, { requests }) => all + requests, 0);
}

/** What was counted in some parts of the time together, by cohort: added up once for all of them. */
type Sums = ReadonlyMap<string, ReadonlyMap<string, number>>;

function sumsOf(buckets: readonly ProgressBucket[]): Sums {
  const sums = new Map<string, Map<string, number>>();
  for (const { what, outcome, cohort, times } of buckets.flatMap(({ counts }) => counts)) {
    const ofCohort = sums.get(cohort) ?? new Map<string, number>();
    sums.set(cohort, ofCohort);
    ofCohort.set(`${what} ${outcome}`, (ofCohort.get(`${what} ${outcome}`) ?? 0) + times);
  }
  return sums;
}

function sum(sums: Sums, what: Counted, outcome: string, { cohort }: CohortStatus): number {
  return sums.get(cohort)?.get(`${what} ${outcome}`) ?? 0;
}

function outcomeOf(sums: Sums, what: Counted, cohort: CohortStatus): CohortFigures['exchange'] {
  return { granted: sum(sums, what, 'granted', cohort), failed: sum(sums, what, 'failed', cohort) };
}

function codesOf(sums: Sums, { cohort }: CohortStatus): Record<string, number> {
  const counted = [...(sums.get(cohort) ?? [])].filter(([key]) => key.startsWith('mismatch '));
  return Object.fromEntries(counted.map(([key, times]) => [key.slice('mismatch '.length), times]));
}

/** Requests over time by cohort and credential, oldest first: for a chart. */
export interface Series {
  readonly span: Span;
  readonly at: readonly number[];
  readonly cohorts: readonly { readonly cohort: string; readonly session: readonly number[]; readonly jwt: readonly number[] }[];
}

/** How many parts of the time a series has. */
const PARTS: Readonly<Record<Span, number>> = { minute: 60, hour: 168, day: 90 };

/** Rejects with what ioredis rejects with. */
export async function readSeries({ client, control, nowMs }: OverviewSource, span: Span): Promise<Series> {
  const buckets = await readProgress(client, control.prefix, span, PARTS[span], await nowMs());
  const counted = buckets.flatMap(({ counts }) => counts).filter(({ what }) => what === 'requests');
  const cohorts = [...new Set(counted.map(({ cohort }) => cohort))].sort();
  const of = (cohort: string, credential: string) =>
    buckets.map(({ counts }) => counts.find((one) => one.what === 'requests' && one.outcome === credential && one.cohort === cohort)?.times ?? 0);
  return {
    span,
    at: buckets.map(({ at }) => at),
    cohorts: cohorts.map((cohort) => ({ cohort, session: of(cohort, 'session'), jwt: of(cohort, 'jwt') })),
  };
}
