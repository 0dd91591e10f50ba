import { z } from 'zod';
import type { RedisConnection } from '../redis/connection.js';
import { type FleetSecrets, nameInFront } from '../redis/fleet-keyring.js';
import { parseJson } from '../redis/replies.js';
import { scanPages } from '../redis/scan.js';
import { absentIfForeign } from '../redis/script.js';

/** How much stands in Redis under one fleet secret. What lapses within minutes is left out. */
export interface WrittenCounts {
  /** Keys, clamps, flags, cookie secrets. */
  readonly values: number;
  /** Tombstones and ends of persons. Events are published again at once, and lapse. */
  readonly ends: number;
  readonly families: number;
  /** What is kept of sessions: dormant copies and links. */
  readonly sessions: number;
}

const PAGE = 500;

const grantSchema = z.object({ under: z.array(z.string()).optional() });

/** By the name that stands in front of what was written; empty for the first secret. Looks at every key. Rejects with what ioredis rejects with. */
export async function countWritten(connection: Pick<RedisConnection, 'client'>, prefix: string): Promise<ReadonlyMap<string, WrittenCounts>> {
  const { client } = connection;
  const counts = new Map<string, WrittenCounts>();

  function add(kind: keyof WrittenCounts, written: string | null | undefined): void {
    if (typeof written !== 'string' || written === '') return;
    const name = nameInFront(written);
    const before = counts.get(name) ?? { values: 0, ends: 0, families: 0, sessions: 0 };
    counts.set(name, { ...before, [kind]: before[kind] + 1 });
  }

  for (const name of ['jwks', 'revoked-kids', 'clamps', 'flags', 'denied-secrets'])
    add('values', await client.get(prefix + name).catch(absentIfForeign<string | null>(null)));
  const cookieSecrets = await client.hvals(`${prefix}cookie-secrets`).catch(absentIfForeign<string[]>([]));
  for (const note of cookieSecrets) add('values', note);
  for (const member of await client.zrange(`${prefix}persons-ended`, '0', '-1').catch(absentIfForeign<string[]>([]))) add('ends', member);
  await each(`${prefix}{`, '}:ended', 'string', async (key) => add('ends', await client.get(key).catch(absentIfForeign<string | null>(null))));
  await each(`${prefix}subject:{`, '}', 'hash', async (key) => add('ends', await field(key, 'not-before')));
  await each(`${prefix}{`, '', 'hash', async (key) => {
    if (key.includes('}:family:')) add('families', await field(key, 'grant'));
    else if (key.endsWith('}:session')) for (const sealed of await client.hvals(key).catch(absentIfForeign<string[]>([]))) add('sessions', sealed);
  });
  return counts;

  async function field(key: string, name: string): Promise<string | null> {
    return await client.hget(key, name).catch(absentIfForeign<string | null>(null));
  }

  async function each(before: string, behind: string, type: 'string' | 'hash', work: (key: string) => Promise<void>): Promise<void> {
    const seen = new Set<string>();
    for await (const { keys } of scanPages(connection, { before, behind }, { type, count: PAGE })) {
      const fresh = keys.filter((key) => !seen.has(key));
      await Promise.all(fresh.map(work));
      // SCAN gives a key twice at times, within neighbouring pages for the most part: a count of millions need not remember all of them.
      seen.clear();
      for (const key of fresh) seen.add(key);
    }
  }
}

export interface FamiliesUnderOptions {
  readonly connection: Pick<RedisConnection, 'client'>;
  /** What all of the bridge's keys start with. */
  readonly prefix: string;
  readonly secrets: FleetSecrets;
  /** What the seal of a grant is bound to. */
  readonly contextOf: (sid: string, secretHash: string) => string;
}

/** How many families stand under a secret, or have passed through it. Looks at every family. Rejects with what ioredis rejects with. */
export async function countFamilies({ connection, prefix, secrets, contextOf }: FamiliesUnderOptions, name: string): Promise<number> {
  const { client } = connection;
  const found = new Set<string>();

  async function look(key: string): Promise<void> {
    const sid = /\{(.+)\}/.exec(key.slice(prefix.length))?.[1] ?? '';
    const [secretHash, sealed] = await client.hmget(key, 'secret', 'grant').catch(absentIfForeign<null[]>([null, null]));
    if (typeof sealed !== 'string' || typeof secretHash !== 'string') return;
    const { under = [] } = grantSchema.safeParse(parseJson(secrets.unseal(contextOf(sid, secretHash), sealed) ?? '')).data ?? {};
    if (secrets.secretOf(sealed) === name || under.includes(name)) found.add(key);
  }

  for await (const { keys } of scanPages(connection, { before: `${prefix}{`, behind: '' }, { type: 'hash', count: PAGE }))
    await Promise.all(keys.filter((key) => key.includes('}:family:')).map(look));
  return found.size;
}
