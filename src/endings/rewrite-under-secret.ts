import { z } from 'zod';
import type { RedisConnection } from '../redis/connection.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { parseJson } from '../redis/replies.js';
import { scanPages } from '../redis/scan.js';
import { absentIfForeign, loadScript } from '../redis/script.js';
import { linkContext, tombstoneContext } from '../sessions/ledger.js';
import { personOf } from '../sessions/person-of.js';
import { EVENT_CONTEXT } from './event.js';
import { PERSON_CONTEXT } from './person.js';

export interface EndsOptions {
  readonly connection: Pick<RedisConnection, 'client'>;
  /** What all of the bridge's keys start with. */
  readonly prefix: string;
  readonly secrets: FleetSecrets;
  /** Called before each page. False: another instance has taken over. */
  readonly goesOn: () => Promise<boolean>;
}

export interface EventsOptions extends Pick<EndsOptions, 'connection' | 'prefix' | 'secrets'> {
  /** How long an event matters, in ms. */
  readonly keepMs: number;
}

/** At most 2,000 a second. */
const PAGE = 200;
const PAGE_MS = 100;

const replaceSame = loadScript('replace-same');
const publishEvent = loadScript('publish-event', ['stream']);
const personSchema = z.object({ subject: z.string() });

interface Replacing extends Pick<EndsOptions, 'connection' | 'secrets'> {
  /** What was written under the secret of now. */
  count: number;
}

async function replace(
  of: Replacing,
  kind: 'string' | 'field' | 'member',
  key: string,
  before: string | null,
  context: string,
  field = '',
): Promise<void> {
  const { secrets, connection } = of;
  if (before === null || before === '' || !secrets.isOutdated(before)) return;
  const text = secrets.openSigned(context, before);
  if (text === undefined) return;
  if ((await replaceSame(connection.client, [key], [kind, before, secrets.sign(context, text), field])) === 1) of.count += 1;
}

/**
 * Signs the ends of persons that stand in Redis with the secret that the fleet writes with now. Gives how many; undefined where another
 * instance has taken over. Rejects with what ioredis rejects with.
 */
export async function writePersonsAnew({ connection, prefix, secrets, goesOn }: EndsOptions): Promise<number | undefined> {
  const { client } = connection;
  const of: Replacing = { connection, secrets, count: 0 };
  const key = `${prefix}persons-ended`;
  const members = await client.zrange(key, '0', '-1').catch(absentIfForeign<string[]>([]));
  for (let at = 0; at < members.length; at += PAGE) {
    if (!(await goesOn())) return undefined;
    await Promise.all(
      members.slice(at, at + PAGE).map(async (member) => {
        await replace(of, 'member', key, member, PERSON_CONTEXT);
        const { subject } = personSchema.safeParse(parseJson(secrets.openSigned(PERSON_CONTEXT, member) ?? '')).data ?? {};
        if (subject === undefined) return;
        const own = `${prefix}subject:{${personOf(secrets.names.person, subject)}}`;
        await replace(
          of,
          'field',
          own,
          await client.hget(own, 'not-before').catch(absentIfForeign<string | null>(null)),
          PERSON_CONTEXT,
          'not-before',
        );
      }),
    );
    await new Promise((resolve) => setTimeout(resolve, PAGE_MS));
  }
  return of.count;
}

/**
 * The same for sessions: tombstones, and which sessions end together. They live for as long as the longest family, and would bring back what
 * has ended where their secret went first. Looks at every key of the bridge: the user of Redis needs `+scan`.
 */
export async function writeSessionsAnew({ connection, prefix, secrets, goesOn }: EndsOptions): Promise<number | undefined> {
  const { client } = connection;
  const of: Replacing = { connection, secrets, count: 0 };

  async function tombstone(key: string): Promise<void> {
    const sid = key.slice(`${prefix}{`.length, -'}:ended'.length);
    await replace(of, 'string', key, await client.get(key).catch(absentIfForeign<string | null>(null)), tombstoneContext(sid));
  }

  async function links(key: string): Promise<void> {
    const sid = key.slice(`${prefix}{`.length, -'}:session'.length);
    const fields = await client.hgetall(key).catch(absentIfForeign<Record<string, string>>({}));
    for (const [field, before] of Object.entries(fields)) {
      const text = field.startsWith('link:') && secrets.isOutdated(before) ? secrets.unseal(linkContext(sid), before) : undefined;
      if (text === undefined) continue;
      if ((await replaceSame(client, [key], ['field', before, secrets.seal(linkContext(sid), text), field])) === 1) of.count += 1;
    }
  }

  async function each(behind: string, type: 'string' | 'hash', work: (key: string) => Promise<void>): Promise<boolean> {
    for await (const { keys } of scanPages(connection, { before: `${prefix}{`, behind }, { type, count: PAGE })) {
      if (!(await goesOn())) return false;
      const [from, before] = [performance.now(), of.count];
      await Promise.all(keys.map(work));
      // What only had to be looked at waits for nothing.
      const dueMs = ((of.count - before) / PAGE) * PAGE_MS - (performance.now() - from);
      if (dueMs > 0) await new Promise((resolve) => setTimeout(resolve, dueMs));
    }
    return true;
  }

  return (await each('}:session', 'hash', links)) && (await each('}:ended', 'string', tombstone)) ? of.count : undefined;
}

/** Publishes the events again that stand under another secret, where no instance lives that knows them. Rejects with what ioredis rejects with. */
export async function writeEventsAnew({ connection: { client }, prefix, secrets, keepMs }: EventsOptions): Promise<void> {
  const key = `${prefix}events`;
  const found = await client.xrange(key, '-', '+').catch(absentIfForeign<[string, string[]][]>([]));
  for (const [, fields] of found) {
    const written = fields[fields.indexOf('event') + 1] ?? '';
    const text = secrets.isOutdated(written) ? secrets.openSigned(EVENT_CONTEXT, written) : undefined;
    if (text !== undefined) await publishEvent(client, [key], [keepMs, secrets.sign(EVENT_CONTEXT, text)]);
  }
}
