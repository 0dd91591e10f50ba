import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { z } from 'zod';
import { systemClock } from '../../src/clock.js';
import { followFiles } from '../../src/compose/files.js';
import { createLifecycle, type Lifecycle } from '../../src/compose/lifecycle.js';
import { resolveConfig } from '../../src/config/load.js';
import { systemRandom } from '../../src/random.js';
import { Connections } from '../../src/redis/connections.js';
import { FleetSecrets } from '../../src/redis/fleet-keyring.js';
import { createAudit } from '../../src/telemetry/audit.js';
import { createLog } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import type { Grant } from '../../src/tokens/grant.js';
import { parseRefreshToken } from '../../src/tokens/refresh-token.js';
import { startRedis } from '../lib/private-redis.js';
import { Bed } from './bed.js';
import { createFixture } from './fixture.js';

const AT_ONCE = 50;
const SAMPLES = 500;
const KEPT_S = 90 * 86_400;
/** The record of each session, in bytes: as koa-session writes it for somebody with a few roles. */
const RECORD_BYTES = 222;

/** What a kind of key costs, in bytes of Redis' memory. */
export interface Sizes {
  readonly families: number;
  readonly recordBytes: number;
  /** `used_memory` that one session with one family adds, all of it. */
  readonly bytes: number;
  readonly kinds: Readonly<Record<string, number>>;
  /** Commands that one of these costs Redis, those that its scripts call included. */
  readonly exchange: number;
  readonly refresh: number;
}

/** Opens `count` families by the bridge's own code, refreshes each once, and asks Redis what they cost. */
export async function measureSizes(count: number, say: (what: string) => void): Promise<Sizes> {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-size-'));
  const redis = await startRedis();
  const client = new Redis(redis.url);
  const log = createLog({ level: 'silent' });
  const [metrics, audit] = [createMetrics(), createAudit(log)];
  const fixture = createFixture(directory);
  const config = resolveConfig(
    {
      issuer: fixture.issuer,
      audience: [fixture.audience],
      fleetSecretFile: join(directory, 'fleet-secret'),
      redis: { url: redis.url, keyPrefix: 'size:', commandTimeoutMs: 10_000 },
      sessions: [{ name: 'web', format: 'koa-session', secretsFile: join(directory, 'session-secrets'), principal: { subject: 'user.id' } }],
      keys: { directory: join(directory, 'ES256') },
      rollout: { flags: { file: join(directory, 'flags.json') } },
    },
    { baseDir: directory },
  );
  const files = followFiles({ log, audit });
  const connections = new Connections(config, files, log, metrics);
  await connections.ready(5000);
  const secrets = new FleetSecrets(config.fleetSecret.current);
  const lifecycle = createLifecycle({
    config,
    connections,
    files,
    secrets,
    belonging: { isStranger: () => false, isUnheard: () => false, isInTouch: () => true },
    random: systemRandom,
    clock: systemClock,
    log,
    audit,
    metrics,
  });
  try {
    const before = await usedMemory(client);
    for (let n = 0; n < count; n += AT_ONCE) {
      await Promise.all(Array.from({ length: Math.min(AT_ONCE, count - n) }, async (_, at) => await openOne(lifecycle, n + at)));
      if (n % 100_000 === 0 && n > 0) say(`${n.toLocaleString('en')} of ${count.toLocaleString('en')} families`);
    }
    const bytes = (await usedMemory(client)) - before;
    return {
      families: count,
      recordBytes: RECORD_BYTES,
      bytes: Math.round(bytes / count),
      kinds: await kindsOf(client),
      ...(await measureCommands(say)),
    };
  } finally {
    lifecycle.close();
    connections.close();
    files.close();
    client.disconnect();
    await redis.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** What the exchange and the first refresh of a session leave in Redis. */
async function openOne({ families, ledger, persons }: Lifecycle, n: number): Promise<void> {
  const sid = randomBytes(24).toString('base64url');
  const subject = `u-${n}`;
  const endsAt = Math.floor(Date.now() / 1000) + KEPT_S;
  const text = JSON.stringify({ user: { id: subject, tenant: 'acme', roles: ['member', 'billing'], scope: ['read:orders'] }, _maxAge: 86_400_000 });
  const record = text.padEnd(RECORD_BYTES, ' ');
  const grant: Grant = {
    client: 'web',
    audience: 'https://api.example.com',
    identity: { subject, tenant: 'acme', roles: ['member', 'billing'], scope: ['read:orders'], authTime: endsAt - KEPT_S },
    narrowed: false,
    hasSession: true,
    endsAt,
    idleSeconds: 1_209_600,
  };
  const kept = { entry: 'web', key: randomBytes(24).toString('base64url'), text: record, subject, tenant: 'acme', expiresAtMs: endsAt * 1000 };
  await persons.note(subject, sid, endsAt * 1000);
  const opened = await families.open(sid, grant, ledger.seal(sid, kept));
  const token = parseRefreshToken(opened.token);
  const found = token && (await families.find(token));
  if (!token || found?.kind !== 'live') throw new Error('a family is not there');
  await families.rotate(token, found, grant, ledger.seal(sid, kept));
}

async function usedMemory(client: Redis): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await client.info('memory'))?.[1]);
}

async function kindsOf(client: Redis): Promise<Record<string, number>> {
  const sums = new Map<string, { bytes: number; keys: number }>();
  for (let n = 0; n < SAMPLES * 5; n++) {
    const key = (await client.randomkey()) ?? '';
    const kind = key.includes(':family:') ? '{sid}:family:ID' : key.includes(':subject:') ? 'subject:{HASH}' : `{sid}:${key.split(':').at(-1)}`;
    const known = sums.get(kind) ?? { bytes: 0, keys: 0 };
    sums.set(kind, { bytes: known.bytes + Number(await client.memory('USAGE', key, 'SAMPLES', 0)), keys: known.keys + 1 });
  }
  const kinds = [...sums]
    .filter(([, { keys }]) => keys > SAMPLES / 10)
    .map(([kind, { bytes, keys }]): [string, number] => [kind, Math.round(bytes / keys)]);
  return Object.fromEntries(kinds.sort());
}

const answerSchema = z.object({ refresh_token: z.string() });
const OPERATIONS = 300;

/** Over HTTP, at the bridge as it is built. */
async function measureCommands(say: (what: string) => void): Promise<{ readonly exchange: number; readonly refresh: number }> {
  const bed = new Bed(say, () => []);
  try {
    const { port } = await bed.app('endpoints ES256');
    const { texts = [], path = '', form = '' } = await bed.workload('exchange');
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    const post = async (body: string) => {
      const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', headers, body });
      return answerSchema.parse(await answer.json()).refresh_token;
    };
    const url = await bed.redisUrl();
    const client = new Redis(url);
    const tokens: string[] = [];
    const exchange = await commandsOf(client, async (n) => void tokens.push(await post(form + (texts[n] ?? ''))));
    const refresh = await commandsOf(client, async (n) => void (await post(`grant_type=refresh_token&client_id=web&refresh_token=${tokens[n]}`)));
    client.disconnect();
    return { exchange, refresh };
  } finally {
    await bed.close();
  }
}

/** A heartbeat every few seconds counts as well, and is a few commands of thousands. */
async function commandsOf(client: Redis, work: (n: number) => Promise<void>): Promise<number> {
  const before = await countCommands(client);
  for (let n = 0; n < OPERATIONS; n++) await work(n);
  return Math.round((await countCommands(client)) - before) / OPERATIONS;
}

async function countCommands(client: Redis): Promise<number> {
  return Number(/total_commands_processed:(\d+)/.exec(await client.info('stats'))?.[1]);
}
