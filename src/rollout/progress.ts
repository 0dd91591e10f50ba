import type { Clock } from '../clock.js';
import type { RedisClient } from '../redis/client.js';
import { absentIfForeign } from '../redis/script.js';

/**
 * What is counted for people to look at, by cohort: requests by credential; exchanges, refreshes and returns by what came of them; shadow mints
 * and the codes of their mismatches; good credentials that were refused, by status and reason; requests by their shape, and parts of a minute in
 * which there were any.
 */
export type Counted = 'shape' | 'slice' | 'requests' | 'exchange' | 'refresh' | 'return' | 'shadow' | 'mismatch' | 'refused';

/** A credential as it is counted. */
export type CountedCredential = 'session' | 'jwt';

/** What decides about the answer that a request would get at another stage. */
export interface RequestShape {
  readonly via: CountedCredential;
  /** Whether it is a browser's navigation to a page. */
  readonly isPage: boolean;
  /** Whether the client, at its version, knew how to exchange. */
  readonly exchanges: boolean;
  /** As `nameOf` has it: `-` where the request says none. */
  readonly version: string;
}

/** How far the migration is, counted in memory and written to Redis in batches for all instances together; never on a request's path. */
export interface Progress {
  count(what: Counted, outcome: string, cohort: string, times?: number): void;
  /** Persons who came with a credential, by pseudonym: of a day the distinct are counted. */
  came(cohort: string, credential: CountedCredential, pseudonyms: readonly string[]): void;
  /** Requests of this shape, and the persons who sent them: told of the last hour. */
  shaped(shape: Omit<RequestShape, 'version'> & { readonly client: string; readonly version: string | undefined }, of: ShapedRequests): void;
  /** Somebody has come with a session, on a client of this version. */
  sawSession(client: string, version: string | undefined, atMs: number): void;
  /** Adds what was counted since to what the fleet has. Never rejects: while Redis is away it waits. */
  flush(): Promise<void>;
}

export interface ShapedRequests {
  readonly cohort: string;
  readonly requests: number;
  readonly pseudonyms: readonly string[];
}

export interface ProgressOptions {
  readonly client: RedisClient;
  readonly prefix: string;
  readonly clock: Clock;
}

const DAY_MS = 86_400_000;

/** How long a part of the time is, how much of an ISO time names it, and how long its counts are kept. */
const SPANS = {
  minute: { ms: 60_000, letters: 16, keepMs: 2 * 3_600_000 },
  hour: { ms: 3_600_000, letters: 13, keepMs: 15 * DAY_MS },
  day: { ms: DAY_MS, letters: 10, keepMs: 90 * DAY_MS },
} as const;

export type Span = keyof typeof SPANS;

/** These matter for a forecast only: nothing of them is kept by the hour or the day. */
const OF_MINUTES = /^(shape|slice) /;
/** People of a shape are counted by as many minutes. */
const SHAPE_MS = 10 * 60_000;
const SHAPE_KEEP_MS = 80 * 60_000;
/** A minute has so many parts, by which a rate knows how long there were requests. */
export const SLICES = 12;

/** Versions of one client that an instance tells apart: they come from requests. */
const MAX_VERSIONS = 50;
const VERSION = /^\d{1,9}(\.\d{1,9}){0,3}$/;
/** Pseudonyms that wait to be written, at most, for each cohort and credential. */
const MAX_WAITING = 20_000;

export function createProgress({ client, prefix, clock }: ProgressOptions): Progress {
  /** By the minute that they are of, in ms: what is written late is not counted as of now. */
  let counts = new Map<number, Map<string, number>>();
  let people = new Map<string, Set<string>>();
  let shapes = new Map<string, Set<string>>();
  let versions = new Map<string, number>();
  let toldApart = new Map<string, Set<string>>();
  let toldOn = '';

  function add(field: string, times: number): void {
    const minute = Math.floor(clock.now() / SPANS.minute.ms) * SPANS.minute.ms;
    let ofMinute = counts.get(minute);
    if (!ofMinute) {
      ofMinute = new Map();
      counts.set(minute, ofMinute);
    }
    ofMinute.set(field, (ofMinute.get(field) ?? 0) + times);
  }

  function comes(all: Map<string, Set<string>>, field: string, pseudonyms: Iterable<string>): void {
    const known = all.get(field) ?? new Set();
    all.set(field, known);
    for (const one of pseudonyms) if (known.size < MAX_WAITING) known.add(one);
  }

  function nameOf(id: string, version: string | undefined): string {
    if (version === undefined) return NO_VERSION;
    const known = toldApart.get(id) ?? new Set();
    toldApart.set(id, known);
    if (!VERSION.test(version) || (!known.has(version) && known.size >= MAX_VERSIONS)) return OTHER_VERSION;
    known.add(version);
    return version;
  }

  return {
    count: (what, outcome, cohort, times = 1) => add(`${what} ${outcome} ${cohort}`, times),
    came: (cohort, credential, pseudonyms) => comes(people, `${credential} ${cohort}`, pseudonyms),
    shaped({ client: id, version, ...shape }, { cohort, requests, pseudonyms }) {
      const name = nameOfShape({ ...shape, version: nameOf(id, version) });
      add(`shape ${name} ${cohort}`, requests);
      add(`slice ${Math.floor((clock.now() % SPANS.minute.ms) / (SPANS.minute.ms / SLICES))} ${cohort}`, 1);
      comes(shapes, `${nameOfKind(shape)} ${cohort}`, pseudonyms);
    },
    sawSession: (id, version, atMs) => void versions.set(`${nameOf(id, version)} ${id}`, atMs),

    async flush() {
      const now = clock.now();
      for (const minute of counts.keys()) if (now - minute > SPANS.minute.keepMs) counts.delete(minute);
      // Another day, other versions: what somebody has made up does not stand in the way for ever.
      if (toldOn !== nameOfTime('day', now)) toldApart = new Map();
      toldOn = nameOfTime('day', now);
      if (counts.size + people.size + shapes.size + versions.size === 0 || client.status !== 'ready') return;
      const written = { counts, people, shapes, versions };
      counts = new Map();
      people = new Map();
      shapes = new Map();
      versions = new Map();
      const transaction = client.multi();
      for (const [minute, ofMinute] of written.counts)
        for (const span of ['minute', 'hour', 'day'] as const) {
          const key = keyOf(prefix, span, minute);
          for (const [field, times] of ofMinute) if (span === 'minute' || !OF_MINUTES.test(field)) transaction.hincrby(key, field, times);
          transaction.pexpire(key, SPANS[span].keepMs);
        }
      for (const [field, pseudonyms] of written.people) {
        const key = peopleKey(prefix, now, field);
        transaction.pfadd(key, ...pseudonyms);
        transaction.pexpire(key, SPANS.day.keepMs);
      }
      for (const [field, pseudonyms] of written.shapes) {
        const key = shapeKey(prefix, now, field);
        transaction.pfadd(key, ...pseudonyms);
        transaction.pexpire(key, SHAPE_KEEP_MS);
      }
      for (const [field, at] of written.versions) transaction.hset(versionsKey(prefix, now), field, at);
      transaction.pexpire(versionsKey(prefix, now), SPANS.day.keepMs);
      // What was sent may have been done, however it looks: nothing is counted twice.
      await transaction.exec().catch(() => undefined);
    },
  };
}

/** What a version is called that the request did not say, or that is one of too many. */
const NO_VERSION = '-';
const OTHER_VERSION = 'other';

/** What was counted in one part of the time. */
export interface ProgressBucket {
  /** Its beginning, in ms since the epoch. */
  readonly at: number;
  readonly counts: readonly { readonly what: string; readonly outcome: string; readonly cohort: string; readonly times: number }[];
}

/** The latest parts of the time, oldest first, those without counts too. Rejects with what ioredis rejects with. */
export async function readProgress(client: RedisClient, prefix: string, span: Span, size: number, nowMs: number): Promise<ProgressBucket[]> {
  const { ms } = SPANS[span];
  const latest = Math.floor(nowMs / ms) * ms;
  const times = Array.from({ length: size }, (_, at) => latest - (size - 1 - at) * ms);
  const found = await pipelined(client, times, (pipeline, at) => pipeline.hgetall(keyOf(prefix, span, at)));
  return times.map((at, index) => ({
    at,
    counts: Object.entries(found[index] ?? {}).flatMap(([field, value]) => {
      const [what = '', outcome = '', ...cohort] = field.split(' ');
      const counted = Number(value);
      return Number.isFinite(counted) ? [{ what, outcome, cohort: cohort.join(' '), times: counted }] : [];
    }),
  }));
}

/** Distinct persons of a day. */
export interface PeopleCount {
  readonly session: number;
  readonly jwt: number;
  /** Who came with either; who came with both counts once. */
  readonly all: number;
}

/** Of the day under way, of one cohort or several together. Rejects with what ioredis rejects with. */
export async function readPeople(client: RedisClient, prefix: string, cohorts: readonly string[], nowMs: number): Promise<PeopleCount> {
  const keys = (credential: CountedCredential) => cohorts.map((cohort) => peopleKey(prefix, nowMs, `${credential} ${cohort}`));
  const counted = async (of: readonly string[]) => (of.length === 0 ? 0 : await client.pfcount(...of).catch(absentIfForeign(0)));
  const [session, jwt, all] = await Promise.all([counted(keys('session')), counted(keys('jwt')), counted([...keys('session'), ...keys('jwt')])]);
  return { session, jwt, all };
}

export function nameOfShape(shape: RequestShape): string {
  return `${nameOfKind(shape)}:${shape.version}`;
}

/** People are counted without the version: there may be many. */
function nameOfKind({ via, isPage, exchanges }: Omit<RequestShape, 'version'>): string {
  return `${via}:${isPage ? 'page' : 'call'}:${exchanges ? 'able' : 'unable'}`;
}

/** Undefined for what is no name of a shape. */
export function shapeOfName(name: string): RequestShape | undefined {
  const [, via, what, able, version = ''] = /^(session|jwt):(page|call):(able|unable):(.+)$/.exec(name) ?? [];
  return via === 'session' || via === 'jwt' ? { via, isPage: what === 'page', exchanges: able === 'able', version } : undefined;
}

/** Distinct persons of the last hour whose requests had any of these shapes. Rejects with what ioredis rejects with. */
export async function countShaped(
  client: RedisClient,
  prefix: string,
  shapes: readonly RequestShape[],
  cohort: string,
  nowMs: number,
): Promise<number> {
  const times = Array.from({ length: 3_600_000 / SHAPE_MS + 1 }, (_, ago) => nowMs - ago * SHAPE_MS);
  const kinds = new Set(shapes.map(nameOfKind));
  const keys = [...kinds].flatMap((kind) => times.map((at) => shapeKey(prefix, at, `${kind} ${cohort}`)));
  return keys.length === 0 ? 0 : await client.pfcount(...keys).catch(absentIfForeign(0));
}

/** When somebody last came with a session, by client and version. */
export interface LastSession {
  readonly client: string;
  /** `-`: the requests say none; `other`: one of very many. */
  readonly version: string;
  readonly at: number;
}

/** Over how many days the last session is looked for. */
export const LAST_SESSION_DAYS = 30;

/** Latest first. Rejects with what ioredis rejects with. */
export async function readLastSessions(client: RedisClient, prefix: string, nowMs: number): Promise<LastSession[]> {
  const days = Array.from({ length: LAST_SESSION_DAYS }, (_, ago) => nowMs - ago * DAY_MS);
  const found = await pipelined(client, days, (pipeline, at) => pipeline.hgetall(versionsKey(prefix, at)));
  const latest = new Map<string, number>();
  for (const [field, at] of found.flatMap((day) => Object.entries(day))) latest.set(field, Math.max(latest.get(field) ?? 0, Number(at) || 0));
  return [...latest]
    .map(([field, at]) => ({ version: field.slice(0, field.indexOf(' ')), client: field.slice(field.indexOf(' ') + 1), at }))
    .sort((one, other) => other.at - one.at);
}

type Pipeline = ReturnType<RedisClient['pipeline']>;

/** Hashes in one write; one that somebody else has put another type at is empty. */
async function pipelined(
  client: RedisClient,
  times: readonly number[],
  command: (pipeline: Pipeline, at: number) => unknown,
): Promise<Record<string, string>[]> {
  const pipeline = client.pipeline();
  for (const at of times) command(pipeline, at);
  const answers = (await pipeline.exec()) ?? [];
  return answers.map(([error, value]) => {
    if (error && !error.message.includes('WRONGTYPE')) throw error;
    return value !== null && typeof value === 'object' ? Object.fromEntries(Object.entries(value).map(([name, one]) => [name, String(one)])) : {};
  });
}

/** All of one time in one slot of a Cluster: they are written, and people counted, together. */
function keyOf(prefix: string, span: Span, at: number): string {
  return `${prefix}progress:${nameOfTime(span, at)}:{counts}`;
}

function nameOfTime(span: Span, at: number): string {
  return new Date(at).toISOString().slice(0, SPANS[span].letters);
}

function peopleKey(prefix: string, at: number, field: string): string {
  return `${keyOf(prefix, 'day', at)}:people:${field}`;
}

function shapeKey(prefix: string, at: number, field: string): string {
  return `${keyOf(prefix, 'minute', Math.floor(at / SHAPE_MS) * SHAPE_MS)}:people:${field}`;
}

function versionsKey(prefix: string, at: number): string {
  return `${keyOf(prefix, 'day', at)}:versions`;
}
