import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { Stage } from '../../src/stages.js';
import { freePort } from '../lib/free-port.js';
import { startRedis } from '../lib/private-redis.js';
import { startTcpProxy } from '../lib/tcp-proxy.js';
import { type BridgeProcess, replaceKeys } from './bridges.js';
import { ACCESS_SECONDS, type Place } from './place.js';
import type { Random } from './random.js';

/** One step of the migration, or one fault. */
export interface Scene {
  readonly title: string;
  readonly fault: boolean;
  /** Whether nobody can tell a logout of the legacy app alone from what the store does meanwhile, and for an access token's life after. */
  readonly hidesLogouts?: boolean;
  /** What happens at a moment of it that the seed decides. */
  play(): Promise<void>;
}

export interface SceneOptions {
  readonly place: Place;
  readonly random: Random;
  /** How long something stays broken. */
  readonly brokenMs: number;
}

/** Long enough for many tokens to be made meanwhile, and shorter than an instance takes to be taken for gone. */
const CUT_OFF_MS = 6000;
/** Writes of so long are lost in a failover. */
const LOST_MS = 2000;
const ADDED_AUDIENCE = 'https://reports.example.com';
const STAGE_FLAG = 'auth-migration-stage';

/** Puts a share of everybody at a stage, the rest one below it. */
export function stageFlag(stage: Stage, percent = 100, below: Stage = 'shadow') {
  return {
    key: STAGE_FLAG,
    on: true,
    variations: [below, stage],
    offVariation: 0,
    salt: 'drill',
    fallthrough: {
      rollout: {
        variations: [
          { variation: 0, weight: (100 - percent) * 1000 },
          { variation: 1, weight: percent * 1000 },
        ],
      },
    },
  };
}

/** All of it, in the order in which it is played: there, through everything that can break, and back. */
export function writeScript({ place, random, brokenMs }: SceneOptions): Scene[] {
  const { bridges, launchDarkly } = place;
  let familiesLostAt = Number.NEGATIVE_INFINITY;

  const setStage = (stage: Stage, percent?: number) => launchDarkly.send(stageFlag(stage, percent));

  const step = (stage: Stage, percent = 100): Scene => ({
    title: percent === 100 ? stage : `${stage}, ${percent} %`,
    fault: false,
    play: async () => setStage(stage, percent),
  });
  const fault = (title: string, play: () => Promise<void>, hidesLogouts = false): Scene => ({ title, fault: true, hidesLogouts, play });

  async function restart(bridge: BridgeProcess, env?: Readonly<Record<string, string>>): Promise<void> {
    await bridge.stop();
    await bridge.start(env);
  }

  async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
    for (const end = Date.now() + 60_000; !(await holds().catch(() => false)); ) {
      if (Date.now() > end) throw new Error(`the drill waited a minute in vain: ${what}`);
      await sleep(200);
    }
  }

  const healthy = async () =>
    await until('signing is healthy everywhere', async () =>
      (await Promise.all(bridges.map((one) => one.signing()))).every((state) => state === 'healthy'),
    );
  const filesOf = ({ keys }: BridgeProcess) => new Map(readdirSync(keys).map((name) => [name, readFileSync(join(keys, name), 'utf8')]));
  const broken = new Map([['first.pem', '-----BEGIN PRIVATE KEY-----\nhalf of it']]);

  async function withOwnRedis<T>(work: (redis: Redis) => Promise<T>): Promise<T> {
    const redis = new Redis(place.redis.url, { password: place.redisPassword });
    try {
      return await work(redis);
    } finally {
      redis.disconnect();
    }
  }

  async function rotate(): Promise<void> {
    const [first, ...others] = bridges;
    if (!first) return;
    // One instance cannot hear of the new key: until it does, or is taken for gone, nobody may sign with it (law 9).
    const cutOff = random.pick(place.redisProxies.slice(1));
    await cutOff.cut();
    // The key is written first; that the command may not hear how far the fleet is does not matter here.
    const rotating = first.run('keys', 'rotate').catch(() => undefined);
    await sleep(CUT_OFF_MS);
    await cutOff.restore();
    await rotating;
    const files = filesOf(first);
    for (const { keys } of others) {
      await sleep(300);
      replaceKeys(keys, files);
    }
    // Its name begins with the time from which it signs.
    const newest = [...files.keys()].find((name) => /^\d/.test(name)) ?? '';
    await until('the new key signs everywhere', async () => {
      const listed: unknown = JSON.parse(await first.run('keys', 'list', '--json'));
      return Array.isArray(listed) && listed.some((key) => key.files.includes(newest) && key.phase === 'active' && key.signedBy === bridges.length);
    });
  }

  async function corruptOne(): Promise<void> {
    const bridge = random.pick(bridges);
    const whole = filesOf(bridge);
    replaceKeys(bridge.keys, new Map([...whole.keys()].map((name) => [name, 'half a key'])));
    await until('one instance is degraded', async () => (await bridge.signing()) === 'degraded');
    await sleep(brokenMs);
    replaceKeys(bridge.keys, whole);
    await healthy();
  }

  async function restartAllBroken(): Promise<void> {
    await sleep(Math.max(0, familiesLostAt + ACCESS_SECONDS * 1000 - Date.now()));
    const whole = new Map(bridges.map((bridge) => [bridge, filesOf(bridge)]));
    for (const bridge of bridges) {
      replaceKeys(bridge.keys, broken);
      await restart(bridge);
    }
    await until('signing is broken everywhere', async () =>
      (await Promise.all(bridges.map((one) => one.signing()))).every((state) => state === 'broken'),
    );
    await sleep(brokenMs);
    for (const [bridge, files] of whole) replaceKeys(bridge.keys, files);
    await healthy();
  }

  async function evict(): Promise<void> {
    const { redis } = place.legacy;
    const used = Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1]);
    await redis.config('SET', 'maxmemory-policy', 'allkeys-random');
    const before = await redis.dbsize();
    // Little by little, until a tenth of the sessions is gone.
    for (let limit = used; (await redis.dbsize()) > before * 0.9 && limit > used / 4; limit -= 1024) await redis.config('SET', 'maxmemory', limit);
    await redis.config('SET', 'maxmemory', 0);
    await redis.config('SET', 'maxmemory-policy', 'noeviction');
  }

  async function killRedis(): Promise<void> {
    const { port } = place.redis;
    await place.redis.stop();
    await sleep(brokenMs);
    place.redis = await startRedis({ port, args: ['--requirepass', place.redisPassword] });
    await healthy();
    familiesLostAt = Date.now();
  }

  async function silence(): Promise<void> {
    const proxies = [...place.redisProxies, place.recordsProxy];
    for (const proxy of proxies) proxy.silence();
    await sleep(brokenMs);
    // What they hold back is not delivered late.
    for (const proxy of proxies) await proxy.cut();
    for (const proxy of proxies) await proxy.restore();
    await healthy();
  }

  async function loseLaunchDarkly(): Promise<void> {
    await launchDarkly.stop();
    await sleep(brokenMs);
    const back = launchDarkly.connected();
    await launchDarkly.start();
    await back;
  }

  async function shiftClock(): Promise<void> {
    const shim = join(place.directory, 'clock.mjs');
    writeFileSync(shim, 'const now = Date.now;\nDate.now = () => now() + 20_000;\n');
    const bridge = random.pick(bridges);
    await restart(bridge, { NODE_OPTIONS: `--import file://${shim}` });
    await sleep(brokenMs * 2);
    await restart(bridge);
  }

  /** A managed service moves the primary: the old one lives on as a replica, with all of its connections, and the name leads to the new one. */
  async function failOver(): Promise<void> {
    const secrets = ['--requirepass', place.redisPassword, '--masterauth', place.redisPassword];
    const [old, port] = [place.redis, await freePort()];
    const next = await startRedis({ port, args: ['--replicaof', '127.0.0.1', String(old.port), ...secrets] });
    await withOwnRedis(async (redis) => {
      await redis.config('SET', 'masterauth', place.redisPassword);
      await until('the replica has caught up', async () => (await redis.info('replication')).includes('state=online'));
      await redis.call('FAILOVER', 'TO', '127.0.0.1', String(port));
      await until('the old primary is a replica', async () => String(await redis.role()).startsWith('slave'));
    });
    // A name in the DNS follows later.
    await sleep(brokenMs / 3);
    for (const proxy of place.redisProxies) proxy.leadTo(next.url);
    place.redis = next;
    await healthy();
    await sleep(brokenMs);
    await old.stop();
  }

  /** Redis replicates asynchronously: the primary dies, and the replica that takes its place has not got the last seconds. */
  async function loseWrites(): Promise<void> {
    const [old, port] = [place.redis, await freePort()];
    const link = await startTcpProxy(old.url);
    const { port: followed } = new URL(link.url);
    const next = await startRedis({
      port,
      args: ['--replicaof', '127.0.0.1', followed, '--requirepass', place.redisPassword, '--masterauth', place.redisPassword],
    });
    await withOwnRedis(async (redis) => {
      await until('the replica has caught up', async () => (await redis.info('replication')).includes('state=online'));
    });
    link.silenceReplicas();
    await sleep(LOST_MS);
    await old.stop();
    place.redis = next;
    await withOwnRedis(async (redis) => await redis.replicaof('NO', 'ONE'));
    for (const proxy of place.redisProxies) proxy.leadTo(next.url);
    await link.close();
    await healthy();
  }

  async function rotatePassword(): Promise<void> {
    const next = randomBytes(16).toString('base64url');
    await withOwnRedis(async (redis) => {
      await redis.config('SET', 'requirepass', next);
      await redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    });
    place.redisPassword = next;
    await sleep(brokenMs / 3);
    writeFileSync(`${place.redisPasswordFile}.new`, next, { mode: 0o600 });
    renameSync(`${place.redisPasswordFile}.new`, place.redisPasswordFile);
    await healthy();
  }

  /** Sets the clock of one machine an hour ahead while it serves, and back again. */
  async function stepClock(): Promise<void> {
    const shim = join(place.directory, 'step.mjs');
    writeFileSync(
      shim,
      "const now = Date.now;\nlet ahead = 0;\nprocess.on('SIGUSR2', () => (ahead = ahead ? 0 : 3_600_000));\nDate.now = () => now() + ahead;\n",
    );
    const bridge = random.pick(bridges);
    await restart(bridge, { NODE_OPTIONS: `--import file://${shim}` });
    for (let turn = 0; turn < 2; turn++) {
      bridge.signal('SIGUSR2');
      await sleep(brokenMs);
    }
    await restart(bridge);
    await healthy();
  }

  /** A deployment adds an audience, instance by instance, and another takes it away again. */
  async function changeAudience(): Promise<void> {
    for (const change of [
      (audience: readonly string[]) => [...audience, ADDED_AUDIENCE],
      (audience: readonly string[]) => audience.filter((one) => one !== ADDED_AUDIENCE),
    ]) {
      for (const bridge of bridges) {
        bridge.configure((config) => ({ ...config, audience: change(config.audience) }));
        await restart(bridge);
        await sleep(brokenMs / 3);
      }
    }
    await healthy();
  }

  async function forge(): Promise<void> {
    const forged = {
      version: Date.now() + 1e9,
      value: { clamps: [{ selector: { on: 'all' }, stage: 'recall', by: 'operator', why: 'forged', at: 0 }] },
    };
    await withOwnRedis(async (redis) => {
      for (const name of ['clamps', 'jwks', 'flags', 'revoked-kids']) await redis.set(`${place.prefix}${name}`, `forged.${JSON.stringify(forged)}`);
      await redis.xadd(`${place.prefix}events`, '*', 'event', 'forged.{"type":"news","about":"clamps","at":0}');
      const families = await redis.keys(`${place.prefix}{*}:ended`);
      for (const key of families.slice(0, 20)) await redis.set(key, 'forged.{"endedAt":9999999999999,"reason":"logout"}', 'KEEPTTL');
    });
    await sleep(brokenMs);
    await healthy();
  }

  return [
    step('session-only'),
    step('shadow'),
    step('dual', 1),
    step('dual', 10),
    step('dual', 50),
    fault('rolling restart', async () => {
      for (const bridge of bridges) await restart(bridge);
    }),
    step('dual'),
    fault('from 0 to 100 % at once', async () => {
      setStage('session-only');
      await sleep(brokenMs);
      setStage('jwt-preferred');
    }),
    fault('a key rotation, one cut off', rotate),
    fault('a rolling change of the audience', changeAudience),
    fault('a rotated Redis password', rotatePassword),
    fault('a corrupt key on one instance', corruptOne),
    fault('LaunchDarkly is gone', loseLaunchDarkly),
    step('jwt-only'),
    // Before the others: whoever's family it takes finds that out within an access token's life, and must have exchanged anew before
    // nobody can sign and before sessions are evicted. Both at once leave nothing to go on with.
    fault('Redis killed, and back empty', killRedis),
    fault('a managed failover of Redis', failOver),
    fault('a failover that loses writes', loseWrites),
    fault('a clock step of an hour', stepClock),
    fault('Redis is silent', silence),
    fault('a clock 20 s off', shiftClock),
    fault('forged values in Redis', forge),
    fault('restart of all with broken keys', restartAllBroken),
    fault('Redis evicts sessions', evict, true),
    step('jwt-preferred'),
    step('dual'),
    step('session-only'),
    step('recall'),
  ];
}
