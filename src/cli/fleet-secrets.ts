import { keepEventsMs } from '../compose/lifecycle.js';
import { writeEventsAnew, writePersonsAnew, writeSessionsAnew } from '../endings/rewrite-under-secret.js';
import { type Announcement, namesOf } from '../fleet/announcement.js';
import type { DeniedFleetSecret } from '../fleet/denied-secrets.js';
import { countFamilies, countWritten, type WrittenCounts } from '../fleet/written-under.js';
import { loadKeyDirectory } from '../keys/load.js';
import { grantContext } from '../tokens/grant.js';
import { askYes, isAtTerminal } from './ask.js';
import { print } from './print.js';
import { changeInRoom, type Room } from './room.js';
import { count, table } from './words.js';

export interface FleetSecretOptions {
  readonly config: string;
  readonly json?: boolean;
}

export interface FleetSecretStatus {
  readonly name: string;
  readonly state: 'writes' | 'opens' | 'finished' | 'revoked';
  /** Names of live instances that do not open it; empty for one that is out of use. */
  readonly missing: readonly string[];
  /** What stands in Redis under it. */
  readonly written: WrittenCounts;
}

/** Every fleet secret that this file, the fleet or Redis knows of. `ignored`: live instances that do not count. Rejects with what ioredis rejects with. */
export async function readFleetSecrets(room: Room, ignored: readonly Announcement[] = []): Promise<FleetSecretStatus[]> {
  const { control, connections } = room;
  const counts = await countWritten(connections.own, control.prefix);
  const firstName = firstNameIn(control);
  const underNames = [...counts.keys()].map((prefix) => (prefix === '' ? firstName : prefix));
  const standings = await readStandings(room, ignored, underNames);
  return standings.map((one) => ({ ...one, written: counts.get(one.name === firstName ? '' : one.name) ?? NOTHING }));
}

type SecretStanding = Omit<FleetSecretStatus, 'written'>;

/** The same without looking at what stands in Redis: as the fleet is in this moment. `others`: names to tell of beside those that it knows. */
async function readStandings({ control, nowMs }: Room, ignored: readonly Announcement[], others: readonly string[] = []): Promise<SecretStanding[]> {
  const { secrets, deniedSecrets } = control;
  const reading = await control.fleet.read(await nowMs());
  const live = reading.live.filter(({ instance }) => !ignored.some((one) => one.instance === instance));
  const firstName = firstNameIn(control);
  const denied = new Map(deniedSecrets.all.map((one) => [one.name, one]));
  const names = [...secrets.opens, ...live.flatMap(({ opens = [] }) => opens), ...denied.keys(), ...others];
  const writing = new Set(live.length > 0 ? live.map(({ writes = firstName }) => writes) : [secrets.writes]);
  return [...new Set(names)].map((name) => ({
    name,
    state: denied.get(name)?.how ?? (writing.has(name) ? 'writes' : 'opens'),
    missing: denied.has(name) ? [] : live.filter((one) => !opensOf(one, firstName).includes(name)).map(namesOf(live)),
  }));
}

function firstNameIn({ secrets, deniedSecrets }: Room['control']): string {
  return secrets.first ?? deniedSecrets.all.find(({ isFirst }) => isFirst)?.name ?? FIRST;
}

/** Stands for the first secret of the fleet where nothing here says its name. */
const FIRST = 'the first';
const NOTHING: WrittenCounts = { values: 0, ends: 0, families: 0, sessions: 0 };

function opensOf({ opens }: Announcement, firstName: string): readonly string[] {
  return opens ?? [firstName];
}

export function fleetSecretLines(all: readonly FleetSecretStatus[]): string[] {
  return table(all.map((one) => [one.name, describe(one), describeCounts(one.written)]));
}

function describe({ state, missing }: FleetSecretStatus): string {
  switch (state) {
    case 'finished':
      return 'finished; opens nothing';
    case 'revoked':
      return 'revoked; opens nothing';
    default:
      return `${state}${missing.length === 0 ? '' : `; not on ${missing.join(', ')}`}`;
  }
}

function describeCounts({ values, ends, families, sessions }: WrittenCounts): string {
  const counts = [count(values, 'value'), count(ends, 'end'), count(families, 'family', 'families'), count(sessions, 'session')];
  return values + ends + families + sessions === 0 ? 'nothing is under it' : `under it: ${counts.join(', ')}`;
}

/** `crossfade secrets finish`: takes a secret out of use that nothing is left under. Run again, it says whether every instance has confirmed it. */
export async function finishSecret(name: string, { why = 'rotated', ...options }: FleetSecretOptions & { readonly why?: string }): Promise<void> {
  await changeInRoom(options, async (room) => {
    const before = await readFleetSecrets(room);
    const { state } = find(before, name);
    if (state === 'revoked') throw new Error(`${name} is revoked already`);
    if (state !== 'finished') await finish(room, before, name, why);
    await say(room, name, options.json ?? false, {});
  });
}

async function finish(room: Room, before: readonly FleetSecretStatus[], name: string, why: string): Promise<void> {
  refuseWhileNeeded(before, name);
  refuseNewer(room, name);
  await writeAgain(room);
  const { written } = find(await readFleetSecrets(room), name);
  if (written.values + written.ends + written.families + written.sessions > 0)
    throw new Error(
      `${name} is still needed (${describeCounts(written)}): nothing was done. Families and sessions leave it with their next refresh, or end; crossfade secrets list says what is left`,
    );
  await deny(room, name, 'finished', why);
}

export interface RevokeSecretOptions {
  readonly why: string;
  readonly yes?: boolean;
  /** Also where live instances announce themselves under this secret: they are left out. */
  readonly force?: boolean;
}

/** `crossfade secrets revoke`: for a secret that has leaked. What was written under it opens nowhere any more. */
export async function revokeSecret(
  name: string,
  { why, yes = false, force = false, json = false, config }: FleetSecretOptions & RevokeSecretOptions,
): Promise<void> {
  await changeInRoom({ config, json }, async (room) => {
    const { control, connections, did } = room;
    const { secrets, prefix } = control;
    const { live, left } = await readApart(room, name);
    if (left.length > 0 && !force) throw new Error(describeLeft(left, name));
    const all = await readFleetSecrets(room, left);
    const wasRevoked = find(all, name).state === 'revoked';
    if (!wasRevoked) {
      const [newest = name] = secrets.inFile;
      if (force && newest !== name) secrets.writeWith(newest);
      else refuseWhileNeeded(all, name);
      refuseNewer(room, name);
    }
    const families = wasRevoked ? 0 : await countFamilies({ connection: connections.own, prefix, secrets, contextOf: grantContext }, name);
    if (!wasRevoked) {
      const ending = `${count(families, 'family', 'families')} of refresh tokens that stand under ${name}, or passed through it, will end: the people exchange their session again, or log in.`;
      if (!json) print.line(ending);
      if (!json && !yes && isAtTerminal() && !(await askYes('Revoke it?'))) {
        print.line('Nothing was done.');
        return;
      }
      await writeAgain(room);
      await forgetLearned(room, live);
      if (live.length === 0) await writeEventsAnew({ connection: connections.own, prefix, secrets, keepMs: keepEventsMs(room.config) });
      await deny(room, name, 'revoked', why, left);
      did(`${name} was revoked.`);
    }
    const missing = await confirm(room, name);
    await forgetLearned(room, live);
    await say(room, name, json, { families, missing });
  });
}

/** An instance moves once every one has a newer secret: those that have one wait for those that have none. */
function describeLeft(left: readonly Announcement[], name: string): string {
  const nameOf = namesOf(left);
  const without = left.filter(({ opens = [] }) => opens.every((one) => one === name));
  const what =
    without.length === 0
      ? `${left.map(nameOf).join(', ')} still write with ${name}: nothing was done. Run the same again, or stop them`
      : `${without.map(nameOf).join(', ')} have no newer secret than ${name}: nothing was done. Bring them the new file, or stop them`;
  return `${what}; --force leaves out ${left.map(nameOf).join(', ')}, where they are not yours`;
}

interface Apart {
  /** Live instances that announce themselves under another secret. */
  readonly live: readonly Announcement[];
  /** Those that announce themselves under this one. */
  readonly left: readonly Announcement[];
}

/** An instance moves with its heartbeat: those that are about to are waited for. */
async function readApart({ control, nowMs }: Room, name: string): Promise<Apart> {
  for (const end = Date.now() + MOVE_MS; ; ) {
    const { live, under } = await control.fleet.read(await nowMs());
    const left = live.filter(({ instance }) => under.get(instance) === name);
    const areMoving = left.length > 0 && left.every(({ opens = [] }) => opens.some((one) => one !== name));
    if (!areMoving || Date.now() > end) return { live: live.filter((one) => !left.includes(one)), left };
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

/** What decides and what has ended, under the secret that writes now: an instance may not have been allowed to look for all of it. */
async function writeAgain({ control, connections, lifecycle }: Room): Promise<void> {
  const { secrets, prefix, values } = control;
  for (const value of values) await value.writeAnew();
  await lifecycle.cookieSecrets.sync();
  const options = { connection: connections.own, prefix, secrets, goesOn: async () => true };
  await writePersonsAnew(options);
  await writeSessionsAnew(options);
}

/** What somebody who has the secret may have written: keys that no file holds, issuers, flags. The instances write theirs again. */
async function forgetLearned({ config, control, client, lifecycle }: Room, live: readonly Announcement[]): Promise<void> {
  const here = (await loadKeyDirectory(config.keys)).keys.map(({ kid }) => kid);
  const held = new Set([...here, ...live.flatMap(({ keys }) => keys.map(({ jwk }) => jwk.kid))]);
  await control.jwks.update((current) => current && { ...current, keys: current.keys.filter(({ jwk }) => held.has(jwk.kid)), policies: [] });
  await client.del(`${control.prefix}flags`);
  await lifecycle.publisher.tell('keys');
}

function find(all: readonly FleetSecretStatus[], name: string): FleetSecretStatus {
  const found = all.find((one) => one.name === name);
  if (!found) throw new Error(`there is no fleet secret ${name}: there are ${all.map((one) => one.name).join(', ')}`);
  return found;
}

/** Every live instance must write with another one. */
function refuseWhileNeeded(all: readonly SecretStanding[], name: string): void {
  if (all.find((one) => one.name === name)?.state !== 'writes') return;
  const newer = all.find((one) => one.state === 'opens' && one.missing.length > 0);
  const what = newer ? `${newer.name} is not on ${newer.missing.join(', ')}` : 'crossfade secrets add makes another one';
  throw new Error(`the fleet writes with ${name}: nothing was done. Every live instance must open a newer secret first: ${what}`);
}

/** Those before the one that writes are on their way in. */
function refuseNewer({ control: { secrets } }: Room, name: string): void {
  const { inFile, writes } = secrets;
  if (inFile.includes(name) && inFile.indexOf(name) < inFile.indexOf(writes))
    throw new Error(`${name} is newer than ${writes}, which writes: nothing was done. Take its line out of the files where it is not wanted`);
}

/** An instance may have come, or gone back to this secret, while a person thought or Redis was counted: the fleet is looked at again. */
async function deny(room: Room, name: string, how: DeniedFleetSecret['how'], why: string, ignored: readonly Announcement[] = []): Promise<void> {
  const { control, lifecycle, audit, nowMs } = room;
  const { secrets, deniedSecrets } = control;
  refuseWhileNeeded(await readStandings(room, ignored), name);
  await deniedSecrets.deny({ name, isFirst: name === secrets.first, at: await nowMs(), how, why });
  await lifecycle.publisher.tell('keys');
  audit('fleet.secret-denied', { secret: name, how, why });
}

/** How long instances have to say that they have heard, and to move to a secret that all have. */
const CONFIRM_MS = 12_000;
const MOVE_MS = 11_000;

/** Names of the live instances that open it still. */
async function confirm({ control, nowMs }: Room, name: string): Promise<string[]> {
  for (const end = Date.now() + CONFIRM_MS; ; ) {
    const { live } = await control.fleet.read(await nowMs());
    const missing = live.filter((one) => opensOf(one, control.secrets.first ?? FIRST).includes(name)).map(namesOf(live));
    if (missing.length === 0 || Date.now() > end) return missing;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function say(
  room: Room,
  name: string,
  json: boolean,
  { families, missing }: { readonly families?: number; readonly missing?: readonly string[] },
): Promise<void> {
  const left = missing ?? (await confirm(room, name));
  if (left.length > 0) process.exitCode = 1;
  if (json) print.json({ name, ...(families === undefined ? {} : { families }), missing: left });
  else if (left.length > 0) print.line(`${name} is out of use, but ${left.join(', ')} did not confirm it: see crossfade status`);
  else
    print.line(`${name} opens nothing any more, on every live instance. Take its line out of every fleetSecretFile, and leave the line pseudonyms=.`);
}
