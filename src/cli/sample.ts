import { Cluster, type Redis } from 'ioredis';
import { ConfigError, type RedisTarget, type SessionConfig } from '../config/config.js';
import { unmappedSessions } from '../config/cross-checks.js';
import { loadConfig } from '../config/load.js';
import { Secret } from '../config/secret.js';
import { connectRedis, type RedisConnection } from '../redis/connection.js';
import { createKoaSessionFormat } from '../sessions/koa-session.js';
import { createPathMapping } from '../sessions/mapping.js';
import { createLog } from '../telemetry/log.js';
import { createMetrics } from '../telemetry/metrics.js';
import { print } from './print.js';

export interface SampleFlags {
  readonly sample: number;
  readonly json?: boolean;
  readonly redis: string;
  readonly cookie: string;
  readonly keyPrefix: string;
  readonly subject: string;
  readonly tenant?: string;
  readonly roles?: string;
  readonly scope?: string;
  readonly authTime?: string;
}

/** What a sample of one entry found. Counts and configured paths only. */
export interface SampleReport {
  readonly entry: string;
  readonly sessions: number;
  readonly mapped: number;
  readonly keysLookedAt: number;
  /** Why sessions do not map, with how many. */
  readonly reasons: Readonly<Record<string, number>>;
  /** How many of the mapped sessions have each optional member. */
  readonly members: Readonly<Record<string, number>>;
}

interface SampleTarget {
  readonly entry: string;
  readonly redis: RedisTarget;
  readonly keyPrefix: string;
  readonly reservedPrefix: string;
  readonly paths: NonNullable<SessionConfig['principal']>;
}

/** `crossfade check --sample N`, with a configuration: every entry of `sessions`. */
export async function sampleFromConfig({ config: path, sample, json = false }: { config: string; sample: number; json?: boolean }): Promise<number> {
  const config = await loadConfig(path);
  const unmapped = unmappedSessions(config);
  if (unmapped.length > 0) throw new ConfigError(path, unmapped);
  const targets = config.sessions.flatMap((session): SampleTarget[] =>
    session.principal
      ? [
          {
            entry: session.name,
            redis: session.redis ?? config.redis,
            keyPrefix: session.keyPrefix,
            reservedPrefix: config.redis.keyPrefix,
            paths: session.principal,
          },
        ]
      : [],
  );
  return await sampleAll(targets, sample, json);
}

/** `crossfade check --redis URL --subject user.id`: before there is a configuration. */
export async function sampleFromFlags(flags: SampleFlags): Promise<number> {
  if (!/^rediss?:\/\//.test(flags.redis)) throw new Error('--redis: must start with redis:// or rediss://');
  const { subject, tenant, roles, scope, authTime } = flags;
  const paths = {
    subject,
    ...(tenant === undefined ? {} : { tenant }),
    ...(roles === undefined ? {} : { roles }),
    ...(scope === undefined ? {} : { scope }),
    ...(authTime === undefined ? {} : { authTime }),
  };
  const target = { entry: flags.cookie, redis: { url: new Secret(flags.redis) }, keyPrefix: flags.keyPrefix, reservedPrefix: 'crossfade:', paths };
  return await sampleAll([target], flags.sample, flags.json ?? false);
}

async function sampleAll(targets: readonly SampleTarget[], count: number, json: boolean): Promise<number> {
  const reports: SampleReport[] = [];
  for (const target of targets) reports.push(await sampleOne(target, count));
  if (json) print.json({ reports });
  else for (const report of reports) printReport(report);
  const clean = reports.every(({ sessions, mapped, reasons }) => mapped > 0 && sessions - mapped === anonymous(reasons));
  return clean ? 0 : 1;
}

/** How many keys are looked at for each session that is wanted, at most: a sample is not a scan of the whole database. */
const KEYS_PER_SESSION = 100;
const MIN_KEYS = 100_000;

async function sampleOne({ entry, redis, keyPrefix, reservedPrefix, paths }: SampleTarget, count: number): Promise<SampleReport> {
  // Unsigned: what koa-session marked as its own is a session, everything else in the database is not.
  const format = createKoaSessionFormat({ cookie: entry, keyPrefix, signed: false, secrets: [], reservedPrefix });
  const mapping = createPathMapping(paths);
  const reasons: Record<string, number> = {};
  const members: Record<string, number> = {};
  let sessions = 0;
  let mapped = 0;
  let keysLookedAt = 0;

  const connection = connectRedis(redis, {
    name: entry,
    commandTimeoutMs: 5000,
    probeKey: 'crossfade-readiness',
    log: createLog({ level: 'silent' }),
    metrics: createMetrics(),
  });
  try {
    if (!(await connection.ready(5000))) throw new Error('Redis does not answer');
    for await (const key of scanKeys(connection, keyPrefix)) {
      if (sessions >= count || keysLookedAt >= Math.max(MIN_KEYS, count * KEYS_PER_SESSION)) break;
      keysLookedAt += 1;
      if (key.startsWith(reservedPrefix)) continue;
      const replies = await connection.client.pipeline().get(key).pttl(key).exec();
      const text = replies?.[0]?.[1];
      if (typeof text !== 'string') continue;
      const parsed = format.parse({ text, ttlMs: Number(replies?.[1]?.[1]) }, Date.now());
      if ('rejected' in parsed) {
        if (parsed.rejected === 'expired') sessions += tally(reasons, 'expired');
        continue;
      }
      sessions += 1;
      const outcome = await mapping(parsed.record);
      if ('rejected' in outcome) tally(reasons, outcome.why);
      else {
        mapped += 1;
        const { tenant, roles, scope, authTime } = outcome.identity;
        for (const [name, given] of Object.entries({ tenant, roles: roles[0], scope: scope[0], authTime })) {
          if (given !== undefined) tally(members, name);
        }
      }
    }
  } finally {
    connection.close();
  }
  return { entry, sessions, mapped, keysLookedAt, reasons, members };
}

async function* scanKeys({ client }: RedisConnection, keyPrefix: string): AsyncGenerator<string> {
  const match = `${keyPrefix.replaceAll(/[\\*?[\]]/g, String.raw`\$&`)}*`;
  const nodes: readonly Redis[] = client instanceof Cluster ? client.nodes('master') : [client];
  for (const node of nodes) {
    let cursor = '0';
    do {
      const [next, keys] = await node.scan(cursor, 'MATCH', match, 'COUNT', 500, 'TYPE', 'string');
      cursor = next;
      yield* keys;
    } while (cursor !== '0');
  }
}

function tally(counts: Record<string, number>, name: string): 1 {
  counts[name] = (counts[name] ?? 0) + 1;
  return 1;
}

function anonymous(reasons: SampleReport['reasons']): number {
  return Object.entries(reasons).reduce((sum, [reason, count]) => (reason.startsWith('no ') || reason === 'expired' ? sum + count : sum), 0);
}

function printReport({ entry, sessions, mapped, keysLookedAt, reasons, members }: SampleReport): void {
  const n = (count: number) => count.toLocaleString('en-US');
  print.line(
    `${entry}: ${n(sessions)} ${sessions === 1 ? 'session' : 'sessions'} among ${n(keysLookedAt)} ${keysLookedAt === 1 ? 'key' : 'keys'}; nothing was written.`,
  );
  if (sessions === 0) {
    print.line('  No koa-session record was found: is it this Redis, this database, this --key-prefix?');
    return;
  }
  const why = Object.entries(reasons).map(([reason, count]) => `${n(count)} ${phrase(reason, count)}`);
  print.line(`  ${n(mapped)} of ${n(sessions)} map${why.length > 0 ? `; ${why.join('; ')}` : ''}.`);
  for (const [name, count] of Object.entries(members))
    print.line(`  ${n(count)} of ${n(mapped)} have ${name === 'authTime' ? 'an authTime' : name}.`);
}

/** "3 have no user.id", "1 has no user.id", "2 where user.roles is not a list of strings". */
function phrase(reason: string, count: number): string {
  if (reason === 'expired') return count === 1 ? 'is expired' : 'are expired';
  if (reason.startsWith('no ')) return `${count === 1 ? 'has' : 'have'} ${reason}`;
  return `where ${reason}`;
}
