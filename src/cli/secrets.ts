import { namesOf } from '../fleet/announcement.js';
import type { CookieSecretStatus } from '../sessions/secret-status.js';
import { fleetSecretLines, readFleetSecrets } from './fleet-secrets.js';
import { print } from './print.js';
import { changeInRoom, type Room, withRoom } from './room.js';
import { table } from './words.js';

export interface SecretsOptions {
  readonly config: string;
  readonly json?: boolean;
}

/** `crossfade secrets list`: the fleet secrets and the cookie secrets of every entry, by name, and what each still does. */
export async function listSecrets({ config: path, json = false }: SecretsOptions): Promise<void> {
  await withRoom({ config: path, json }, async (room) => {
    const { cookieSecrets } = room.lifecycle;
    await cookieSecrets.sync();
    const { all } = cookieSecrets;
    const fleet = await readFleetSecrets(room);
    if (json) {
      print.json({ fleet, cookies: all });
      return;
    }
    print.line('FLEET (fleetSecretFile, newest first)');
    for (const line of fleetSecretLines(fleet)) print.line(`  ${line}`);
    print.line('');
    print.line('COOKIES OF THE APP (sessions[].secretsFile)');
    if (all.length === 0) print.line('  no entry of sessions has a signed cookie');
    for (const line of table(all.map((one) => [one.entry, one.name, describe(one)]))) print.line(`  ${line}`);
  });
}

function describe({ state, signs, until }: CookieSecretStatus): string {
  switch (state) {
    case 'file':
      return signs ? 'in secretsFile; signs the cookies of sessions that come back' : 'in secretsFile';
    case 'dropped':
      return `no longer in secretsFile; verifies until ${new Date(until ?? 0).toISOString()}`;
    case 'ended':
      return 'dropped; verifies nothing';
  }
}

/** How long instances have to say that they have heard. */
const CONFIRM_MS = 8000;

/** `crossfade secrets drop`: a cookie secret verifies nothing any more, at once and on all instances, whatever their files say. */
export async function dropSecret(name: string, { config: path, why, json = false }: SecretsOptions & { readonly why: string }): Promise<void> {
  await changeInRoom({ config: path, json }, async (room) => {
    const { cookieSecrets, publisher } = room.lifecycle;
    await cookieSecrets.sync();
    if (!(await cookieSecrets.end(name, why))) throw new Error(`there is no cookie secret ${name}: crossfade secrets list names them`);
    await publisher.tell('keys');
    const { instances, missing } = await confirm(room, name);
    if (json) print.json({ name, instances, missing });
    else if (instances === 0) print.line(`${name} verifies nothing from the next start on: no instance is alive.`);
    else if (missing.length === 0)
      print.line(`${name} verifies nothing any more, on ${instances === 1 ? 'the live instance' : `all ${instances} live instances`}.`);
    else print.line(`${name} was dropped, but ${missing.join(', ')} did not confirm it: see crossfade status`);
    if (!json) print.line('Take it out of secretsFile as well.');
    if (missing.length > 0) process.exitCode = 1;
  });
}

async function confirm({ control, nowMs }: Room, name: string): Promise<{ instances: number; missing: string[] }> {
  for (const end = Date.now() + CONFIRM_MS; ; ) {
    const { live } = await control.fleet.read(await nowMs());
    const missing = live.filter(({ endedSecrets }) => !endedSecrets?.includes(name)).map(namesOf(live));
    if (missing.length === 0 || Date.now() > end) return { instances: live.length, missing };
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
