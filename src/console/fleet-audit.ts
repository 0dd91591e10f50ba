import { z } from 'zod';
import type { RedisClient } from '../redis/connection.js';
import { parseJson } from '../redis/replies.js';
import { isWrongType } from '../redis/script.js';
import { openSignedText, signText } from '../redis/signed-text.js';
import { AUDIT_EVENTS, type AuditEvent } from '../telemetry/audit.js';
import type { AuditEntry, AuditFeed } from '../telemetry/audit-feed.js';

/** What the instances tell each other of their audit, so that an operator sees all of it wherever they look. */
export interface FleetAudit {
  /** The latest of all instances, oldest first. Rejects with what ioredis rejects with. */
  latest(): Promise<AuditEntry[]>;
  /** Calls `heard` for each from now on, of this instance at once; gives what stops it. */
  follow(heard: (entry: AuditEntry) => void): () => void;
  close(): void;
}

export interface FleetAuditOptions {
  readonly client: RedisClient;
  /** What all keys start with. */
  readonly prefix: string;
  readonly macKey: Buffer;
  readonly feed: AuditFeed;
}

const MAX_KEPT = 300;
/** Those that wait to be written while Redis is away. */
const MAX_WAITING = 200;
const WRITE_AFTER_MS = 500;
const READ_EVERY_MS = 1000;

/** One for each request: they are many, and counted elsewhere. */
const OF_REQUESTS = /^(exchange|refresh|return|tokens|session\.ended|session\.answered|origin|limit|principal)/;

const events = Object.keys(AUDIT_EVENTS).filter((name): name is AuditEvent => name in AUDIT_EVENTS);
const entrySchema = z.object({
  at: z.number(),
  instance: z.string(),
  event: z.enum(events),
  fields: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
});

export function createFleetAudit({ client, prefix, macKey, feed }: FleetAuditOptions): FleetAudit {
  const key = `${prefix}progress:audit`;
  let waiting: AuditEntry[] = [];
  let timer: NodeJS.Timeout | undefined;
  const followers = new Set<(entry: AuditEntry) => void>();
  let reading: NodeJS.Timeout | undefined;
  let position = '$';

  async function write(): Promise<void> {
    const entries = waiting;
    waiting = [];
    const pipeline = client.pipeline();
    for (const entry of entries) pipeline.xadd(key, 'MAXLEN', '~', MAX_KEPT, '*', 'entry', signText(macKey, 'audit', JSON.stringify(entry)));
    await pipeline.exec().catch(() => {
      waiting = [...entries, ...waiting].slice(-MAX_WAITING);
    });
  }

  const unfollow = feed.follow((entry) => {
    for (const heard of followers) heard(entry);
    if (OF_REQUESTS.test(entry.event)) return;
    waiting = [...waiting, entry].slice(-MAX_WAITING);
    timer ??= setTimeout(() => {
      timer = undefined;
      void write();
    }, WRITE_AFTER_MS).unref();
  });

  /** What somebody else wrote there is left out. */
  function open(fields: readonly string[]): AuditEntry[] {
    const text = openSignedText(macKey, 'audit', fields[fields.indexOf('entry') + 1] ?? '');
    const entry = text === undefined ? undefined : entrySchema.safeParse(parseJson(text));
    return entry?.success ? [entry.data] : [];
  }

  async function readOn(): Promise<void> {
    if (position === '$') position = (await client.xrevrange(key, '+', '-', 'COUNT', 1))[0]?.[0] ?? '0-0';
    for (const [id, fields] of await client.xrange(key, `(${position}`, '+', 'COUNT', MAX_KEPT)) {
      position = id;
      for (const entry of open(fields)) if (entry.instance !== feed.instance) for (const heard of followers) heard(entry);
    }
  }

  /** Only while somebody looks. */
  function readSometimes(): void {
    if (followers.size > 0 && !reading) {
      position = '$';
      reading = setInterval(() => void readOn().catch(() => undefined), READ_EVERY_MS);
      reading.unref();
    } else if (followers.size === 0) {
      clearInterval(reading);
      reading = undefined;
    }
  }

  return {
    async latest() {
      const kept = await client.xrevrange(key, '+', '-', 'COUNT', MAX_KEPT).catch((error: unknown): [string, string[]][] => {
        if (isWrongType(error)) return [];
        throw error;
      });
      const others = kept.flatMap(([, fields]) => open(fields)).filter((entry) => entry.instance !== feed.instance);
      return [...others, ...feed.recent].sort((one, other) => one.at - other.at).slice(-MAX_KEPT);
    },
    follow(heard) {
      followers.add(heard);
      readSometimes();
      return () => {
        followers.delete(heard);
        readSometimes();
      };
    },
    close() {
      unfollow();
      clearTimeout(timer);
      clearInterval(reading);
    },
  };
}
