import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { init } from 'launchdarkly-node-server-sdk';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type LaunchDarklyServer, startLaunchDarkly } from '../../scripts/lib/launchdarkly-server.js';
import { writeKey } from '../support/keys.js';
import { remember } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import type { World, WorldOptions } from '../support/world.js';

const SDK_KEY = 'sdk-12345678-test-key-of-this-run';
const STAGE = 'auth-migration-stage';

let vendor: LaunchDarklyServer;
beforeEach(async () => {
  remember(SDK_KEY);
  vendor = await startLaunchDarkly();
});
afterEach(async () => {
  await vendor.stop();
});
// Behind the vendor's own: the worlds are closed first.
const openWorld = useWorlds();

async function open(options: WorldOptions = {}): Promise<World> {
  return await openWorld({
    prepare: (directory) => {
      writeKey(join(directory, 'keys'), 'first.pem');
      writeFileSync(join(directory, 'sdk-key'), `${SDK_KEY}\n`);
    },
    configure: (config) => ({
      ...config,
      rollout: {
        ...config.rollout,
        flags: { launchdarkly: { sdkKeyFile: 'sdk-key', streamUri: vendor.url, baseUri: vendor.url, eventsUri: vendor.url } },
      },
    }),
    ...options,
  });
}

/** The effective stage and its reason, as a client hears them: of the exchange that is refused, else dual. */
async function stageOf(world: World, cookie: string): Promise<string> {
  const response = await world.exchange(cookie);
  const body: unknown = await response.json();
  if (response.status === 200) return 'open';
  return body !== null && typeof body === 'object' && 'stage' in body && 'reason' in body
    ? `${body.stage} by ${body.reason}`
    : `status ${response.status}`;
}

const changed = (world: World, from: number) => world.log.until((line) => line['audit'] === 'flags.changed', from);

describe('flags from LaunchDarkly', () => {
  it('a flip is in force as soon as it has arrived', async () => {
    vendor.set(STAGE, 'session-only');
    const world = await open();
    const cookie = await world.login('alice');
    expect(await stageOf(world, cookie)).toBe('session-only by flag');
    for (const [stage, answer] of [
      ['dual', 'open'],
      ['shadow', 'shadow by flag'],
      ['jwt-only', 'open'],
    ] as const) {
      const from = world.log.all.length;
      vendor.set(STAGE, stage);
      await changed(world, from);
      expect(await stageOf(world, cookie)).toBe(answer);
    }
  });

  it('L1: a dropped stream leaves the last stage in force, and the next stream brings what was missed', async () => {
    vendor.set(STAGE, 'dual');
    const world = await open();
    const cookie = await world.login('alice');
    const from = world.log.all.length;
    const again = vendor.connected();
    vendor.drop();
    expect(await stageOf(world, cookie)).toBe('open');
    await again;
    vendor.set(STAGE, 'shadow');
    await world.log.until((line) => line['audit'] === 'flags.changed', from);
    await expect.poll(() => stageOf(world, cookie)).toBe('shadow by flag');
  });

  it('L1: the vendor gone and back: the last stage meanwhile, the new one afterwards', async () => {
    vendor.set(STAGE, 'dual');
    const world = await open();
    const cookie = await world.login('alice');
    await vendor.stop();
    expect(await stageOf(world, cookie)).toBe('open');
    vendor.set(STAGE, 'session-only');
    await vendor.start();
    await expect.poll(() => stageOf(world, cookie), { timeout: 15_000 }).toBe('session-only by flag');
  });

  it('L1: a 401 after the start leaves the last stage in force, and is told', async () => {
    vendor.set(STAGE, 'dual');
    const world = await open();
    const cookie = await world.login('alice');
    vendor.answerWith(401);
    vendor.drop();
    await world.log.until((line) => line['audit'] === 'flags.failed');
    expect(await stageOf(world, cookie)).toBe('open');
    expect(await world.metrics()).toContain('crossfade_flags_up 0');
    expect(await world.bridge.readiness()).toMatchObject({ ready: true, parts: { flags: 'last-known' } });
  });

  it.each<[string, Record<string, unknown>]>([
    ['without variations', { on: true, variations: [], fallthrough: { variation: 0 } }],
    ['with a variation that it does not have', { on: true, variations: ['shadow'], fallthrough: { variation: 7 } }],
    ['without a fallthrough', { on: true, variations: ['shadow'], fallthrough: null }],
    ['with rules that are a number', { on: true, variations: ['shadow'], fallthrough: { variation: 0 }, rules: 5 }],
    [
      'with a clause without values',
      { on: true, variations: ['shadow'], fallthrough: { variation: 0 }, rules: [{ variation: 0, clauses: [{ attribute: 'key', op: 'in' }] }] },
    ],
  ])('L1: a broken flag, %s, leaves the last stage in force, live and at the next connection', async (_how, flag) => {
    vendor.set(STAGE, 'dual');
    const world = await open();
    const cookie = await world.login('alice');
    const before = world.log.all.length;
    vendor.send({ key: STAGE, ...flag });
    await world.log.until((line) => line['audit'] === 'flags.failed' || String(line['msg']).startsWith('LaunchDarkly sent'), before);
    expect(await stageOf(world, cookie)).toBe('open');
    const again = vendor.connected();
    vendor.drop();
    await again;
    expect(await stageOf(world, cookie)).toBe('open');
    vendor.set(STAGE, 'shadow');
    await expect.poll(() => stageOf(world, cookie), { timeout: 10_000 }).toBe('shadow by flag');
  });

  it('L1: while the stream is gone, that is what operators see', async () => {
    vendor.set(STAGE, 'dual');
    const world = await open();
    expect(await world.bridge.readiness()).toMatchObject({ parts: { flags: 'live' } });
    await vendor.stop();
    await expect.poll(async () => (await world.bridge.readiness()).parts['flags']).toBe('last-known');
    expect(await world.metrics()).toContain('crossfade_flags_up 0');
    await vendor.start();
    await expect.poll(async () => (await world.bridge.readiness()).parts['flags'], { timeout: 10_000 }).toBe('live');
  });

  it('an empty key file, at the start, at SIGHUP and at a retry, is named and ends nothing', async () => {
    vendor.set(STAGE, 'dual');
    const world = await open();
    const cookie = await world.login('alice');
    const path = join(world.directory, 'sdk-key');
    writeFileSync(path, '');
    await world.bridge.reload();
    expect(await stageOf(world, cookie)).toBe('open');
    const late = await world.another();
    for (const { log } of [world, late]) expect(JSON.stringify(log.all)).toContain('sdkKeyFile names is empty');
    writeFileSync(path, SDK_KEY);
    await late.bridge.reload();
    await late.log.until((line) => line['audit'] === 'flags.changed');
  });

  it('L2: a cold start without LaunchDarkly takes the flags that Redis kept', async () => {
    vendor.send({
      key: STAGE,
      on: true,
      variations: ['session-only', 'dual'],
      offVariation: 0,
      salt: 's',
      fallthrough: { variation: 0 },
      rules: [{ id: 'r', variation: 1, clauses: [{ contextKind: 'tenant', attribute: 'key', op: 'in', values: ['acme'] }] }],
    });
    const before = await open();
    const flagsKey = `${before.config.redis.keyPrefix}v1:flags`;
    await expect.poll(async () => await before.legacy.redis.get(flagsKey)).not.toBeNull();
    await vendor.stop();
    const after = await open({ prepare: (directory) => copyFiles(before, directory), configure: (config) => withPrefix(config, before) });
    expect(await stageOf(after, await after.login('alice'))).toBe('open');
    expect(await stageOf(after, await after.login('carol'))).toBe('session-only by flag');
    expect(await after.bridge.readiness()).toMatchObject({ parts: { flags: 'last-known' } });
  });

  it('L2: a cold start without LaunchDarkly and without kept flags takes the configured default', async () => {
    await vendor.stop();
    const world = await open();
    expect(await stageOf(world, await world.login('alice'))).toBe('session-only by default');
    expect(world.log.audits('flags.failed')).toHaveLength(1);
    vendor.set(STAGE, 'dual');
    await vendor.start();
    const cookie = await world.login('alice');
    await expect.poll(() => stageOf(world, cookie), { timeout: 15_000 }).toBe('open');
  });

  it('L2: a 401 at the start takes the default and is told', async () => {
    vendor.answerWith(401);
    const world = await open();
    expect(await stageOf(world, await world.login('alice'))).toBe('session-only by default');
    expect(world.log.audits('flags.failed')[0]).toMatchObject({ reason: expect.stringContaining('Authentication failed') });
  });

  it('K8, Law 10: flags written to Redis without the MAC are not taken at a cold start', async () => {
    await vendor.stop();
    const world = await open();
    const forged = {
      version: 1,
      payload: JSON.stringify({
        features: { [STAGE]: { key: STAGE, version: 1, on: true, variations: ['jwt-only'], fallthrough: { variation: 0 } } },
        segments: {},
      }),
      mac: 'AAAA',
    };
    await world.legacy.redis.set(`${world.config.redis.keyPrefix}v1:flags`, JSON.stringify(forged));
    const after = await open({ prepare: (directory) => copyFiles(world, directory), configure: (config) => withPrefix(config, world) });
    expect(await stageOf(after, await after.login('alice'))).toBe('session-only by default');
    expect(after.log.audits('value.refused')).toMatchObject([{ key: 'flags', reason: 'bad-mac' }]);
  });

  it('uses a client that the app already has, and leaves it open', async () => {
    vendor.set(STAGE, 'dual');
    const client = init(SDK_KEY, {
      streamUri: vendor.url,
      baseUri: vendor.url,
      eventsUri: vendor.url,
      sendEvents: false,
      diagnosticOptOut: true,
      streamInitialReconnectDelay: 0.2,
    });
    client.on('error', () => undefined);
    await client.waitForInitialization({ timeout: 5 });
    const world = await open({ bridge: { launchdarkly: client }, configure: (config) => ({ ...config, rollout: {} }) });
    const cookie = await world.login('alice');
    expect(await stageOf(world, cookie)).toBe('open');
    vendor.set(STAGE, 'shadow');
    await expect.poll(() => stageOf(world, cookie)).toBe('shadow by flag');
    await world.bridge.close();
    expect(vendor.streams).toBe(1);
    client.close();
  });
});

function copyFiles(from: World, directory: string): void {
  writeKey(join(directory, 'keys'), 'first.pem', from.readFile('keys/first.pem'));
  writeFileSync(join(directory, 'fleet-secret'), from.readFile('fleet-secret'));
  writeFileSync(join(directory, 'sdk-key'), SDK_KEY);
}

function withPrefix(config: World['config'], from: World): World['config'] {
  return { ...from.config, sessions: config.sessions, redis: { ...config.redis, keyPrefix: from.config.redis.keyPrefix ?? '' } };
}
