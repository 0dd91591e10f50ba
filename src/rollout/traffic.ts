import type { Clock } from '../clock.js';
import { pseudonym } from '../config/secret.js';
import type { CohortReport } from '../fleet/announcement.js';
import type { RedisClient } from '../redis/client.js';
import { absentIfForeign } from '../redis/script.js';
import type { Stage } from '../stages.js';
import type { CountedCredential, Progress } from './progress.js';
import type { EffectiveStage } from './stage.js';

/** Who comes, and with which credential. */
export interface Comer {
  /** A configured client, or `unknown`. */
  readonly client: string;
  readonly version: string | undefined;
  readonly cohort: string;
  readonly subject: string;
  /** Undefined: it is not by a credential of a request that somebody is decided for. */
  readonly via: CountedCredential | undefined;
  /** Whether it is a browser's navigation to a page. */
  readonly isPage: boolean;
  /** Whether the client, at this version, knows how to exchange. */
  readonly exchanges: boolean;
}

/** Who comes, by cohort and stage: counted in memory, written to Redis in batches, never on a request's path. */
export interface Traffic {
  count(comer: Comer, decided: EffectiveStage): void;
  /** This instance's last minute. */
  readonly lastMinute: CohortReport[];
  /** Adds what was counted since to what the fleet has. Never rejects: what cannot be written is not counted. */
  flush(): Promise<void>;
}

export interface TrafficOptions {
  readonly client: RedisClient;
  readonly prefix: string;
  /** What it is counted for beside. */
  readonly progress: Progress;
  /** Makes the pseudonyms of which Redis counts the distinct. */
  readonly subjectKey: Buffer;
  readonly clock: Clock;
}

const MINUTE_MS = 60_000;
/** Parts that the last minute is made of. */
const SLICE_MS = 5000;
/** Distinct persons between two batches, at most, per cohort and stage. */
const MAX_SUBJECTS = 10_000;
/** Versions of a client between two batches. */
const MAX_VERSIONS = 100;
/** Over how many minutes people are counted. */
export const COUNTED_MINUTES = 10;

interface Counted {
  readonly client: string;
  readonly cohort: string;
  readonly decided: EffectiveStage;
  readonly via: CountedCredential | undefined;
  /** Requests by slice of time, the latest last. */
  slices: { readonly slice: number; requests: number }[];
}

/** What was counted since the last write, by version of the client: pages and other requests apart. */
interface Batch {
  readonly versions: Map<string | undefined, { readonly exchanges: boolean; readonly page: Shaped; readonly call: Shaped }>;
}

interface Shaped {
  requests: number;
  readonly subjects: Set<string>;
  /** When the last of them came. */
  at: number;
}

export function createTraffic({ client, prefix, progress, subjectKey, clock }: TrafficOptions): Traffic {
  /** By cohort; one of few for each stage, reason and credential. */
  const counted = new Map<string, Counted[]>();
  let unwritten = new Map<Counted, Batch>();

  function find({ client, cohort, via }: Comer, { stage, reason }: EffectiveStage): Counted {
    let known = counted.get(cohort);
    if (!known) {
      known = [];
      counted.set(cohort, known);
    }
    for (const one of known) if (one.decided.stage === stage && one.decided.reason === reason && one.via === via) return one;
    const made: Counted = { client, cohort, decided: { stage, reason }, via, slices: [] };
    known.push(made);
    return made;
  }

  /** A few at a time: requests come first. `known`: those that were made already, and are made now. */
  async function pseudonyms(subjects: ReadonlySet<string>, known: Map<string, string>): Promise<string[]> {
    for (const subject of subjects) {
      if (known.has(subject)) continue;
      known.set(subject, pseudonym(subjectKey, subject));
      if (known.size % 250 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    return [...subjects].flatMap((subject) => known.get(subject) ?? []);
  }

  return {
    count(comer, decided) {
      const known = find(comer, decided);
      const now = clock.now();
      const slice = Math.floor(now / SLICE_MS);
      let last = known.slices.at(-1);
      if (last?.slice !== slice) {
        last = { slice, requests: 0 };
        known.slices.push(last);
      }
      last.requests += 1;
      let batch = unwritten.get(known);
      if (!batch) {
        batch = { versions: new Map() };
        unwritten.set(known, batch);
      }
      let version = batch.versions.get(comer.version);
      if (!version) {
        // One of very many is counted as if it had said none.
        const name = batch.versions.size < MAX_VERSIONS ? comer.version : undefined;
        version = batch.versions.get(name) ?? {
          exchanges: comer.exchanges,
          page: { requests: 0, subjects: new Set(), at: 0 },
          call: { requests: 0, subjects: new Set(), at: 0 },
        };
        batch.versions.set(name, version);
      }
      const shaped = comer.isPage ? version.page : version.call;
      shaped.requests += 1;
      shaped.at = now;
      if (shaped.subjects.size < MAX_SUBJECTS) shaped.subjects.add(comer.subject);
    },

    get lastMinute() {
      const oldest = Math.floor((clock.now() - MINUTE_MS) / SLICE_MS);
      const cohorts = new Map<string, Omit<CohortReport, 'cohort'>>();
      for (const [cohort, all] of counted) {
        for (const one of all) one.slices = one.slices.filter(({ slice }) => slice > oldest);
        const [first, ...rest] = all.filter(({ slices }) => slices.length > 0);
        if (!first) {
          counted.delete(cohort);
          continue;
        }
        counted.set(cohort, [first, ...rest]);
        const stages = [first, ...rest].map(({ decided, via, slices }) => ({
          ...decided,
          ...(via === undefined ? {} : { via }),
          requests: slices.reduce((sum, one) => sum + one.requests, 0),
        }));
        cohorts.set(cohort, { client: first.client, stages });
      }
      return [...cohorts].map(([cohort, found]) => ({ cohort, ...found }));
    },

    async flush() {
      if (unwritten.size === 0) return await progress.flush();
      const batches = unwritten;
      unwritten = new Map();
      const minute = Math.floor(clock.now() / MINUTE_MS);
      const life = (COUNTED_MINUTES + 1) * MINUTE_MS;
      const pipeline = client.pipeline();
      for (const [{ client: id, cohort, decided, via }, { versions }] of batches) {
        const field = fieldOf(decided.stage, cohort);
        const known = new Map<string, string>();
        let requests = 0;
        for (const [version, { exchanges, page, call }] of versions) {
          for (const shaped of [page, call]) {
            if (shaped.requests === 0) continue;
            requests += shaped.requests;
            const people = await pseudonyms(shaped.subjects, known);
            if (via === undefined) continue;
            progress.shaped(
              { client: id, version, via, isPage: shaped === page, exchanges },
              { cohort, requests: shaped.requests, pseudonyms: people },
            );
            if (via === 'session') progress.sawSession(id, version, shaped.at);
          }
        }
        const people = [...known.values()];
        pipeline.hincrby(requestsKey(prefix, minute), field, requests);
        pipeline.pfadd(subjectsKey(prefix, minute, field), ...people);
        if (via !== undefined) {
          progress.count('requests', via, cohort, requests);
          progress.came(cohort, via, people);
        }
        pipeline.pexpire(subjectsKey(prefix, minute, field), life);
      }
      pipeline.pexpire(requestsKey(prefix, minute), life);
      await Promise.all([client.status === 'ready' ? pipeline.exec().catch(() => undefined) : undefined, progress.flush()]);
    },
  };
}

export interface TrafficCount {
  /** Distinct persons of the last minutes. */
  readonly subjects: number;
  readonly requestsPerMinute: number;
}

/** What the whole fleet counted, of the cohorts and stages that `counts` picks. Rejects with what ioredis rejects with. */
export async function readTraffic(
  client: RedisClient,
  prefix: string,
  nowMs: number,
  counts: (cohort: string, stage: string) => boolean,
): Promise<TrafficCount> {
  const minute = Math.floor(nowMs / MINUTE_MS);
  const minutes = Array.from({ length: COUNTED_MINUTES }, (_, ago) => minute - ago);
  const found = await Promise.all(
    minutes.map(async (one) => ({ minute: one, requests: await client.hgetall(requestsKey(prefix, one)).catch(absentIfForeign({})) })),
  );
  const picked = found.map(({ minute: one, requests }) => ({
    minute: one,
    fields: Object.entries(requests).filter(([field]) => counts(field.slice(field.indexOf(' ') + 1), field.slice(0, field.indexOf(' ')))),
  }));
  const keys = picked.flatMap(({ minute: one, fields }) => fields.map(([field]) => subjectsKey(prefix, one, field)));
  const busy = picked.filter(({ fields }) => fields.length > 0);
  const requests = busy.flatMap(({ fields }) => fields.map(([, number]) => Number(number) || 0)).reduce((sum, one) => sum + one, 0);
  // The minute that is under way counts for as much of it as is over.
  const elapsed = busy.reduce((sum, one) => sum + (one.minute === minute ? Math.max(0.1, (nowMs % MINUTE_MS) / MINUTE_MS) : 1), 0);
  return {
    subjects: keys.length === 0 ? 0 : await client.pfcount(...keys).catch(absentIfForeign(0)),
    requestsPerMinute: elapsed === 0 ? 0 : Math.round(requests / elapsed),
  };
}

function fieldOf(stage: Stage, cohort: string): string {
  return `${stage} ${cohort}`;
}

/** In one slot of a Cluster: they are counted together. */
function requestsKey(prefix: string, minute: number): string {
  return `${prefix}progress:{traffic}:${minute}`;
}

function subjectsKey(prefix: string, minute: number, field: string): string {
  return `${requestsKey(prefix, minute)}:${field}`;
}
