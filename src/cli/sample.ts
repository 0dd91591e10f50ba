import { type Config, ConfigError, type ConfigProblem, type RedisTarget, type SessionConfig } from '../config/config.js';
import { unmappedSessions } from '../config/cross-checks.js';
import { loadConfig } from '../config/load.js';
import { resolveTarget } from '../config/redis-access.js';
import { fromBytes } from '../formats/bytes.js';
import type { RecordShape, StoredRecord } from '../formats/format.js';
import { keyOf, reusesIds, shapeOf } from '../formats/formats.js';
import { endOf } from '../formats/keyed-format.js';
import { type Recognised, recognise, recogniseHash } from '../formats/recognise.js';
import { createRedisRecords } from '../formats/record-store.js';
import type { RedisConnection } from '../redis/connection.js';
import { recordsProbeKey } from '../redis/probe.js';
import { type KeyPattern, scanPages } from '../redis/scan.js';
import { createPathMapping, MAX_PATHS, type Mapping, pathsBeside } from '../sessions/mapping.js';
import { print } from './print.js';
import { connectQuietly } from './room.js';

export interface SampleFlags {
  readonly sample: number;
  readonly json?: boolean;
  readonly redis: string;
  readonly cookie?: string;
  readonly keyPrefix: string;
  readonly subject: string;
  readonly tenant?: string;
  readonly roles?: string;
  readonly scope?: string;
  readonly authTime?: string;
}

/** What a sample of one entry found. Counts, configured paths and names of formats only. */
export interface SampleReport {
  readonly entry: string;
  readonly sessions: number;
  readonly mapped: number;
  readonly keysLookedAt: number;
  /** How many sessions there are of each format. */
  readonly formats: Readonly<Record<string, number>>;
  /** What looks like a session, but not of the configured format, or cannot be read, with how many. */
  readonly others: Readonly<Record<string, number>>;
  /** Why sessions do not map, with how many. */
  readonly reasons: Readonly<Record<string, number>>;
  /** For each path that leads to nothing: what stands beside it in those sessions. */
  readonly there: Readonly<Record<string, readonly string[]>>;
  /** How many of the mapped sessions have each optional member. */
  readonly members: Readonly<Record<string, number>>;
  /** What to know before tokens are made of them. */
  readonly warnings: readonly string[];
}

interface SampleTarget {
  readonly entry: string;
  readonly redis: RedisTarget;
  /** What the keys look like. */
  readonly keys: KeyPattern;
  readonly reservedPrefix: string;
  readonly paths: NonNullable<SessionConfig['principal']>;
  /** Undefined: whatever is recognised. */
  readonly only?: { readonly format: SessionConfig['format']; readonly shape: RecordShape };
}

/** `crossfade check --sample N`, with a configuration: every entry of `sessions` that is kept in Redis. */
export async function sampleFromConfig({ config: path, sample, json = false }: { config: string; sample: number; json?: boolean }): Promise<number> {
  const config = await loadConfig(path);
  const unmapped = unmappedSessions(config);
  if (unmapped.length > 0) throw new ConfigError(path, unmapped);
  const targets = config.sessions.flatMap((session) => toTarget(session, config));
  const asked = config.sessions.filter(({ http }) => http).map(({ name }) => name);
  if (targets.length === 0)
    throw new Error(
      `${asked.join(', ')}: format: http keeps no records that could be sampled. crossfade check --cookie-value-file FILE asks the app with a real cookie`,
    );
  return await sampleAll(targets, sample, json);
}

function toTarget(session: SessionConfig, config: Config): SampleTarget[] {
  const { name, format, principal, redis = config.redis } = session;
  if (!principal || format === 'http') return [];
  // Unsigned: what the library marked as its own is a session, everything else in the database is not.
  const shape = shapeOf({ ...session, signedBy: 'none' });
  return [{ entry: name, redis, keys: keyOf(session), reservedPrefix: config.redis.keyPrefix, paths: principal, only: { format, shape } }];
}

/** `crossfade check --redis URL --subject user.id`: before there is a configuration. */
export async function sampleFromFlags(flags: SampleFlags): Promise<number> {
  const problems: ConfigProblem[] = [];
  const redis = resolveTarget({ url: flags.redis }, '--redis', (file) => file, problems);
  const [problem] = problems;
  if (problem) throw new Error(`--redis: ${problem.message}`);
  const { subject, tenant, roles, scope, authTime, keyPrefix } = flags;
  const paths = {
    subject,
    ...(tenant === undefined ? {} : { tenant }),
    ...(roles === undefined ? {} : { roles }),
    ...(scope === undefined ? {} : { scope }),
    ...(authTime === undefined ? {} : { authTime }),
  };
  const keys = { before: keyPrefix, behind: '' };
  const target = { entry: flags.cookie ?? 'redis', redis, keys, reservedPrefix: 'crossfade:', paths };
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

class Tally {
  readonly formats: Record<string, number> = {};
  /** The same as the configuration calls them. */
  readonly read = new Set<SessionConfig['format']>();
  readonly others: Record<string, number> = {};
  readonly reasons: Record<string, number> = {};
  readonly there: Record<string, readonly string[]> = {};
  readonly members: Record<string, number> = {};
  sessions = 0;
  mapped = 0;
  keysLookedAt = 0;

  add(counts: Record<string, number>, name: string): void {
    counts[name] = (counts[name] ?? 0) + 1;
  }
}

async function sampleOne({ entry, redis, keys, reservedPrefix, paths, only }: SampleTarget, count: number): Promise<SampleReport> {
  const mapping = createPathMapping(paths);
  const tally = new Tally();
  const connection = connectQuietly(redis, { name: entry, commandTimeoutMs: 5000, probe: 'role', probeKey: recordsProbeKey(keys.before) });
  try {
    if (!(await connection.ready(5000))) throw new Error(`${entry}: Redis does not answer (${connection.problem() ?? 'no answer within 5 s'})`);
    // Bytes tell what every format tells, and more.
    const storages = only ? ([only.shape.storage === 'hash' ? 'hash' : 'bytes'] as const) : (['bytes', 'hash'] as const);
    for (const storage of storages) {
      const records = createRedisRecords(connection, storage);
      const seen = new Set<string>();
      for await (const key of scanKeys(connection, keys, storage === 'hash' ? 'hash' : 'string')) {
        if (tally.sessions >= count || tally.keysLookedAt >= Math.max(MIN_KEYS, count * KEYS_PER_SESSION)) break;
        // SCAN may give a key twice.
        if (seen.has(key)) continue;
        seen.add(key);
        tally.keysLookedAt += 1;
        const stored = key.startsWith(reservedPrefix) ? 'reserved' : await records.read(key);
        if (typeof stored !== 'string')
          await lookAt(key, stored, { storage, only, isOwn: keys.before !== '', subject: paths.subject }, mapping, tally);
      }
    }
  } finally {
    connection.close();
  }
  const { formats, others, sessions, mapped, keysLookedAt, reasons, there, members } = tally;
  return { entry, sessions, mapped, keysLookedAt, formats, others, reasons, there, members, warnings: warningsOf(tally) };
}

interface Looking {
  readonly storage: 'bytes' | 'hash';
  readonly only: SampleTarget['only'];
  /** Whether what stands under these keys is meant to be a session. */
  readonly isOwn: boolean;
  /** Where in the record the person is meant to be. */
  readonly subject: string;
}

async function lookAt(
  key: string,
  { text, ttlMs }: StoredRecord,
  { storage, only, isOwn, subject }: Looking,
  mapping: Mapping,
  tally: Tally,
): Promise<void> {
  const looksLike = storage === 'hash' ? recogniseHash(text) : recognise(key, text);
  const how: Recognised | undefined = only ? { name: only.format, read: only } : looksLike;
  const read = how?.read?.shape.read(how.read.shape.storage === 'text' ? fromBytes(text) : text);
  if (!how?.read || !read) {
    if (looksLike && !looksLike.isVague) tally.add(tally.others, looksLike.name);
    else if (only && isOwn) tally.add(tally.others, `no ${only.format}`);
    return;
  }
  const parsed = endOf(read, ttlMs, Date.now());
  const outcome = 'rejected' in parsed ? { rejected: parsed.rejected, why: parsed.rejected } : await mapping(parsed.record);
  if (how.isVague && 'rejected' in outcome) return;
  tally.sessions += 1;
  tally.add(tally.formats, how.name);
  tally.read.add(how.read.format);
  if ('rejected' in outcome) {
    tally.add(tally.reasons, outcome.why);
    const beside = 'rejected' in parsed ? undefined : pathsBeside(parsed.record, subject);
    if (beside && beside.length > 0) tally.there[outcome.why] = [...new Set([...(tally.there[outcome.why] ?? []), ...beside])].slice(0, MAX_PATHS);
    return;
  }
  tally.mapped += 1;
  const { tenant, roles, scope, authTime } = outcome.identity;
  for (const [name, given] of Object.entries({ tenant, roles: roles[0], scope: scope[0], authTime })) {
    if (given !== undefined) tally.add(tally.members, name);
  }
}

function warningsOf({ read, members, mapped }: Tally): string[] {
  const reusing = [...read].filter(reusesIds);
  if (reusing.length === 0 || (members['authTime'] ?? 0) >= mapped) return [];
  return [
    `${reusing.join(' and ')}: an id may serve the next login as well; without principal.authTime a login within tokens.resurrectionSeconds after a logout is taken for a late write. Let the app note the time of the login in the session.`,
  ];
}

async function* scanKeys(connection: RedisConnection, keys: KeyPattern, type: 'hash' | 'string'): AsyncGenerator<string> {
  for await (const page of scanPages(connection, keys, { type, count: 500 })) yield* page.keys;
}

function anonymous(reasons: SampleReport['reasons']): number {
  return Object.entries(reasons).reduce((sum, [reason, count]) => (reason.startsWith('no ') || reason === 'expired' ? sum + count : sum), 0);
}

function printReport({ entry, sessions, mapped, keysLookedAt, formats, others, reasons, there, members, warnings }: SampleReport): void {
  const n = (count: number) => count.toLocaleString('en-US');
  print.line(
    `${entry}: ${n(sessions)} ${sessions === 1 ? 'session' : 'sessions'} among ${n(keysLookedAt)} ${keysLookedAt === 1 ? 'key' : 'keys'}; nothing was written.`,
  );
  const list = (counts: Readonly<Record<string, number>>) =>
    Object.entries(counts)
      .map(([name, count]) => `${n(count)} ${name}`)
      .join(', ');
  if (sessions > 0) print.line(`  ${list(formats)}.`);
  if (Object.keys(others).length > 0) print.line(`  Beside them, or instead: ${list(others)} (docs/formats.md says what to do about each).`);
  if (sessions === 0) {
    print.line('  No session record was found: is it this Redis, this database, this key prefix, this format?');
    return;
  }
  const why = Object.entries(reasons).map(
    ([reason, count]) => `${n(count)} ${phrase(reason, count)}${there[reason] ? ` (there is ${there[reason].join(', ')})` : ''}`,
  );
  print.line(`  ${n(mapped)} of ${n(sessions)} map${why.length > 0 ? `; ${why.join('; ')}` : ''}.`);
  for (const [name, count] of Object.entries(members))
    print.line(`  ${n(count)} of ${n(mapped)} have ${name === 'authTime' ? 'an authTime' : name}.`);
  for (const warning of warnings) print.line(`  Warning: ${warning}`);
}

/** "3 have no user.id", "1 has no user.id", "2 where user.roles is not a list of strings or whole numbers". */
function phrase(reason: string, count: number): string {
  if (reason === 'expired') return count === 1 ? 'is expired' : 'are expired';
  if (reason.startsWith('no ')) return `${count === 1 ? 'has' : 'have'} ${reason}`;
  return `where ${reason}`;
}
