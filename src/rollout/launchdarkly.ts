import { readFile } from 'node:fs/promises';
// The SDK goes by its old name, which apps have in their package.json: an alias of @launchdarkly/node-server-sdk, the package that is kept.
import { init, type LDClient } from 'launchdarkly-node-server-sdk';
import { TestData } from 'launchdarkly-node-server-sdk/integrations';
import type { Config } from '../config/config.js';
import { type Log, traceOf } from '../telemetry/log.js';
import type { Tools } from '../telemetry/tools.js';
import { engineLogger, reportErrors } from './engine-log.js';
import { createMemoryFlagStore, type MemoryFlagStore } from './flag-store.js';
import type { FlagSource } from './flags.js';
import type { LastKnownFlags } from './last-known.js';
import { guardStream } from './stream-guard.js';

export type LaunchDarklyConfig = NonNullable<NonNullable<Config['rollout']['flags']>['launchdarkly']>;

export interface LaunchDarklySourceOptions extends Pick<Tools, 'log' | 'audit' | 'metrics'> {
  readonly config: LaunchDarklyConfig;
  readonly lastKnown: LastKnownFlags;
}

/** How long the start waits for LaunchDarkly before it takes the last known flags. */
const START_TIMEOUT_SECONDS = 2;
const EMPTY = 'the file that rollout.flags.launchdarkly.sdkKeyFile names is empty';
/** How long until a client that LaunchDarkly has turned away is made anew, with the key file read again. */
const RETRY_MS = 30_000;
const SNAPSHOT_DELAY_MS = 250;
const SNAPSHOT_REPEAT_MS = 60_000;

/**
 * LaunchDarkly, or whatever speaks its streaming protocol. The flags live in this process; where the vendor is away, the
 * last known ones stay in force, and on a cold start those that Redis kept.
 */
export async function openLaunchDarklySource(options: LaunchDarklySourceOptions): Promise<FlagSource> {
  const { config, lastKnown, log, audit, metrics } = options;
  const store = createMemoryFlagStore((flag) =>
    audit('flags.failed', { source: 'launchdarkly', flag, reason: 'the flag is broken; the one before stays in force' }),
  );
  const listeners: (() => void)[] = [];
  let client: LDClient | undefined;
  let state: FlagSource['state'] = 'none';
  let problem: string | undefined;
  let retry: NodeJS.Timeout | undefined;
  let snapshotSoon: NodeJS.Timeout | undefined;
  let closed = false;
  let usedKey: string | undefined;

  function moveTo(next: FlagSource['state'], why?: string): void {
    if (next !== state)
      log[next === 'live' ? 'info' : 'warn']({ source: 'launchdarkly', from: state, to: next }, 'the flag source changed its state');
    if (why !== undefined && why !== problem) audit('flags.failed', { source: 'launchdarkly', reason: why });
    state = next;
    problem = why;
    metrics.flagsUp.set(next === 'live' ? 1 : 0);
  }

  function known(): FlagSource['state'] {
    return store.snapshot() ? 'last-known' : 'none';
  }

  function tellListeners(): void {
    for (const listener of listeners) listener();
  }

  async function keepSnapshot(): Promise<void> {
    const snapshot = store.snapshot();
    if (snapshot) await lastKnown.keep(snapshot);
  }

  function onUpdate(): void {
    audit('flags.changed', { source: 'launchdarkly' });
    tellListeners();
    clearTimeout(snapshotSoon);
    snapshotSoon = setTimeout(() => void keepSnapshot(), SNAPSHOT_DELAY_MS);
    snapshotSoon.unref();
  }

  function retryLater(): void {
    clearTimeout(retry);
    if (closed) return;
    retry = setTimeout(() => void connect(), RETRY_MS);
    retry.unref();
  }

  function onFailed(why: string): void {
    moveTo(known(), why);
    retryLater();
  }

  /** The SDK throws where it cannot use what it is given. */
  function start(...given: Parameters<typeof init>): ReturnType<typeof init> | undefined {
    try {
      return init(...given);
    } catch {
      onFailed('the LaunchDarkly SDK cannot use what rollout.flags.launchdarkly names');
      return undefined;
    }
  }

  async function connect(): Promise<void> {
    let sdkKey: string;
    try {
      sdkKey = (await readFile(config.sdkKeyFile, 'utf8')).trim();
    } catch {
      onFailed('the file that rollout.flags.launchdarkly.sdkKeyFile names cannot be read');
      return;
    }
    if (sdkKey === '') {
      onFailed(EMPTY);
      return;
    }
    if (closed) return;
    usedKey = sdkKey;
    client?.close();
    const { streamUri, baseUri, eventsUri, sendEvents } = config;
    const next = start(sdkKey, {
      featureStore: (context) => {
        guardStream(context, {
          opened: () => moveTo('live'),
          retrying: () => moveTo(known(), 'the stream is gone; the SDK tries again'),
          unreadable: (error) => log.error({ failure: traceOf(error) }, 'LaunchDarkly sent what the SDK cannot read; the flags before stay in force'),
        });
        return store;
      },
      sendEvents,
      diagnosticOptOut: true,
      streamInitialReconnectDelay: 0.2,
      logger: engineLogger(log, sdkKey),
      ...(streamUri ? { streamUri } : {}),
      ...(baseUri ? { baseUri } : {}),
      ...(eventsUri ? { eventsUri } : {}),
    });
    client = next;
    if (!next) return;
    next.on('update', onUpdate);
    next.on('ready', () => {
      moveTo('live');
      onUpdate();
    });
    next.on('failed', (error: unknown) => onFailed(error instanceof Error ? error.message.replaceAll(sdkKey, '[secret]') : 'LaunchDarkly refuses'));
    reportErrors(next, log);
    await next.waitForInitialization({ timeout: START_TIMEOUT_SECONDS }).catch(() => undefined);
  }

  // Redis may have lost it, or have been away when the flags changed.
  const snapshotAgain = setInterval(() => void keepSnapshot(), SNAPSHOT_REPEAT_MS);
  snapshotAgain.unref();
  await connect();
  if (store.snapshot() === undefined) {
    const seeded = await seed(store, lastKnown, log);
    if (seeded) tellListeners();
    moveTo(seeded ? 'last-known' : 'none', problem ?? 'LaunchDarkly did not answer at the start');
  }

  return {
    variation: async (flag, context, fallback): Promise<unknown> => (client ? await client.variation(flag, context, fallback) : fallback),
    detail: async (flag, context) =>
      client ? await client.variationDetail(flag, context, undefined) : { value: undefined, variationIndex: null, reason: { kind: 'ERROR' } },
    flag: (key) => store.snapshot()?.features[key],
    onChange: (listener) => listeners.push(listener),
    get state() {
      return state;
    },
    get problem() {
      return problem && `LaunchDarkly: ${problem}; ${state === 'none' ? 'the default stage is' : 'the last known flags are'} in force`;
    },
    async reload() {
      const key = await readFile(config.sdkKeyFile, 'utf8').catch(() => undefined);
      if (key?.trim() === '') log.error({ source: 'launchdarkly' }, `${EMPTY}; the key before is still used`);
      else if (key !== undefined && key.trim() !== usedKey) await connect();
    },
    async close() {
      closed = true;
      clearTimeout(retry);
      clearTimeout(snapshotSoon);
      clearInterval(snapshotAgain);
      client?.close();
    },
  };
}

/** Fills the store with the flags that Redis kept, through the engine's own preparation. True: there were some. */
async function seed(store: MemoryFlagStore, lastKnown: LastKnownFlags, log: Log): Promise<boolean> {
  const snapshot = await lastKnown.read();
  if (!snapshot || store.snapshot() !== undefined) return false;
  const engine = new TestData();
  for (const segment of Object.values(snapshot.segments)) await engine.usePreconfiguredSegment(segment);
  for (const flag of Object.values(snapshot.features)) await engine.usePreconfiguredFlag(flag);
  const seeder = init('last-known-flags', {
    featureStore: store,
    updateProcessor: engine.getFactory(),
    sendEvents: false,
    diagnosticOptOut: true,
    logger: engineLogger(log),
  });
  await seeder.waitForInitialization({ timeout: START_TIMEOUT_SECONDS }).catch(() => undefined);
  seeder.close();
  return store.snapshot() !== undefined;
}

/** A client that the app already has; it stays the app's to close. */
export function useLaunchDarklyClient(client: LDClient, { log, metrics }: Pick<LaunchDarklySourceOptions, 'log' | 'metrics'>): FlagSource {
  let failed = false;
  const show = () => metrics.flagsUp.set(client.initialized() && !failed ? 1 : 0);
  const onFailed = () => {
    failed = true;
    log.error({ source: 'launchdarkly' }, "the app's LaunchDarkly client has failed; its last known flags stay in force");
    show();
  };
  const onUpdate: (() => void)[] = [show];
  client.on('update', show);
  client.on('ready', show);
  client.on('failed', onFailed);
  reportErrors(client, log);
  show();
  return {
    variation: async (flag, context, fallback): Promise<unknown> => await client.variation(flag, context, fallback),
    detail: async (flag, context) => await client.variationDetail(flag, context, undefined),
    flag: () => undefined,
    onChange(listener) {
      onUpdate.push(listener);
      client.on('update', listener);
      client.on('ready', listener);
    },
    problem: undefined,
    get state() {
      return client.initialized() ? (failed ? 'last-known' : 'live') : 'none';
    },
    reload: async () => undefined,
    async close() {
      for (const listener of onUpdate) {
        client.off('update', listener);
        client.off('ready', listener);
      }
      client.off('failed', onFailed);
    },
  };
}
