import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { SessionConfig } from '../config/config.js';
import { countKeys, type ScanPosition, scanPages } from '../redis/scan.js';
import { keyOf } from '../sessions/formats.js';
import { readAs } from '../sessions/record.js';
import { type SweepCounts, sweep } from '../sessions/sweep.js';
import { askYes, isAtTerminal } from './ask.js';
import {
  createProgress,
  type Done,
  describeDone,
  describeLeft,
  describeSwept,
  describeWork,
  type EndOptions,
  FAILED,
  nameOfTenant,
  names,
  type Reach,
  type Swept,
  statusOf,
  toJson,
} from './end-report.js';
import { print } from './print.js';
import { changeInRoom, type Room } from './room.js';
import { count } from './words.js';

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

/** `crossfade end`: ends everything of a person, and says what was ended and what was not. Gives the exit status. */
export async function end(options: EndOptions): Promise<number> {
  const resume = options.resume === undefined ? undefined : readResume(options.resume);
  return await changeInRoom(options, async (room) => {
    const tenants = await tenantsOf(room, options);
    if (!resume && !options.dryRun && !(await isMeant(tenants, options))) return FAILED;
    const done = resume || options.dryRun ? await look(room, tenants, options, resume?.until) : await endNow(room, tenants, options);
    // What is ended at once does not wait for it.
    const reach = await reachOf(room, options);
    if (!resume && !options.json) for (const line of describeDone(done, reach, options)) print.line(line);
    if (!resume && !options.dryRun)
      room.did(`ended at once: ${count(done.sessions, 'session')} that tokens were made from, and what was made from them.`);
    const wanted = await wantsSweep(room, reach, options);
    const swept = wanted ? await sweepAll(room, wanted, done, tenants, options, resume) : undefined;
    if (options.json) print.json(toJson(done, reach, swept, options));
    else {
      if (swept) for (const line of describeSwept(swept, options)) print.line(line);
      for (const line of describeLeft(done, reach, swept, options)) print.line(line);
    }
    return statusOf(done, reach, swept, options);
  });
}

async function reachOf(room: Room, { tenant }: EndOptions): Promise<Reach> {
  const { sessions } = room.config;
  const beyond = sessions.filter(({ http, principal }) => !principal || (http && principal.authTime === undefined));
  const own = sessions.filter((session) => !beyond.includes(session));
  const timed: SessionConfig[] = [];
  const unsure: string[] = [];
  for (const session of own) {
    // What holds for a tenant alone stands on no record of the instances: its sessions are found one by one.
    if (tenant !== undefined || session.principal?.authTime === undefined) continue;
    const untimed = session.http ? 'none' : await lookForUntimed(room, session);
    if (untimed !== 'some') timed.push(session);
    if (untimed === 'unknown') unsure.push(session.name);
  }
  const rest = own.filter((session) => !timed.includes(session));
  return {
    timed: timed.map(({ name }) => name),
    unsure,
    untimed: rest.filter(({ http }) => !http),
    beyond: [...beyond, ...rest.filter(({ http }) => http)].map(({ name }) => name),
  };
}

/** So many pages of keys are looked at, and as many sessions tell what the others say. */
const MAX_PAGES = 20;
const PAGE = 250;
const ENOUGH = 1000;

/** Whether some of an entry's logins have no time, though the configuration says where it is: half of an app's code may note it. */
async function lookForUntimed({ config, connections, lifecycle, clock }: Room, session: SessionConfig): Promise<'none' | 'some' | 'unknown'> {
  const entry = lifecycle.entries.find(({ name }) => name === session.name);
  if (!entry) return 'unknown';
  const type = entry.format.storage === 'hash' ? 'hash' : 'string';
  let [pages, seen] = [0, 0];
  try {
    for await (const { keys } of scanPages(connections.of(session), keyOf(session), { type, count: PAGE })) {
      const own = keys.filter((key) => !key.startsWith(config.redis.keyPrefix));
      const readings = await Promise.all(own.map(async (key) => await readAs(entry, { key, sid: '' }, await entry.store.read(key), clock)));
      const sessions = readings.flatMap((reading) => (reading.kind === 'session' ? [reading.session] : []));
      if (sessions.some(({ identity }) => identity.authTimeMs === undefined)) return 'some';
      pages += 1;
      seen += sessions.length;
      if (seen >= ENOUGH) return 'none';
      if (pages >= MAX_PAGES) return 'unknown';
    }
  } catch {
    // This user may not look, or Redis is away.
    return 'unknown';
  }
  return 'none';
}

/** Stands for sessions of which nothing says any more in which tenant they were: no tenant has this name. */
const UNKNOWN_TENANT = '\0';

/** The sessions that tokens were made from, by tenant; '' stands for none. */
async function tenantsOf({ config, lifecycle }: Room, { subject, tenant }: EndOptions): Promise<Map<string, string[]>> {
  const isMapped = config.sessions.some(({ principal }) => principal === undefined || principal.tenant !== undefined);
  if (tenant !== undefined && !isMapped) throw new Error('--tenant: no entry of sessions maps a tenant');
  const found = new Map<string, string[]>();
  for (const sid of await lifecycle.persons.sessionsOf(subject)) {
    const owner = (await lifecycle.ledger.kept(sid)) ?? (await lifecycle.families.ownerOf(sid)) ?? (await lifecycle.ledger.marks(sid)).ended;
    const name = owner?.subject === subject ? (owner.tenant ?? '') : UNKNOWN_TENANT;
    found.set(name, [...(found.get(name) ?? []), sid]);
  }
  return found;
}

function tenantNames(tenants: ReadonlyMap<string, unknown>): string[] {
  return [...tenants.keys()].filter((name) => name !== UNKNOWN_TENANT);
}

/** Sessions that `--tenant` passes over, since nothing says where they were. */
function unplacedOf(tenants: ReadonlyMap<string, readonly string[]>, tenant: string | undefined): number {
  return tenant === undefined ? 0 : (tenants.get(UNKNOWN_TENANT)?.length ?? 0);
}

/** More than one tenant may be more than one person. */
async function isMeant(tenants: Map<string, string[]>, { tenant, yes = false }: EndOptions): Promise<boolean> {
  const names = tenantNames(tenants).map(nameOfTenant);
  if (tenant !== undefined || yes || names.length < 2) return true;
  const told = `This name has sessions in ${count(names.length, 'tenant')}: ${names.join(', ')}.`;
  if (!isAtTerminal()) throw new Error(`${told} Nothing was done: --tenant NAME for one of them, --yes for all`);
  return await askYes(`${told} End all of them?`);
}

async function endNow(room: Room, tenants: Map<string, string[]>, options: EndOptions): Promise<Done> {
  const { lifecycle, audit, nowMs } = room;
  const { subject, why, tenant, exceptSid } = options;
  const known = [...tenants.values()].flat().length;
  // A login from now on is another one.
  const endedAt = await nowMs();
  let sessions = 0;
  if (tenant === undefined) sessions = await lifecycle.persons.end(subject, { why, ...(exceptSid === undefined ? {} : { exceptSid }) });
  else {
    for (const sid of tenants.get(tenant) ?? []) {
      if (sid === exceptSid) continue;
      if (!(await lifecycle.ledger.marks(sid)).ended) sessions += 1;
      const person = { subject, tenant, roles: [], scope: [] };
      await lifecycle.logout.end(sid, 'person-ended', { person, ...(exceptSid === undefined ? {} : { except: exceptSid }) });
    }
    audit('person.ended', { why, sessions, tenant: true });
  }
  return { sessions, known, unplaced: unplacedOf(tenants, tenant), tenants: tenantNames(tenants), endedAt, ...(await confirm(room)) };
}

/** For `--dry-run` and `--resume`: nothing is ended at once. */
async function look(
  { nowMs, lifecycle, control }: Room,
  tenants: Map<string, string[]>,
  { tenant, exceptSid }: EndOptions,
  until: number | undefined,
): Promise<Done> {
  const sids = tenant === undefined ? [...tenants.values()].flat() : (tenants.get(tenant) ?? []);
  const marks = await Promise.all(sids.filter((sid) => sid !== exceptSid).map(async (sid) => await lifecycle.ledger.marks(sid)));
  const { live } = await control.fleet.read(await nowMs());
  return {
    sessions: marks.filter(({ ended }) => !ended).length,
    known: [...tenants.values()].flat().length,
    unplaced: unplacedOf(tenants, tenant),
    tenants: tenantNames(tenants),
    endedAt: until ?? (await nowMs()),
    instances: live.length,
    missing: [],
  };
}

/** An answer that was under way may have been read before the event was there; the next is not. */
const UNDER_WAY_MS = 1000;
/** How long instances have to say that they have heard. */
const CONFIRM_MS = 10_000;

/** Whether every live instance has read the event stream since. */
async function confirm({ control, lifecycle, nowMs }: Room): Promise<Pick<Done, 'instances' | 'missing'>> {
  if ((await control.fleet.read(await nowMs())).live.length === 0) return { instances: 0, missing: [] };
  await sleep(UNDER_WAY_MS);
  const since = await nowMs();
  // Wakes those that wait for the next event.
  await lifecycle.events.tell('clamps');
  for (const end = Date.now() + CONFIRM_MS; ; ) {
    const { live } = await control.fleet.read(await nowMs());
    const missing = live.filter(({ eventsReadAt = 0, clockOffMs }) => eventsReadAt - clockOffMs < since).map(({ host }) => host);
    if (missing.length === 0 || Date.now() > end) return { instances: live.length, missing };
    await sleep(200);
  }
}

/** The entries whose records are looked through; undefined: none are. */
async function wantsSweep(room: Room, { timed, untimed }: Reach, options: EndOptions): Promise<readonly SessionConfig[] | undefined> {
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
  const counts = await Promise.all(sessions.map(async (session) => await countKeys(connections.of(session))));
  return counts.reduce((sum, one) => sum + one, 0);
}

async function sweepAll(
  room: Room,
  wanted: readonly SessionConfig[],
  { endedAt }: Done,
  known: Map<string, string[]>,
  options: EndOptions,
  resume: z.output<typeof resumeSchema> | undefined,
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

  let progress: ReturnType<typeof createProgress> = () => undefined;
  try {
    total = await keysOf(room, wanted);
    if (!json) {
      progress = createProgress(total);
      print.line(`Looking through the records of ${names(wanted)}: ${describeWork(total, options)}. Ctrl-C interrupts it.`);
    }
    let from = resume;
    for (const session of wanted) {
      if (from && from.entry !== session.name) continue;
      const entry = lifecycle.entries.find(({ name }) => name === session.name);
      if (!entry) continue;
      const target = { entry, connection: connections.of(session), keys: keyOf(session), reservedPrefix: config.redis.keyPrefix };
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
    return after(describeFailure(error, entry && connections.of(entry).problem()));
  } finally {
    progress(undefined);
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
    if (!dryRun) audit('person.ended', { why, records: counts.deleted });
  }
}

/** Of what Redis said only its first word is told: the rest may quote a key. */
function describeFailure(error: unknown, away: string | undefined): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (!(cause instanceof Error)) return 'it failed';
  if (/NOPERM|can't run this command/.test(cause.message))
    return 'Redis refuses it (NOPERM): for a sweep the user of the records needs +scan +dbsize +info +eval +evalsha +del';
  return cause.name === 'ReplyError' ? `Redis refuses it (${cause.message.split(' ')[0]})` : `Redis does not answer (${away ?? cause.message})`;
}

function readResume(text: string): z.output<typeof resumeSchema> {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(text, 'base64url').toString());
  } catch {}
  const found = resumeSchema.safeParse(value);
  if (!found.success) throw new Error('--resume: this is not what an interrupted sweep printed');
  return found.data;
}
