import { readFile } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { init, type LDClient } from 'launchdarkly-node-server-sdk';
import { TestData } from 'launchdarkly-node-server-sdk/integrations';
import { z } from 'zod';
import type { Audit } from '../telemetry/audit.js';
import type { Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';
import { watchDirectory } from '../watch.js';
import { engineLogger, reportErrors } from './engine-log.js';
import { flagSchema, segmentSchema } from './flag-shape.js';
import type { FlagSource } from './flags.js';

const fileSchema = z.strictObject({
  flags: z.record(z.string(), flagSchema).default({}),
  segments: z.record(z.string(), segmentSchema).default({}),
  flagValues: z.record(z.string(), z.unknown()).default({}),
});

interface Item {
  readonly key: string;
  readonly version: number;
  readonly [member: string]: unknown;
}

export interface FlagFile {
  readonly flags: ReadonlyMap<string, Item>;
  readonly segments: ReadonlyMap<string, Item>;
}

/**
 * Reads a flags file in LaunchDarkly's own shape: `flags`, `segments`, and `flagValues` for values without rules.
 * @throws {Error} whose message says what is wrong, in words for an operator.
 */
export async function readFlagFile(path: string): Promise<FlagFile> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${path} cannot be read (${error.code ?? 'unknown error'})`);
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error(`${path} is not JSON, or cut off`);
  }
  const parsed = fileSchema.safeParse(json);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new Error(`${path}: ${issue?.path.join('.') || 'the file'}: ${issue?.message}`);
  }
  const { flags, segments, flagValues } = parsed.data;
  const values = Object.entries(flagValues).map(([key, value]): [string, Item] => [
    key,
    { key, version: 1, on: true, variations: [value], fallthrough: { variation: 0 }, offVariation: 0, salt: key },
  ]);
  return { flags: new Map([...keyed(flags), ...values]), segments: new Map(keyed(segments)) };
}

function keyed(items: Readonly<Record<string, { version: number }>>): [string, Item][] {
  return Object.entries(items).map(([key, found]) => [key, { ...found, key }]);
}

export interface FileFlagSourceOptions {
  readonly path: string;
  readonly log: Log;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

/**
 * LaunchDarkly's evaluation engine over a file: real targeting and percentages. The file is watched; one that cannot be
 * used leaves the last good flags in force.
 */
export async function openFileFlagSource({ path, log, audit, metrics }: FileFlagSourceOptions): Promise<FlagSource> {
  const engine = new TestData();
  const client: LDClient = init('flags-from-a-file', {
    updateProcessor: engine.getFactory(),
    sendEvents: false,
    diagnosticOptOut: true,
    logger: engineLogger(log),
  });
  const pushed = { flags: new Map<string, string>(), segments: new Map<string, string>() };
  let state: FlagSource['state'] = 'none';
  let problem: string | undefined;
  let latest: FlagFile | undefined;

  /** Hands the engine what differs from what it has; an item that left the file is handed over as deleted. */
  async function push(kind: 'flags' | 'segments', items: FlagFile['flags']): Promise<boolean> {
    const before = pushed[kind];
    const use = (found: Item | (Item & { deleted: true })) =>
      kind === 'flags' ? engine.usePreconfiguredFlag(found) : engine.usePreconfiguredSegment(found);
    let changed = false;
    for (const [key, found] of items) {
      const text = JSON.stringify(found);
      if (before.get(key) === text) continue;
      await use(found);
      before.set(key, text);
      changed = true;
    }
    for (const key of [...before.keys()].filter((known) => !items.has(known))) {
      await use({ key, version: 1, deleted: true });
      before.delete(key);
      changed = true;
    }
    return changed;
  }

  async function load(): Promise<void> {
    try {
      const file = await readFlagFile(path);
      const segmentsChanged = await push('segments', file.segments);
      const flagsChanged = await push('flags', file.flags);
      if (segmentsChanged || flagsChanged) audit('flags.changed', { source: 'file', flags: file.flags.size });
      latest = file;
      state = 'live';
      problem = undefined;
    } catch (error) {
      const reason = error instanceof Error ? error.message : 'unknown error';
      if (reason !== problem) audit('flags.failed', { source: 'file', reason });
      problem = reason;
      state = pushed.flags.size > 0 ? 'last-known' : 'none';
    }
    metrics.flagsUp.set(state === 'live' ? 1 : 0);
  }

  let loading = Promise.resolve();
  const reload = () => {
    loading = loading.then(load);
  };
  reportErrors(client, log);
  const watch = watchDirectory(dirname(path), reload);
  reload();
  await loading;
  await client.waitForInitialization({ timeout: 2 });
  log.info({ source: 'file', file: basename(path), state }, 'flags are read');

  return {
    variation: async (flag, context, fallback): Promise<unknown> => await client.variation(flag, context, fallback),
    detail: async (flag, context) => await client.variationDetail(flag, context, undefined),
    flag: (key) => latest?.flags.get(key),
    onChange: (listener) => client.on('update', listener),
    get state() {
      return state;
    },
    async close() {
      watch.close();
      await loading;
      client.close();
    },
  };
}
