import { setTimeout as sleep } from 'node:timers/promises';
import { namesOf } from '../fleet/announcement.js';
import { askYes, isAtTerminal } from './ask.js';
import { reachOf } from './end-reach.js';
import { type Done, describeDone, describeLeft, describeSwept, type EndOptions, exitStatusOf, FAILED, nameOfTenant, toJson } from './end-report.js';
import { readResume, sweepAll, wantsSweep } from './end-sweep.js';
import { print } from './print.js';
import { changeInRoom, type Room } from './room.js';
import { count } from './words.js';

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
    return exitStatusOf(done, reach, swept, options);
  });
}

/** Stands for sessions of which nothing says any more in which tenant they were: no tenant has this name. */
const UNKNOWN_TENANT = '\0';

/** The sessions that tokens were made from, by tenant; '' stands for none. */
async function tenantsOf({ config, lifecycle }: Room, { subject, tenant }: EndOptions): Promise<Map<string, string[]>> {
  const isMapped = config.sessions.some(({ principal }) => principal === undefined || principal.tenant !== undefined);
  if (tenant !== undefined && !isMapped) throw new Error('--tenant: no entry of sessions maps a tenant');
  /** The tombstone of a session does not always say in which tenant it was. */
  const endedOwner = async (sid: string) => {
    const { ended } = await lifecycle.ledger.marks(sid);
    return ended?.tenant === undefined ? undefined : ended;
  };
  const found = new Map<string, string[]>();
  for (const sid of await lifecycle.persons.sessionsOf(subject)) {
    const owner = (await lifecycle.ledger.kept(sid)) ?? (await lifecycle.families.ownerOf(sid)) ?? (await endedOwner(sid));
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
async function isMeant(tenants: Map<string, string[]>, { tenant, yes = false, json = false }: EndOptions): Promise<boolean> {
  const names = tenantNames(tenants).map(nameOfTenant);
  if (tenant !== undefined || yes || names.length < 2) return true;
  const told = `This name has sessions in ${count(names.length, 'tenant')}: ${names.join(', ')}.`;
  if (json || !isAtTerminal()) throw new Error(`${told} Nothing was done: --tenant NAME for one of them, --yes for all`);
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
      const person = { subject, tenant };
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
  await lifecycle.publisher.tell('clamps');
  for (const end = Date.now() + CONFIRM_MS; ; ) {
    const { live } = await control.fleet.read(await nowMs());
    const missing = live.filter(({ eventsReadAt = 0, clockOffMs }) => eventsReadAt - clockOffMs < since).map(namesOf(live));
    if (missing.length === 0 || Date.now() > end) return { instances: live.length, missing };
    await sleep(200);
  }
}
