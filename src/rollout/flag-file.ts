import { readFile } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { z } from 'zod';
import { nestsDeeperThan } from '../json-depth.js';
import type { Audit } from '../telemetry/audit.js';
import type { Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';
import { watchDirectory } from '../watch.js';
import { engineLogger, reportErrors } from './engine-log.js';
import { createFlagEngine, type FlagItem, type FlagItems, withWhatTheyNeed } from './flag-engine.js';
import { flagSchema, segmentSchema } from './flag-shape.js';
import type { FlagSource } from './flags.js';

const fileSchema = z.strictObject({
  flags: z.record(z.string(), flagSchema).default({}),
  segments: z.record(z.string(), segmentSchema).default({}),
  flagValues: z.record(z.string(), z.unknown()).default({}),
});

/** LaunchDarkly's model needs ten; the values of a flag may have some of their own. */
const MAX_DEPTH = 64;

/**
 * Reads a flags file in LaunchDarkly's own shape: `flags`, `segments`, and `flagValues` for values without rules.
 * @throws {Error} whose message says what is wrong, in words for an operator.
 */
export async function readFlagFile(path: string): Promise<FlagItems> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${path} cannot be read (${error.code ?? 'unknown error'})`);
  });
  if (nestsDeeperThan(MAX_DEPTH, text)) throw new Error(`${path} nests deeper than ${MAX_DEPTH} levels`);
  let json: unknown;
  try {
    json = JSON.parse(text.replace(/^\ufeff/, ''));
  } catch {
    throw new Error(`${path} is not JSON, or cut off`);
  }
  const parsed = fileSchema.safeParse(json);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new Error(`${path}: ${issue?.path.join('.') || 'the file'}: ${issue?.message}`);
  }
  const { flags, segments, flagValues } = parsed.data;
  const values = Object.entries(flagValues).map(([key, value]): [string, FlagItem] => [
    key,
    { key, version: 1, on: true, variations: [value], fallthrough: { variation: 0 }, offVariation: 0, salt: key },
  ]);
  return { flags: new Map([...keyed(flags), ...values]), segments: new Map(keyed(segments)) };
}

/** LaunchDarkly turns a flag off when somebody archives it. */
function keyed(items: Readonly<Record<string, { readonly version: number; readonly archived?: unknown }>>): [string, FlagItem][] {
  return Object.entries(items).map(([key, found]) => [key, { ...found, key, ...(found.archived === true ? { on: false } : {}) }]);
}

export interface FileFlagSourceOptions {
  readonly path: string;
  /** Keys of the flags that are asked for: the engine gets these, and what they need. */
  readonly keys: readonly string[];
  readonly log: Log;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

/**
 * LaunchDarkly's evaluation engine over a file: real targeting and percentages. The file is watched; one that cannot be
 * used leaves the last good flags in force.
 */
export async function openFileFlagSource({ path, keys, log, audit, metrics }: FileFlagSourceOptions): Promise<FlagSource> {
  const { client, replace } = createFlagEngine({ logger: engineLogger(log) });
  let state: FlagSource['state'] = 'none';
  let problem: string | undefined;
  let latest: FlagItems | undefined;
  let text = '';

  /** A person who empties the file puts everyone at the default stage: that is worth a line. */
  function warnOfLost(before: FlagItems | undefined, after: FlagItems): void {
    const lost = keys.filter((key) => before?.flags.has(key) && !after.flags.has(key));
    if (lost.length > 0) log.warn({ source: 'file', file: basename(path), flags: lost }, 'the flags file has lost flags: the default stage applies');
  }

  async function load(): Promise<void> {
    try {
      const file = await readFlagFile(path);
      const next = JSON.stringify([[...file.flags], [...file.segments]]);
      if (latest === undefined || next !== text) {
        replace(withWhatTheyNeed(keys, file));
        warnOfLost(latest, file);
        audit('flags.changed', { source: 'file', flags: file.flags.size });
      }
      text = next;
      latest = file;
      state = 'live';
      problem = undefined;
    } catch (error) {
      const reason = error instanceof Error ? error.message : 'unknown error';
      if (reason !== problem) audit('flags.failed', { source: 'file', reason });
      problem = reason;
      state = latest ? 'last-known' : 'none';
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
