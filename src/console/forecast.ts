import type { Config } from '../config/config.js';
import type { RedisClient } from '../redis/client.js';
import { countShaped, nameOfShape, type ProgressBucket, type RequestShape, SLICES, shapeOfName } from '../rollout/progress.js';
import { effectiveStage } from '../rollout/stage.js';
import { STAGE_TABLE, type Stage } from '../stages.js';

/** What a request would be answered. `nudge`: 200, and told to exchange (or, at `recall`, to return). */
export type ForecastAnswer = 'token' | 'session' | 'nudge' | 'exchange-first' | 'unavailable';

export interface ForecastRow {
  readonly answer: ForecastAnswer;
  /** Distinct persons, by HyperLogLog: within about 1 % of all who came. Those who come by session and hold a token as well count by token. */
  readonly people: number;
  /** In all. */
  readonly requests: number;
  readonly requestsPerSecond: number;
  /** Versions of the client that would get it; `-`: requests that say none. */
  readonly versions: readonly string[];
}

/** What would happen to a cohort at a stage, by what it did in the last hour. */
export interface Forecast {
  readonly cohort: string;
  readonly client: string;
  readonly stage: Stage;
  /** Over how many minutes there were requests, at most 60. */
  readonly minutes: number;
  /** Of its requests, the share that was counted in enough detail: a release before 0.2 does not. */
  readonly share: number;
  readonly rows: readonly ForecastRow[];
  /** Those who would exchange, or at `recall` return. */
  readonly moving: {
    /** 0 with requests: fewer than can be told apart from those who hold a token. */
    readonly people: number;
    readonly requests: number;
    /** At the busiest. */
    readonly peakPerSecond: number;
    /** Until 95 % of them have; absent where nobody would. */
    readonly minutes?: number;
    /** Whether `rollout.nudgesPerSecond` holds them back. */
    readonly limited: boolean;
  };
}

export interface ForecastSource {
  readonly config: Pick<Config, 'clients'> & { readonly rollout: Pick<Config['rollout'], 'cohorts' | 'nudgesPerSecond'> };
  readonly client: RedisClient;
  /** What all of the bridge's keys start with. */
  readonly prefix: string;
}

export interface ForecastRequest {
  readonly cohort: string;
  readonly stage: Stage;
  /** Minutes of the last hour, oldest first. */
  readonly lastHour: readonly ProgressBucket[];
  readonly nowMs: number;
}

const MINUTE_MS = 60_000;
const SLICE_MS = MINUTE_MS / SLICES;
/** So many have moved when it is called done: some come once in a while only. */
const DONE = 0.95;

/** Changes nothing. Rejects with what ioredis rejects with. */
export async function forecast(source: ForecastSource, { cohort, stage, lastHour, nowMs }: ForecastRequest): Promise<Forecast> {
  const { config, client, prefix } = source;
  const id = config.rollout.cohorts.find(({ name }) => name === cohort)?.client ?? cohort;
  const wayBack = config.clients.find((one) => one.id === id)?.wayBack === true;
  const shapes = shapesOf(lastHour, cohort);
  const seconds = secondsOf(lastHour, cohort, nowMs);
  const people = async (of: readonly RequestShape[]) => await countShaped(client, prefix, of, cohort, nowMs);
  const byToken = shapes.filter(({ shape }) => shape.via === 'jwt').map(({ shape }) => shape);
  const withToken = await people(byToken);
  /** Without those who hold a token as well: they come by that. */
  const peopleBySession = async (of: readonly RequestShape[]) => (of.length === 0 ? 0 : Math.max(0, (await people([...of, ...byToken])) - withToken));

  const answered = shapes.map((one) => ({ ...one, answer: answerOf(one.shape, stage, wayBack) }));
  const rows: ForecastRow[] = [];
  for (const answer of ['token', 'session', 'nudge', 'exchange-first'] as const) {
    const mine = answered.filter((one) => one.answer === answer);
    if (mine.length === 0) continue;
    const of = mine.map(({ shape }) => shape);
    const bySession = of.filter(({ via }) => via === 'session');
    rows.push({
      answer,
      people: bySession.length === of.length ? await peopleBySession(of) : await people(of),
      requests: sum(mine.map(({ requests }) => requests)),
      requestsPerSecond: perSecond(sum(mine.map(({ requests }) => requests)), seconds),
      versions: [...new Set(of.map(({ version }) => version))].sort(),
    });
  }
  rows.push({
    answer: 'unavailable',
    people: 0,
    requests: refusedOf(lastHour),
    requestsPerSecond: perSecond(refusedOf(lastHour), seconds),
    versions: [],
  });

  const moving = answered.filter(({ answer }) => answer === 'nudge' || answer === 'exchange-first');
  const movers =
    STAGE_TABLE[stage].nudge === 'back' ? await people(moving.map(({ shape }) => shape)) : await peopleBySession(moving.map(({ shape }) => shape));
  const limit = config.rollout.nudgesPerSecond;
  const isLimited = moving.some(({ answer }) => answer === 'nudge') && !moving.some(({ answer }) => answer === 'exchange-first');
  const rate = perSecond(sum(moving.map(({ requests }) => requests)), seconds);
  const busiest = Math.max(rate, ...lastHour.map((bucket, at) => (at === lastHour.length - 1 ? 0 : inMinute(bucket, cohort, moving) / 60)));
  const peak = isLimited ? Math.min(limit, busiest) : busiest;
  const minutes = minutesUntilDone(movers, rate, isLimited ? limit : Number.POSITIVE_INFINITY);
  return {
    cohort,
    client: id,
    stage,
    minutes: Math.round(seconds / 60),
    share: shareOf(lastHour, cohort, shapes),
    rows,
    moving: {
      people: movers,
      requests: sum(moving.map(({ requests }) => requests)),
      peakPerSecond: movers === 0 ? 0 : round(peak),
      limited: isLimited && movers > 0 && busiest > limit,
      ...(minutes === undefined ? {} : { minutes }),
    },
  };
}

/** At the stage itself, of what holds a cohort down only that of its client: a version that does not exchange. */
function answerOf({ via, isPage, exchanges }: RequestShape, flag: Stage, wayBack: boolean): ForecastAnswer {
  const { stage } = effectiveStage({ flag, defaultStage: flag, killSwitch: false, signing: true, clientExchanges: exchanges });
  const rules = STAGE_TABLE[stage];
  if (via === 'jwt') return rules.nudge === 'back' && wayBack ? 'nudge' : 'token';
  if (rules.session === 'navigation' && !isPage) return 'exchange-first';
  return rules.nudge === 'forward' && exchanges ? 'nudge' : 'session';
}

interface ShapeCount {
  readonly shape: RequestShape;
  readonly requests: number;
}

function shapesOf(buckets: readonly ProgressBucket[], wanted: string): ShapeCount[] {
  const found = new Map<string, number>();
  for (const { what, outcome, cohort, times } of buckets.flatMap(({ counts }) => counts))
    if (what === 'shape' && cohort === wanted) found.set(outcome, (found.get(outcome) ?? 0) + times);
  return [...found].flatMap(([name, requests]) => {
    const shape = shapeOfName(name);
    return shape ? [{ shape, requests }] : [];
  });
}

function shareOf(buckets: readonly ProgressBucket[], wanted: string, shapes: readonly ShapeCount[]): number {
  const all = buckets.flatMap(({ counts }) => counts.filter(({ what, cohort }) => what === 'requests' && cohort === wanted));
  const requests = sum(all.map(({ times }) => times));
  return requests === 0 ? 1 : Math.min(1, sum(shapes.map((one) => one.requests)) / requests);
}

function inMinute(bucket: ProgressBucket, cohort: string, of: readonly ShapeCount[]): number {
  const names = new Set(of.map(({ shape }) => nameOfShape(shape)));
  return sum(bucket.counts.filter((one) => one.what === 'shape' && one.cohort === cohort && names.has(one.outcome)).map(({ times }) => times));
}

/** From the first part of a minute with requests to the last that was written. */
function secondsOf(buckets: readonly ProgressBucket[], wanted: string, nowMs: number): number {
  const starts = buckets.flatMap(({ at, counts }) =>
    counts.filter(({ what, cohort }) => what === 'slice' && cohort === wanted).map(({ outcome }) => at + Number(outcome) * SLICE_MS),
  );
  if (starts.length === 0) return 0;
  const ends = Math.max(...starts) + SLICE_MS;
  // A cohort that is silent now has been silent for a part of the time.
  const until = nowMs - ends < 3 * SLICE_MS ? Math.min(ends, nowMs) : nowMs;
  return Math.max(SLICE_MS, until - Math.min(...starts)) / 1000;
}

function refusedOf(buckets: readonly ProgressBucket[]): number {
  return sum(
    buckets.flatMap(({ counts }) => counts.filter(({ what, outcome }) => what === 'refused' && outcome.startsWith('503:')).map(({ times }) => times)),
  );
}

/**
 * People come on average every `people / rate` seconds, at no particular time: of those who are left, so many come each second as their share
 * of the rate is, and no more than the limit.
 */
function minutesUntilDone(people: number, rate: number, limit: number): number | undefined {
  if (people === 0 || rate === 0 || limit === 0) return undefined;
  const every = people / rate;
  const left = people * (1 - DONE);
  const free = Math.min(people, Math.max(left, limit * every));
  const seconds = (people - free) / limit + every * Math.log(free / left);
  return Math.ceil(seconds / 6) / 10;
}

function perSecond(requests: number, seconds: number): number {
  return seconds === 0 ? 0 : round(requests / seconds);
}

function round(rate: number): number {
  return rate >= 10 ? Math.round(rate * 10) / 10 : Math.round(rate * 1000) / 1000;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((all, one) => all + one, 0);
}
