import { z } from 'zod';
import type { RedisClient } from '../redis/client.js';
import type { Seals } from '../redis/fleet-keyring.js';
import { parseJson } from '../redis/replies.js';
import { absentIfForeign } from '../redis/script.js';
import { AUDIT_EVENTS, type AuditEvent } from '../telemetry/audit.js';
import type { AuditEntry, AuditFeed } from '../telemetry/audit-feed.js';

/** What the instances tell each other of their audit, so that an operator sees all of it wherever they look. */
export interface FleetAudit {
  /**
   * Calls `heard` for the latest of all instances, oldest first, and then for each that comes, of this instance at once; gives what stops it.
   * Rejects with what ioredis rejects with.
   */
  follow(heard: (entry: AuditEntry) => void): Promise<() => void>;
  /** Writes what waits, at once: for a process that is about to end. Never rejects. */
  flush(): Promise<void>;
  close(): void;
}

export interface FleetAuditOptions {
  readonly client: RedisClient;
  /** What all keys start with. */
  readonly prefix: string;
  readonly secrets: Pick<Seals, 'sign' | 'openSigned'>;
  readonly feed: AuditFeed;
}

const MAX_KEPT = 300;
/** Those that wait to be written while Redis is away. */
const MAX_WAITING = 200;
const WRITE_AFTER_MS = 500;
const READ_EVERY_MS = 1000;

/** One for each request, of whoever: they are many, and counted elsewhere. */
const OF_REQUESTS = /^(exchange|refresh|return|tokens|session\.ended|session\.answered|origin|limit|principal|operator)/;

const events = Object.keys(AUDIT_EVENTS).filter((name): name is AuditEvent => name in AUDIT_EVENTS);
const entrySchema = z.object({
  at: z.number(),
  instance: z.string(),
  event: z.enum(events),
  fields: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
});

export function createFleetAudit({ client, prefix, secrets, feed }: FleetAuditOptions): FleetAudit {
  const key = `${prefix}progress:audit`;
  let waiting: AuditEntry[] = [];
  let timer: NodeJS.Timeout | undefined;

  function writeSoon(): void {
    timer ??= setTimeout(() => {
      timer = undefined;
      void write();
    }, WRITE_AFTER_MS).unref();
  }

  async function write(): Promise<void> {
    const entries = waiting;
    waiting = [];
    // All of them or none: what could not be written waits.
    const transaction = client.multi();
    for (const entry of entries) transaction.xadd(key, 'MAXLEN', '~', MAX_KEPT, '*', 'entry', secrets.sign('audit', JSON.stringify(entry)));
    await transaction.exec().catch(() => {
      waiting = [...entries, ...waiting].slice(-MAX_WAITING);
      writeSoon();
    });
  }

  const unfollow = feed.follow((entry) => {
    if (OF_REQUESTS.test(entry.event)) return;
    waiting = [...waiting, entry].slice(-MAX_WAITING);
    writeSoon();
  });

  /** What somebody else wrote there is left out. */
  function open(fields: readonly string[]): AuditEntry[] {
    const text = secrets.openSigned('audit', fields[fields.indexOf('entry') + 1] ?? '');
    const entry = text === undefined ? undefined : entrySchema.safeParse(parseJson(text));
    return entry?.success ? [entry.data] : [];
  }

  const ofOthers = (entries: readonly [string, string[]][]) =>
    entries.flatMap(([, fields]) => open(fields)).filter((entry) => entry.instance !== feed.instance);

  return {
    async follow(heard) {
      const kept = await client.xrevrange(key, '+', '-', 'COUNT', MAX_KEPT).catch(absentIfForeign<[string, string[]][]>([]));
      let position = kept[0]?.[0] ?? '0-0';
      for (const entry of [...ofOthers(kept), ...feed.recent].sort((one, other) => one.at - other.at)) heard(entry);
      const stop = feed.follow(heard);

      async function readOn(): Promise<void> {
        const next = await client.xrange(key, `(${position}`, '+', 'COUNT', MAX_KEPT);
        position = next.at(-1)?.[0] ?? position;
        for (const entry of ofOthers(next)) heard(entry);
      }
      const reading = setInterval(() => void readOn().catch(() => undefined), READ_EVERY_MS);
      reading.unref();
      return () => {
        stop();
        clearInterval(reading);
      };
    },
    async flush() {
      if (waiting.length > 0) await write();
    },
    close() {
      unfollow();
      clearTimeout(timer);
    },
  };
}
