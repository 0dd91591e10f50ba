import { z } from 'zod';
import type { SessionConfig } from '../config/config.js';
import { type SweepCounts, sweep } from '../endings/sweep.js';
import { keyOf } from '../formats/formats.js';
import { parseJson } from '../redis/replies.js';
import { countKeys, type ScanPosition } from '../redis/scan.js';
import { askYes, isAtTerminal } from './ask.js';
import { type Done, describeWork, type EndOptions, nameOfTenant, names, type Reach, type Swept, showProgress } from './end-report.js';
import { print } from './print.js';
import type { Room } from './room.js';

const counted = z.int().min(0);
const resumeSchema = z.strictObject({
  entry: z.string(),
  until: z.number(),
  done: z.array(z.string()),
  runId: z.string(),
  cursor: z.string().regex(/^\d+$/),
  /** What was found before. */
  counts: z.strictObject({
    keys: counted,
    found: counted,
    deleted: counted,
    newer: counted,
    busy: counted,
    otherTenants: z.record(z.string(), counted),
  }),
});

/** Where a sweep was interrupted, and what it had found. */
export type Resume = z.output<typeof resumeSchema>;

/** The entries whose records are looked through; undefined: none are. */
export async function wantsSweep(room: Room, { timed, untimed }: Reach, options: EndOptions): Promise<readonly SessionConfig[] | undefined> {
  const { sessions } = room.config;
  const swept = sessions.filter(({ http, principal }) => principal && !http);
  if (options.sweep || options.resume !== undefined) return swept.length > 0 ? swept : undefined;
  if (untimed.length === 0 || options.json || options.yes || options.dryRun || !isAtTerminal()) return undefined;
  const keys = await keysOf(room, untimed).catch(() => undefined);
  const also = timed.length > 0 ? ` (not ${timed.join(', ')}: done)` : '';
  const question = `Sessions of ${names(untimed)}${also} go on where no tokens were made from them. Look for them${keys === undefined ? '' : ` among ${describeWork(keys, options)}`}?`;
  return (await askYes(question)) ? untimed : undefined;
}

async function keysOf({ connections }: Room, sessions: readonly SessionConfig[]): Promise<number> {
  // Each entry is looked through by itself, also where two are in one Redis.
  const counts = await Promise.all(sessions.map(async (session) => await countKeys(connections.connectionFor(session))));
  return counts.reduce((sum, one) => sum + one, 0);
}

/** Looks through the records of these entries, until it is through or interrupted; never rejects for what Redis does. */
export async function sweepAll(
  room: Room,
  wanted: readonly SessionConfig[],
  { endedAt }: Done,
  known: Map<string, string[]>,
  options: EndOptions,
  resume: Resume | undefined,
): Promise<Swept> {
  const { config, lifecycle, connections, clock, audit } = room;
  const { subject, tenant, yes = false, json = false, exceptSid, dryRun = false, perSecond, why } = options;
  const before = resume?.counts;
  const counts: SweepCounts = before
    ? { ...before, otherTenants: new Map(Object.entries(before.otherTenants)) }
    : { keys: 0, found: 0, deleted: 0, newer: 0, otherTenants: new Map(), busy: 0 };
  let total = 0;
  const interrupted = new AbortController();
  const interrupt = () => interrupted.abort();
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  const answers = new Map<string, boolean>();
  const isMapped = config.sessions.some(({ principal }) => principal?.tenant !== undefined);
  let position: { readonly entry: string; readonly at: ScanPosition } | undefined;
  const after = (problem?: string): Swept => {
    const whole = problem === undefined && position === undefined;
    const { otherTenants, ...numbers } = counts;
    const at = position && {
      entry: position.entry,
      until: endedAt,
      ...position.at,
      counts: { ...numbers, otherTenants: Object.fromEntries(otherTenants) },
    };
    return {
      ...counts,
      total,
      isWhole: whole,
      ...(at ? { resume: Buffer.from(JSON.stringify(at)).toString('base64url') } : {}),
      ...(problem === undefined ? {} : { problem }),
    };
  };

  /** In which tenants it is meant: the one that was named; else those that were named to the operator, or are now. */
  async function isMeantIn(name = '', authTimeMs?: number): Promise<boolean> {
    if (tenant !== undefined) return name === tenant;
    // It has ended already, by its time.
    if (authTimeMs !== undefined) return true;
    if (!isMapped || yes || known.has(name)) return true;
    const answer =
      answers.get(name) ??
      (isAtTerminal() && !json && !dryRun && (await askYes(`There are sessions in tenant ${nameOfTenant(name)}. End them too?`)));
    answers.set(name, answer);
    return answer;
  }

  let progress: ReturnType<typeof showProgress> = () => undefined;
  try {
    total = await keysOf(room, wanted);
    if (!json) {
      progress = showProgress(total);
      print.line(`Looking through the records of ${names(wanted)}: ${describeWork(total, options)}. Ctrl-C interrupts it.`);
    }
    let from = resume;
    for (const session of wanted) {
      if (from && from.entry !== session.name) continue;
      const entry = lifecycle.entries.find(({ name }) => name === session.name);
      if (!entry) continue;
      const target = { entry, connection: connections.connectionFor(session), keys: keyOf(session), reservedPrefix: config.redis.keyPrefix };
      const request = { subject, until: endedAt, exceptSid, isMeant: isMeantIn, dryRun, perSecond, from, signal: interrupted.signal, progress };
      position = { entry: session.name, at: from ?? { done: [], runId: '', cursor: '0' } };
      const isThrough = await sweep({ ledger: lifecycle.ledger, logout: lifecycle.logout, clock }, target, request, counts, (at) => {
        position = { entry: session.name, at };
      });
      if (!isThrough) return after('interrupted');
      from = undefined;
      position = undefined;
    }
    if (from) return after(`there is no entry ${from.entry} whose records can be looked through`);
    return after();
  } catch (error) {
    const entry = wanted.find(({ name }) => name === position?.entry) ?? wanted[0];
    return after(describeRefusal(error, entry && connections.connectionFor(entry).problem()));
  } finally {
    progress(undefined);
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
    if (!dryRun) audit('person.ended', { why, records: counts.deleted });
  }
}

/** Of what Redis said only its first word is told: the rest may quote a key. */
function describeRefusal(error: unknown, away: string | undefined): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (!(cause instanceof Error)) return 'it failed';
  if (/NOPERM|can't run this command/.test(cause.message))
    return 'Redis refuses it (NOPERM): for a sweep the user of the records needs +scan +dbsize +info +eval +evalsha +del';
  return cause.name === 'ReplyError' ? `Redis refuses it (${cause.message.split(' ')[0]})` : `Redis does not answer (${away ?? cause.message})`;
}

/** @throws {Error} in words for an operator. */
export function readResume(text: string): Resume {
  const found = resumeSchema.safeParse(parseJson(Buffer.from(text, 'base64url').toString()));
  if (!found.success) throw new Error('--resume: this is not what an interrupted sweep printed');
  return found.data;
}
