import type { SessionConfig } from '../config/config.js';
import { keyOf } from '../formats/formats.js';
import { scanPages } from '../redis/scan.js';
import { readAs } from '../sessions/record.js';
import type { EndOptions, Reach } from './end-report.js';
import type { Room } from './room.js';

/** How the logins of each entry can be ended; some of an entry's records are read for it. */
export async function reachOf(room: Room, { tenant }: EndOptions): Promise<Reach> {
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
    for await (const { keys } of scanPages(connections.connectionFor(session), keyOf(session), { type, count: PAGE })) {
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
