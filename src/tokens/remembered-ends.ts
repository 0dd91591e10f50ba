import type { RedisClient } from '../redis/connection.js';
import type { EndEvent } from '../redis/events.js';
import { loadScript } from '../redis/script.js';
import type { SessionLedger } from '../sessions/ledger.js';
import type { Persons } from '../sessions/person.js';
import type { Audit } from '../telemetry/audit.js';
import type { Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { FamilyOf, RevocationIndex } from './revocation.js';

/** Writes to Redis again what has ended and Redis has lost: a failover or a restore may have put it back by seconds or hours. */
export interface RememberedEnds {
  /** Writes the end of one family, and of its session, that this instance knows. Rejects with what ioredis rejects with. */
  writeAgain(family: FamilyOf): Promise<void>;
  /** Writes all that this instance knows, unless another instance does. Goes on until it is done; may be called at any time. */
  writeAll(): void;
  close(): void;
}

export interface RememberedEndsOptions {
  readonly client: RedisClient;
  readonly prefix: string;
  readonly ledger: Pick<SessionLedger, 'keysOf' | 'endAgain'>;
  readonly persons: () => Pick<Persons, 'endAgain'>;
  readonly heard: Pick<RevocationIndex, 'known' | 'endedLogin'>;
  /** Names this instance. */
  readonly random: { token(bytes: number): string };
  readonly log: Log;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

/** At most 2,000 writes a second. */
const BATCH = 100;
const BATCH_MS = 50;
/** An instance that writes says so again at least once in this time; else another one takes over. */
const CLAIM_MS = 5000;
const AGAIN_MS = 1000;
/** How long after its end another instance does not begin anew. */
const DONE_MS = 10_000;
/** Before the number of ends that were written. */
const DONE = 'done:';

const endFamily = loadScript('end-family', ['hash', 'zset', 'hash']);
const claimWrites = loadScript('claim', ['string']);

export function createRememberedEnds(options: RememberedEndsOptions): RememberedEnds {
  const { client, prefix, ledger, persons, heard, random, log, audit, metrics } = options;
  const claimKey = `${prefix}ends-rewritten`;
  const name = random.token(9);
  let running: Promise<void> | undefined;
  /** Something was lost since the present run began. */
  let again = false;
  let closed = false;

  async function endFamilyAgain(sid: string, family: string): Promise<void> {
    const keys = ledger.keysOf(sid);
    await endFamily(client, [keys.family + family, keys.families, keys.session], [family, 'revoked', '', '']);
  }

  async function write(event: EndEvent): Promise<void> {
    if (event.type === 'family.ended') await endFamilyAgain(event.sid, event.family);
    else if (event.type === 'session.ended') await ledger.endAgain(event.sid, event);
    else await persons().endAgain(event);
    metrics.endsRewritten.inc();
  }

  /** What stands there: this instance, another one, or that it is done. */
  async function claim(value: string, ms: number): Promise<string> {
    return String(await claimWrites(client, [claimKey], [name, value, ms]));
  }

  /** False: another instance has taken over. */
  async function writeBatches(): Promise<boolean> {
    const events = heard.known();
    for (let at = 0; at < events.length; at += BATCH) {
      if (closed || (await claim(name, CLAIM_MS)) !== name) return false;
      const pause = new Promise((resolve) => setTimeout(resolve, BATCH_MS));
      await Promise.all(events.slice(at, at + BATCH).map(write));
      await pause;
    }
    if (events.length > 0) {
      audit('ends.rewritten', { ends: events.length });
      log.warn({ ends: events.length }, 'redis may have lost writes: what has ended was written again');
    }
    await claim(`${DONE}${events.length}`, DONE_MS);
    return true;
  }

  async function run(): Promise<void> {
    while (!closed && heard.known().length > 0) {
      try {
        const holder = await claim(name, CLAIM_MS);
        // Another instance has written all that this one knows.
        if (holder.startsWith(DONE) && Number(holder.slice(DONE.length)) >= heard.known().length) return;
        if (holder === name && (await writeBatches())) return;
      } catch (error) {
        log.debug({ err: error }, 'what has ended could not be written again; trying again');
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS).unref());
    }
  }

  function writeAll(): void {
    if (closed) return;
    again = running !== undefined;
    running ??= run().finally(() => {
      running = undefined;
      if (again) writeAll();
    });
  }

  return {
    async writeAgain({ sid, family, subject }) {
      const login = heard.endedLogin(sid, subject);
      if (login) await ledger.endAgain(sid, login);
      await endFamilyAgain(sid, family);
      metrics.endsRewritten.inc();
    },

    writeAll,

    close() {
      closed = true;
    },
  };
}
