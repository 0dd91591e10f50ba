import { loadConfig } from '../config/load.js';
import { composeStatus, type FleetStatus, type KeyStatus } from '../console/status.js';
import { generateKey, writeKeyFile } from '../keys/generate.js';
import { loadKeyDirectory } from '../keys/load.js';
import { print } from './print.js';
import { type Room, withRoom } from './room.js';
import { describeKey, short, span, table } from './words.js';

export interface KeysOptions {
  readonly config: string;
  readonly json?: boolean;
}

/** `crossfade keys generate`: a key that nobody uses yet, in the key directory or on standard output. */
export async function generate({ config: path, stdout = false }: KeysOptions & { readonly stdout?: boolean }): Promise<void> {
  const { keys } = await loadConfig(path);
  const { kid, pem } = await generateKey(keys.algorithm);
  if (stdout) process.stdout.write(pem);
  else print.line(`wrote ${await writeKeyFile(keys.directory, `${short(kid)}.pem`, pem)} (kid ${kid})`);
}

/** `crossfade keys list`: every key of the fleet and how far it is. */
export async function list({ config: path, json = false }: KeysOptions): Promise<void> {
  await withRoom(path, async (room) => {
    const status = await readStatus(room);
    if (json) print.json(status.keys);
    else for (const line of keyLines(status, room)) print.line(line);
  });
}

export function keyLines({ keys, instances, at }: FleetStatus, { config }: Pick<Room, 'config'>): string[] {
  if (keys.length === 0) return ['no key: crossfade keys rotate makes one'];
  return table(
    keys.map((key) => [short(key.kid), key.phase, key.files.join(' ') || '-', describeKey(key, instances.length, at, config.keys.publishSeconds)]),
  );
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
  await withRoom(options.config, async (room) => {
    const waiting = (await readStatus(room)).keys.filter(({ hold }) => hold !== undefined);
    const kid = options.force ? await force(room, waiting, options.why) : await writeNext(room, waiting, options);
    const status = await watchKey(room, kid);
    if (options.json) print.json(status.keys.find((key) => key.kid === kid) ?? { kid });
    else for (const line of keyLines(status, room)) print.line(line);
  });
}

async function writeNext({ config }: Room, waiting: readonly KeyStatus[], { at = new Date(), json = false }: RotateOptions): Promise<string> {
  const [next] = waiting;
  if (next) throw new Error(`${short(next.kid)} is waiting to sign already: crossfade keys list says for what; --force --why lets it go on`);
  const { kid, pem } = await generateKey(config.keys.algorithm);
  const time = at.toISOString().replaceAll(/[-:]|\.\d+/g, '');
  const path = await writeKeyFile(config.keys.directory, `${time}-${short(kid)}.pem`, pem);
  if (!json) {
    print.line(`wrote ${path}`);
    print.line('Instances with a key directory of their own need the same file; until then they verify it, and sign with the newest that they have.');
  }
  return kid;
}

async function force({ control, lifecycle, audit, nowMs }: Room, waiting: readonly KeyStatus[], why: string | undefined): Promise<string> {
  if (why === undefined) throw new Error('--force needs --why: it is for the audit');
  const [next] = waiting;
  if (!next) throw new Error('no key is waiting to sign');
  const now = await nowMs();
  await control.jwks.update((current) =>
    current ? { keys: current.keys.map((key) => (key.jwk.kid === next.kid ? { ...key, forcedAt: now } : key)) } : undefined,
  );
  await lifecycle.events.tell('keys');
  audit('key.forced', { kid: next.kid, why, without: next.hold?.why === 'fleet' ? next.hold.hosts.join(' ') : '' });
  return next.kid;
}

/** Until every live instance verifies it, or for as long as one would wait. */
async function watchKey(room: Room, kid: string): Promise<FleetStatus> {
  for (const end = Date.now() + WATCH_MS; ; ) {
    const status = await readStatus(room);
    const key = status.keys.find((one) => one.kid === kid);
    const settled = status.instances.length === 0 || (key !== undefined && (key.phase === 'active' || (key.hold?.why ?? 'fleet') !== 'fleet'));
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
  await withRoom(options.config, async (room) => {
    const status = await readStatus(room);
    const key = findKey(status, prefix);
    const left = (key.retiringUntil ?? 0) - status.at;
    if (key.phase === 'active') throw new Error(`${short(key.kid)} signs on ${key.signedBy} instances: rotate first`);
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
  await withRoom(options.config, async (room) => {
    const status = await readStatus(room);
    const key = findKey(status, prefix);
    await deny(room, key, 'revoked', why);
    await say(room, key, options.json ?? false);
  });
}

async function deny({ control, lifecycle, audit, nowMs }: Room, { kid }: KeyStatus, how: 'revoked' | 'retired', why: string): Promise<void> {
  await control.denyList.deny({ kid, at: await nowMs(), how, why });
  await lifecycle.events.tell('keys');
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
  if (json) {
    print.json(status.keys.find((key) => key.kid === kid) ?? { kid });
    return;
  }
  for (const line of keyLines(status, room)) print.line(line);
  const here = (await loadKeyDirectory(room.config.keys)).keys.find((key) => key.kid === kid)?.file;
  const names = [...new Set([...files, ...(here === undefined ? [] : [here])])];
  if (names.length > 0) print.line(`Remove ${names.join(', ')} from the key directories: no instance uses it again.`);
  if (!status.keys.some(({ phase }) => phase === 'active' || phase === 'next'))
    print.line('No key is left that signs: sessions go on, and nothing is issued until crossfade keys rotate.');
}

/** The whole of it as Redis has it now. */
export async function readStatus({ config, control, nowMs }: Room): Promise<FleetStatus> {
  const at = await nowMs();
  const [announcements, stored] = await Promise.all([control.fleet.read(at), control.jwks.read(), control.denyList.sync(), control.clamps.sync()]);
  const denied = [...control.denyList.kids.values()];
  return composeStatus({ config, announcements, keys: stored?.keys ?? [], denied, clamps: control.clamps.all, nowMs: at });
}
