import { loadConfig } from '../config/load.js';
import { readStatus } from '../console/overview.js';
import type { FleetStatus, KeyStatus } from '../console/status.js';
import { generateKey, writeKeyFile } from '../keys/generate.js';
import { loadKeyDirectory } from '../keys/load.js';
import { print } from './print.js';
import { changeInRoom, type Room, withRoom } from './room.js';
import { count, describeKey, short, span, table, wrap } from './words.js';

export interface KeysOptions {
  readonly config: string;
  readonly json?: boolean;
}

/** `crossfade keys generate`: a key that nobody uses yet, in the key directory or on standard output. */
export async function generate({ config: path, stdout = false }: KeysOptions & { readonly stdout?: boolean }): Promise<void> {
  const { keys } = await loadConfig(path);
  const { kid, pem } = await generateKey(keys.algorithm);
  if (stdout) process.stdout.write(pem);
  else print.line(`wrote ${await writeKeyFile(keys.directory, `key-${short(kid)}.pem`, pem)} (kid ${kid})`);
}

/** `crossfade keys list`: every key of the fleet and how far it is. */
export async function list({ config: path, json = false }: KeysOptions): Promise<void> {
  await withRoom({ config: path, json }, async (room) => {
    const status = await readStatus(room);
    if (json) print.json(status.keys);
    else for (const line of keyLines(status, room)) print.line(line);
  });
}

/** Two lines a key: which it is, and how far. */
export function keyLines({ keys, instances, at }: FleetStatus, { config }: Pick<Room, 'config'>): string[] {
  if (keys.length === 0) return ['no key: crossfade keys rotate makes one'];
  const heads = table(keys.map((key) => [short(key.kid), key.phase, key.files.join(' ') || '-']));
  return keys.flatMap((key, index) => [heads[index] ?? '', ...wrap(describeKey(key, instances.length, at, config.keys.publishSeconds), '  ')]);
}

export interface RotateOptions extends KeysOptions {
  /** From when it signs. */
  readonly at?: Date;
  /** Lets the key that waits sign, whoever does not verify it. */
  readonly force?: boolean;
  readonly why?: string;
}

/** How long `rotate` watches how far the fleet is. */
const WATCH_MS = 12_000;

/** `crossfade keys rotate`: writes the next key, and says how far the fleet is; or lets the one that waits go on. */
export async function rotate(options: RotateOptions): Promise<void> {
  if (options.why !== undefined && !options.force) throw new Error('--why is for --force');
  await changeInRoom(options, async (room) => {
    const status = await readStatus(room);
    const kid = options.force ? await force(room, status, options.why) : await writeNext(room, status, options);
    const after = await watchKey(room, kid);
    if (!after.keys.some((key) => key.kid === kid) && !options.json) print.line('No live instance has it yet: is this the key directory of one?');
    if (options.json) print.json(after.keys.find((key) => key.kid === kid) ?? { kid });
    else for (const line of keyLines(after, room)) print.line(line);
  });
}

async function writeNext({ config, did }: Room, { keys, at: nowMs }: FleetStatus, { at, json = false }: RotateOptions): Promise<string> {
  // One that is planned for later stands in nobody's way.
  const waiting = keys.find(({ hold }) => hold !== undefined && hold.why !== 'time');
  if (waiting) throw new Error(`${short(waiting.kid)} is waiting to sign already: crossfade keys list says for what`);
  // By Redis' clock, and after every other: the newest signs.
  const newest = Math.max(0, ...keys.filter(({ hold }) => hold?.why !== 'time').map(({ startsAt = 0 }) => startsAt));
  if (at && at.getTime() <= newest) throw new Error(`--at must be after ${new Date(newest).toISOString()}, from when another key signs`);
  const startsAt = new Date(Math.ceil((at?.getTime() ?? Math.max(nowMs, newest + 1)) / 1000) * 1000);
  const { kid, pem } = await generateKey(config.keys.algorithm);
  const time = startsAt.toISOString().replaceAll(/[-:]|\.\d+/g, '');
  const path = await writeKeyFile(config.keys.directory, `${time}-${short(kid)}.pem`, pem);
  did(`${path} was written, and is not to be written again: crossfade keys list says how far the fleet is.`);
  if (!json) {
    print.line(`wrote ${path}`);
    print.line('Instances with a key directory of their own need the same file; until then they verify it, and sign with the newest that they have.');
  }
  return kid;
}

async function force({ control, lifecycle, audit, nowMs }: Room, { keys }: FleetStatus, why: string | undefined): Promise<string> {
  if (why === undefined) throw new Error('--force needs --why: it is for the audit');
  const waiting = keys.find(({ hold }) => hold?.why === 'fleet');
  if (waiting?.hold?.why !== 'fleet') throw new Error('no key is waiting for an instance: crossfade keys list says what each waits for');
  const { kid, hold } = waiting;
  const now = await nowMs();
  const forced = await control.jwks.update((current) =>
    current ? { ...current, keys: current.keys.map((key) => (key.jwk.kid === kid ? { ...key, forcedAt: now } : key)) } : undefined,
  );
  if (!forced?.keys.some((key) => key.jwk.kid === kid && key.forcedAt === now))
    throw new Error('Redis has lost the keys of the fleet: run the same again');
  await lifecycle.publisher.tell('keys');
  audit('key.forced', { kid, why, without: hold.hosts.join(' ') });
  return kid;
}

/** Until every live instance verifies it, or for as long as one would wait. */
async function watchKey(room: Room, kid: string): Promise<FleetStatus> {
  for (const end = Date.now() + WATCH_MS; ; ) {
    const status = await readStatus(room);
    const key = status.keys.find((one) => one.kid === kid);
    const waits = !key || key.hold?.why === 'fleet' || (key.hold?.why === 'time' && key.hold.until < status.at + WATCH_MS);
    const settled = status.instances.length === 0 || !waits;
    if (settled || Date.now() > end) return status;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

export interface DenyOptions extends KeysOptions {
  readonly why?: string;
  readonly force?: boolean;
}

/** `crossfade keys retire`: takes a key out of use that nothing needs any more. */
export async function retire(prefix: string, options: DenyOptions): Promise<void> {
  await changeInRoom(options, async (room) => {
    const status = await readStatus(room);
    const key = findKey(status, prefix);
    const left = (key.retiringUntil ?? 0) - status.at;
    if (key.phase === 'active') throw new Error(`${short(key.kid)} signs on ${count(key.signedBy, 'instance')}: rotate first`);
    if (left > 0 && !options.force)
      throw new Error(`tokens that ${short(key.kid)} signed may live for another ${span(left)}; --force takes them out as well`);
    await deny(room, key, 'retired', options.why ?? 'retired');
    await say(room, key, options.json ?? false);
  });
}

/** `crossfade keys revoke`: for a key that has leaked. Its tokens stop at once; their holders refresh with the key that was next. */
export async function revoke(prefix: string, options: DenyOptions): Promise<void> {
  const { why } = options;
  if (why === undefined) throw new Error('--why is needed: it is for the audit');
  await changeInRoom(options, async (room) => {
    const status = await readStatus(room);
    const key = findKey(status, prefix);
    await deny(room, key, 'revoked', why);
    await say(room, key, options.json ?? false);
  });
}

async function deny({ control, lifecycle, audit, nowMs }: Room, { kid }: KeyStatus, how: 'revoked' | 'retired', why: string): Promise<void> {
  await control.denyList.deny({ kid, at: await nowMs(), how, why });
  await lifecycle.publisher.tell('keys');
  audit('key.denied', { kid, how, why });
}

function findKey({ keys }: FleetStatus, prefix: string): KeyStatus {
  if (prefix.length < 4) throw new Error('write at least 4 characters of the kid');
  const found = keys.filter(({ kid }) => kid.startsWith(prefix));
  const [key, another] = found;
  if (!key) throw new Error(`no key of the fleet begins with ${prefix}: crossfade keys list`);
  if (another) throw new Error(`${found.length} keys begin with ${prefix}: write more of it`);
  if (key.phase === 'revoked' || key.phase === 'retired') throw new Error(`${short(key.kid)} is ${key.phase} already`);
  return key;
}

/** What has become of it, once the instances had time to hear. */
async function say(room: Room, { kid, files }: KeyStatus, json: boolean): Promise<void> {
  let status = await readStatus(room);
  for (const end = Date.now() + WATCH_MS; Date.now() < end && status.keys.some((key) => key.kid === kid && key.verifiedBy > 0); ) {
    await new Promise((resolve) => setTimeout(resolve, 250));
    status = await readStatus(room);
  }
  const left = status.keys.find((key) => key.kid === kid)?.verifiedBy ?? 0;
  if (left > 0) process.exitCode = 1;
  if (json) {
    print.json(status.keys.find((key) => key.kid === kid) ?? { kid });
    return;
  }
  for (const line of keyLines(status, room)) print.line(line);
  // A name that another key has taken over is not meant.
  const here = (await loadKeyDirectory(room.config.keys)).keys;
  const others = new Set([
    ...status.keys.filter((key) => key.kid !== kid).flatMap((key) => key.files),
    ...here.filter((key) => key.kid !== kid).map(({ file }) => file),
  ]);
  const names = new Set([...files, ...here.filter((key) => key.kid === kid).map(({ file }) => file)].filter((file) => !others.has(file)));
  if (names.size > 0) print.line(`Remove ${[...names].join(', ')} from the key directories: no instance uses it again.`);
  if (!status.keys.some(({ phase }) => phase === 'active'))
    print.line(
      'No key signs now: sessions go on, and nothing is issued until one does. crossfade keys list says what waits; crossfade keys rotate makes one.',
    );
}
