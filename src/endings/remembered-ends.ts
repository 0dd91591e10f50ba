import { createHash } from 'node:crypto';
import { type Claim, createDoneNote } from '../redis/claim.js';
import type { RedisClient } from '../redis/client.js';
import { loadScript } from '../redis/script.js';
import type { SessionLedger } from '../sessions/ledger.js';
import type { Tools } from '../telemetry/tools.js';
import type { EndEvent } from './event.js';
import type { Persons } from './person.js';
import type { FamilyOf, RevocationIndex } from './revocation.js';

/** Writes to Redis again what has ended and Redis has lost: a failover or a restore may have put it back by seconds or hours. */
export interface RememberedEnds {
  /** Writes the end of one family, and of its session, that this instance knows. Rejects with what ioredis rejects with. */
  writeAgain(family: FamilyOf): Promise<void>;
  /**
   * Writes all that this instance knows; goes on until it is done. `nodes`: names the nodes of Redis that answer now, where that is why. It is
   * enough that another instance has written the same to these nodes, or has begun to since.
   */
  writeAll(nodes?: string): void;
  /** The same after a lost write that a client has shown; once a minute at most, and never left out. */
  writeAllSoon(): void;
  /** Whether nothing is being written, or will be. */
  isIdle(): boolean;
  close(): void;
}

export interface RememberedEndsOptions extends Pick<Tools, 'log' | 'audit' | 'metrics'> {
  readonly client: RedisClient;
  readonly prefix: string;
  readonly ledger: Pick<SessionLedger, 'keysOf' | 'endAgain'>;
  readonly persons: Pick<Persons, 'endAgain'>;
  readonly heard: Pick<RevocationIndex, 'known' | 'knownPersons' | 'endedLogin'>;
  /** To write again what Redis has lost. */
  readonly claim: Claim;
}

/** Commands of a batch. At most 1,880 a second: with what the event stream writes meanwhile, and what is read first, 2,000. */
const BATCH = 188;
const BATCH_MS = 100;
const AGAIN_MS = 1000;
/** Lost writes are met one by one for as long as clients come. */
const SOON_MS = 60_000;
/** Instances notice a loss within this time of each other, and an instance notices it in more than one way. */
const SETTLE_MS = 2000;

const timeOf = loadScript('time');
const endFamily = loadScript('end-family', ['hash', 'zset', 'hash']);

export function createRememberedEnds(options: RememberedEndsOptions): RememberedEnds {
  const { client, prefix, ledger, persons, heard, claim, log, audit, metrics } = options;
  const done = createDoneNote(client, `${prefix}ends-rewritten`);
  let running: Promise<void> | undefined;
  let startedAt = Number.NEGATIVE_INFINITY;
  /** Asked for since the present run began. */
  let next: Loss | undefined;
  let soon: NodeJS.Timeout | undefined;
  let closed = false;
  /** How many of which were written: Redis may not answer in between. */
  let reached = NOTHING_REACHED;

  async function endFamilyAgain(sid: string, family: string): Promise<void> {
    const keys = ledger.keysOf(sid);
    await endFamily(client, [keys.family + family, keys.families, keys.session], [family, 'revoked', '', '']);
  }

  async function write(event: EndEvent): Promise<void> {
    if (event.type === 'family.ended') await endFamilyAgain(event.sid, event.family);
    else if (event.type === 'session.ended') await ledger.endAgain(event.sid, event);
    else await persons.endAgain(event);
    metrics.endsRewritten.inc();
  }

  /** Those of one session or person one after the other, the newest last. */
  async function writeBatch(events: readonly EndEvent[]): Promise<void> {
    const byOwner = new Map<string, EndEvent[]>();
    for (const event of events) {
      const owner = event.type === 'subject.ended' ? event.subject : event.sid;
      byOwner.set(owner, [...(byOwner.get(owner) ?? []), event]);
    }
    await Promise.all(
      [...byOwner.values()].map(async (all) => {
        for (const event of all) await write(event);
      }),
    );
  }

  /** From where it came to the last time, where these are the same. False: another instance has taken over. */
  async function writeBatches(events: readonly EndEvent[]): Promise<boolean> {
    let dueAt = performance.now();
    while (reached.at < events.length) {
      if (closed || !(await claim.take('ends'))) return false;
      const batch = batchFrom(events, reached.at);
      await writeBatch(batch);
      reached.at += batch.length;
      // Later than that, and two batches would come in one turn.
      dueAt = Math.max(dueAt, performance.now() - BATCH_MS) + BATCH_MS;
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, dueAt - performance.now())));
    }
    return true;
  }

  async function redisTime(): Promise<number> {
    return Number(await timeOf(client, [`${prefix}ends-rewritten`], []));
  }

  /** Whether what another instance has done makes up for this loss: to the same nodes, or begun after it was noticed. */
  async function isDone({ nodes, noticedAt }: Loss, ends: string): Promise<boolean> {
    const [ofNodes, ofEnds, begunAt] = (await done.read())?.split(' ') ?? [];
    if (ofEnds !== ends) return false;
    return (nodes !== undefined && ofNodes === digestOf([nodes])) || Number(begunAt) > (await noticedAt);
  }

  async function run(loss: Loss): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS).unref());
    while (!closed) {
      try {
        const events = allOf(heard);
        if (events.length === 0) return;
        const ends = digestOf(events.map((event) => JSON.stringify(event)));
        if (await isDone(loss, ends)) return;
        // What is lost while this is written is lost again: it begins when its first part was written.
        if (reached.ends !== ends) reached = { ends, at: 0, begunAt: await redisTime() };
        if ((await claim.take('ends')) && (await writeBatches(events))) {
          await done.write(`${loss.nodes === undefined ? '' : digestOf([loss.nodes])} ${ends} ${reached.begunAt}`);
          reached = NOTHING_REACHED;
          await claim.release('ends');
          audit('ends.rewritten', { ends: events.length });
          log.warn({ ends: events.length }, 'redis may have lost writes: what has ended was written again');
          return;
        }
      } catch (error) {
        log.debug({ err: error }, 'what has ended could not be written again; trying again');
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS).unref());
    }
  }

  function writeAll(nodes?: string): void {
    // Where Redis is away it is not known when: then nothing that others did before makes up for it.
    if (!closed) begin({ nodes, noticedAt: redisTime().catch(() => Number.POSITIVE_INFINITY) });
  }

  function begin(loss: Loss): void {
    if (running) {
      // The nodes of both, or a loss on nodes that are the same: then all is written in any case.
      next = { ...loss, nodes: next && next.nodes !== loss.nodes ? undefined : loss.nodes };
      return;
    }
    startedAt = performance.now();
    running = run(loss).finally(() => {
      running = undefined;
      const again = next;
      next = undefined;
      if (again && !closed) begin(again);
    });
  }

  function writeLater(): void {
    soon = undefined;
    writeAll();
  }

  return {
    async writeAgain({ sid, family, subject }) {
      const login = heard.endedLogin(sid, subject);
      if (login) await ledger.endAgain(sid, login);
      for (const ended of heard.knownPersons()) if (ended.subject === subject) await persons.endAgain(ended);
      await endFamilyAgain(sid, family);
      metrics.endsRewritten.inc();
    },
    writeAll,
    writeAllSoon() {
      const waitMs = startedAt + SOON_MS - performance.now();
      if (waitMs <= 0) writeAll();
      else soon ??= setTimeout(writeLater, waitMs).unref();
    },
    isIdle: () => running === undefined,
    close() {
      closed = true;
      clearTimeout(soon);
    },
  };
}

/** As many as take so many commands: the end of a person is looked for, and stands in two places. */
function batchFrom(events: readonly EndEvent[], from: number): readonly EndEvent[] {
  let end = from;
  for (let commands = 0; end < events.length && commands < BATCH; end++) commands += events[end]?.type === 'subject.ended' ? 3 : 1;
  return events.slice(from, end);
}

const NOTHING_REACHED = { ends: '', at: 0, begunAt: 0 };

/** `noticedAt`: by Redis' clock, in ms. */
interface Loss {
  readonly nodes: string | undefined;
  readonly noticedAt: Promise<number>;
}

/** Oldest first. Ends of persons matter for longer than the rest. */
function allOf(heard: RememberedEndsOptions['heard']): readonly EndEvent[] {
  const others = heard.known().filter(({ type }) => type !== 'subject.ended');
  return [...others, ...heard.knownPersons()].sort((one, other) => one.endedAt - other.endedAt);
}

function digestOf(texts: readonly string[]): string {
  const hash = createHash('sha256');
  for (const text of [...texts].sort()) hash.update(`${text}\0`);
  return hash.digest('base64url').slice(0, 22);
}
