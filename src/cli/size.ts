import { loadConfig } from '../config/load.js';
import { MEASURED_RECORD } from './arguments.js';
import { print } from './print.js';
import { table, wrap } from './words.js';

export interface SizeOptions {
  readonly sessions: number;
  readonly active: number;
  readonly recordBytes: number;
  readonly config?: string;
  readonly json?: boolean;
}

/**
 * What `scripts/bench --size 1000000` measured on Redis 7.0: the memory that each kind of key takes for one session with one family that was
 * refreshed once, its record 222 bytes; and the commands that Redis carries out, those of scripts included.
 */
const MEASURED = {
  recordBytes: MEASURED_RECORD,
  /** `used_memory` by session, the tables that hold its keys included. */
  bytes: 2959,
  kinds: { '{sid}:family:ID': 1240, '{sid}:session': 864, '{sid}:families': 152, 'subject:{HASH}': 152, '{sid}:ended': 136 },
  commands: { exchange: 43.1, refresh: 28.1 },
} as const;

/** The dormant copy holds the record sealed, in base64url. */
const SEALED = 4 / 3;
/** One Redis carries out more, in bursts; a fork to save, and a replica that falls behind, need the rest. */
const MOST_COMMANDS = 50_000;
const MOST_BYTES = 25 * 1024 ** 3;

interface Sizing {
  readonly memoryBytes: number;
  /** A second, where those who are active come all the time. */
  readonly refreshes: number;
  readonly refreshCommands: number;
  /** A second, while the clients are told to exchange. */
  readonly exchanges: number;
  readonly exchangeCommands: number;
  /** Masters of a Cluster, or one Redis. */
  readonly masters: number;
}

interface SizingInput {
  readonly sessions: number;
  readonly active: number;
  readonly recordBytes: number;
  readonly accessTtlSeconds: number;
  readonly nudgesPerSecond: number;
}

/** A session that tokens were made from has one family. An active one refreshes once in the life of an access token. */
function sizeOf({ sessions, active, recordBytes, accessTtlSeconds, nudgesPerSecond }: SizingInput): Sizing {
  const memoryBytes = sessions * (MEASURED.bytes + Math.max(0, recordBytes - MEASURED.recordBytes) * SEALED);
  const refreshes = active / accessTtlSeconds;
  const exchanges = Math.min(nudgesPerSecond, sessions);
  const [refreshCommands, exchangeCommands] = [refreshes * MEASURED.commands.refresh, exchanges * MEASURED.commands.exchange];
  const masters = Math.max(1, Math.ceil(memoryBytes / MOST_BYTES), Math.ceil((refreshCommands + exchangeCommands) / MOST_COMMANDS));
  return { memoryBytes, refreshes, refreshCommands, exchanges, exchangeCommands, masters };
}

/** `crossfade size`: what so many sessions need of the bridge's own Redis. Asks nobody. */
export async function size({ sessions, active, recordBytes, config: path, json = false }: SizeOptions): Promise<void> {
  if (active > sessions) throw new Error('--active: at most as many as --sessions');
  const { tokens, rollout } = path === undefined ? DEFAULTS : await loadConfig(path);
  const found = sizeOf({ sessions, active, recordBytes, accessTtlSeconds: tokens.accessTtlSeconds, nudgesPerSecond: rollout.nudgesPerSecond });
  if (json) {
    print.json(found);
    return;
  }
  print.line(`${round(sessions)} sessions with tokens, ${round(active)} of them active, records of ${recordBytes} bytes`);
  for (const line of table([
    ['memory of the bridge\u2019s Redis', bytes(found.memoryBytes)],
    ['refreshes', `${round(found.refreshes)} a second, ${round(found.refreshCommands)} commands`],
    ['exchanges, while clients are nudged', `${round(found.exchanges)} a second, ${round(found.exchangeCommands)} commands`],
  ]))
    print.line(`  ${line}`);
  for (const line of wrap(verdict(found), '')) print.line(line);
}

/** Without a configuration: those of an empty one. */
const DEFAULTS = { tokens: { accessTtlSeconds: 600 }, rollout: { nudgesPerSecond: 200 } };

function verdict({ masters }: Sizing): string {
  return masters === 1
    ? 'One Redis is enough, with a replica.'
    : `One Redis is not enough: a Cluster of ${masters} masters, each with a replica (at most ${bytes(MOST_BYTES)} and ${round(MOST_COMMANDS)} commands a second each).`;
}

function bytes(amount: number): string {
  const gib = amount / 1024 ** 3;
  return gib >= 1 ? `${gib.toFixed(1)} GiB` : `${Math.ceil(amount / 1024 ** 2)} MiB`;
}

function round(amount: number): string {
  return Math.ceil(amount).toLocaleString('en-US');
}
