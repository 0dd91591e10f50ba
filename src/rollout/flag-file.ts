import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { z } from 'zod';
import { watchDirectory } from '../file-watch.js';
import { nestsDeeperThan } from '../json-depth.js';
import type { Tools } from '../telemetry/tools.js';
import { engineLogger, reportErrors } from './engine-log.js';
import { createFlagEngine, type FlagItem, type FlagItems, withWhatTheyNeed } from './flag-engine.js';
import { flagSchema, segmentSchema } from './flag-shape.js';
import type { FlagSource } from './flags.js';
import type { LastKnownFlags } from './last-known.js';

const fileSchema = z.strictObject({
  flags: z.record(z.string(), z.looseObject({})).default({}),
  segments: z.record(z.string(), z.looseObject({})).default({}),
  flagValues: z.record(z.string(), z.unknown()).default({}),
});

const KEEP_AGAIN_MS = 60_000;

/** LaunchDarkly's model needs ten; the values of a flag may have some of their own. */
const MAX_DEPTH = 64;

/** What a file says of the flags that are asked for. */
export interface FlagFile extends FlagItems {
  /** How many flags it has in all. */
  readonly count: number;
  /** Of the text of the file. */
  readonly digest: string;
}

/**
 * The SDK has a `FileDataSource`. It is not used, because with `autoUpdate` it sees no further change once a file was replaced by a rename, as
 * editors and ConfigMaps do it.
 *
 * Reads a flags file in LaunchDarkly's own shape: `flags`, `segments`, and `flagValues` for values without rules. Only the flags of `keys`,
 * and what these need, are looked into: a team may keep thousands of others in it.
 * @throws {Error} whose message says what is wrong, in words for an operator.
 */
export async function readFlagFile(path: string, keys: readonly string[]): Promise<FlagFile> {
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
  const { flags, segments, flagValues } = parse(path, '', fileSchema, json);
  const values = Object.entries(flagValues).map(([key, value]): [string, FlagItem] => [
    key,
    { key, version: 1, on: true, variations: [value], fallthrough: { variation: 0 }, offVariation: 0, salt: key },
  ]);
  const all = { flags: new Map([...keyed(flags), ...values]), segments: new Map(keyed(segments)) };
  try {
    const needed = withWhatTheyNeed(keys, all);
    return {
      flags: checked(path, 'flags', flagSchema, needed.flags),
      segments: checked(path, 'segments', segmentSchema, needed.segments),
      count: all.flags.size,
      digest: createHash('sha256').update(text).digest('base64'),
    };
  } catch (error) {
    throw error instanceof Error && !error.message.startsWith(path) ? new Error(`${path}: ${error.message}`) : error;
  }
}

function parse<T>(path: string, at: string, schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new Error(`${path}: ${[at, ...(issue?.path ?? [])].filter((part) => part !== '').join('.') || 'the file'}: ${issue?.message}`);
}

function checked(path: string, kind: string, schema: z.ZodType<{ version: number }>, items: FlagItems['flags']): ReadonlyMap<string, FlagItem> {
  return new Map([...items].map(([key, item]) => [key, { ...parse(path, `${kind}.${key}`, schema, item), key }]));
}

/** LaunchDarkly turns a flag off when somebody archives it. */
function keyed(items: Readonly<Record<string, Readonly<Record<string, unknown>>>>): [string, FlagItem][] {
  return Object.entries(items).map(([key, found]) => [key, { version: 1, ...found, key, ...(found['archived'] === true ? { on: false } : {}) }]);
}

export interface FileFlagSourceOptions extends Pick<Tools, 'log' | 'audit' | 'metrics'> {
  readonly path: string;
  /** Keys of the flags that are asked for: the engine gets these, and what they need. */
  readonly keys: readonly string[];
  readonly lastKnown: LastKnownFlags;
}

/**
 * LaunchDarkly's evaluation engine over a file: real targeting and percentages. The file is watched; one that cannot be
 * used leaves the last good flags in force, at a start those that Redis kept.
 */
export async function openFileFlagSource({ path, keys, lastKnown, log, audit, metrics }: FileFlagSourceOptions): Promise<FlagSource> {
  const { client, replace } = createFlagEngine({ logger: engineLogger(log) }, (error) =>
    log.error({ err: error }, 'the flags could not be handed to the engine'),
  );
  let state: FlagSource['state'] = 'none';
  let problem: string | undefined;
  let latest: FlagItems | undefined;
  let text = '';
  let digest: string | undefined;

  /** A person who empties the file puts everyone at the default stage: that is worth a line. */
  function warnOfLost(before: FlagItems | undefined, after: FlagItems): void {
    const lost = keys.filter((key) => before?.flags.has(key) && !after.flags.has(key));
    if (lost.length > 0) log.warn({ source: 'file', file: basename(path), flags: lost }, 'the flags file has lost flags: the default stage applies');
  }

  async function load(): Promise<void> {
    try {
      const file = await readFlagFile(path, keys);
      const next = JSON.stringify([[...file.flags], [...file.segments]]);
      if (latest === undefined || next !== text) {
        replace(file);
        warnOfLost(latest, file);
      }
      // Also where only flags of others have: whoever has written the file sees that it was read.
      if (file.digest !== digest) audit('flags.changed', { source: 'file', flags: file.count });
      // Whatever else changes in its directory, such as a log: the interval keeps them.
      const isNews = file.digest !== digest || state !== 'live';
      text = next;
      digest = file.digest;
      latest = file;
      state = 'live';
      problem = undefined;
      if (isNews) keep();
    } catch (error) {
      const reason = error instanceof Error ? error.message : 'unknown error';
      if (reason !== problem) audit('flags.failed', { source: 'file', reason });
      problem = reason;
      if (!latest) await useLastKnown();
      state = latest ? 'last-known' : 'none';
    }
    metrics.flagsUp.set(state === 'live' ? 1 : 0);
  }

  function keep(): void {
    if (state === 'live' && latest)
      void lastKnown.keep({ features: Object.fromEntries(latest.flags), segments: Object.fromEntries(latest.segments) });
  }

  async function useLastKnown(): Promise<void> {
    const kept = await lastKnown.read();
    if (!kept) return;
    latest = { flags: new Map(Object.entries(kept.features)), segments: new Map(Object.entries(kept.segments)) };
    text = JSON.stringify([[...latest.flags], [...latest.segments]]);
    replace(latest);
  }

  let loading = Promise.resolve();
  const reload = () => {
    loading = loading.then(load);
  };
  reportErrors(client, log);
  const watch = watchDirectory(dirname(path), reload);
  // Redis may have lost them, or have been away.
  const again = setInterval(() => void (state === 'none' ? reload() : keep()), KEEP_AGAIN_MS);
  again.unref();
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
    get problem() {
      return problem && `the flags file is broken: ${problem}; ${latest ? 'the last known flags are' : 'the default stage is'} in force`;
    },
    async reload() {
      reload();
      await loading;
    },
    async close() {
      watch.close();
      clearInterval(again);
      await loading;
      client.close();
    },
  };
}
