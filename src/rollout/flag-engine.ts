import { init, type LDClient, type LDOptions } from 'launchdarkly-node-server-sdk';
import { TestData } from 'launchdarkly-node-server-sdk/integrations';

/** A flag or a segment in LaunchDarkly's data model. */
export interface FlagItem {
  readonly key: string;
  readonly version: number;
  readonly [member: string]: unknown;
}

export interface FlagItems {
  readonly flags: ReadonlyMap<string, FlagItem>;
  readonly segments: ReadonlyMap<string, FlagItem>;
}

/** LaunchDarkly's evaluation engine over flags that this process hands to it. */
export interface FlagEngine {
  readonly client: LDClient;
  /** Replaces everything at once: an evaluation sees the flags before or after, never a mixture. */
  replace(items: FlagItems): void;
}

type ProcessorFactory = ReturnType<TestData['getFactory']>;

/**
 * The SDK prepares each item of its test data (attribute references, segment sets) and, once it runs, spreads every single change over
 * all of them: 3,000 items one by one hold the event loop for seconds. A new set of test data for each state goes in as one.
 */
export function createFlagEngine(options: Pick<LDOptions, 'logger'>, onError: (error: unknown) => void): FlagEngine {
  let start: ((engine: TestData) => void) | undefined;
  const connect: ProcessorFactory = (context, store, ready) => {
    start = (engine) => void Promise.resolve(engine.getFactory()(context, store, ready).start()).catch(onError);
    return { start: () => undefined, stop: () => undefined, close: () => undefined };
  };
  const client = init('flags-from-a-file', { ...options, updateProcessor: connect, sendEvents: false, diagnosticOptOut: true });
  const versions = { flags: new Map<string, Known>(), segments: new Map<string, Known>() };

  return {
    client,
    replace(items) {
      const engine = new TestData();
      for (const segment of numbered(items.segments, versions.segments)) void engine.usePreconfiguredSegment(segment);
      for (const flag of numbered(items.flags, versions.flags)) void engine.usePreconfiguredFlag(flag);
      start?.(engine);
    },
  };
}

interface Known {
  readonly text: string;
  readonly version: number;
}

/** The engine takes an item for changed by its version, which a person who edits a file need not raise. */
function numbered(items: FlagItems['flags'], known: Map<string, Known>): FlagItem[] {
  return [...items.values()].map((item) => {
    const text = JSON.stringify(item);
    const before = known.get(item.key);
    const version = before === undefined ? item.version : before.text === text ? before.version : before.version + 1;
    known.set(item.key, { text, version });
    return { ...item, version };
  });
}

/** A chain of more prerequisites, or of segments in segments, is nothing that somebody meant; the SDK follows it by recursion. */
const MAX_CHAIN = 64;

/**
 * The flags of these keys with all that their evaluation asks for: prerequisites, and segments of rules, in any depth.
 * @throws {Error} in words for an operator, where a chain of them is too long.
 */
export function withWhatTheyNeed(keys: readonly string[], { flags, segments }: FlagItems): FlagItems {
  const needed = { flags: new Map<string, FlagItem>(), segments: new Map<string, FlagItem>() };
  let next: [kind: 'flags' | 'segments', key: string][] = keys.map((key) => ['flags', key]);
  for (let depth = 0; next.length > 0; depth++) {
    if (depth > MAX_CHAIN) throw new Error(`${next[0]?.[1]} stands at the end of a chain of more than ${MAX_CHAIN} prerequisites or segments`);
    next = next.flatMap(([kind, key]) => {
      const item = (kind === 'flags' ? flags : segments).get(key);
      if (!item || needed[kind].has(key)) return [];
      needed[kind].set(key, item);
      return whatItNeeds(item);
    });
  }
  return needed;
}

function whatItNeeds({ prerequisites, rules }: FlagItem): [kind: 'flags' | 'segments', key: string][] {
  const clauses = listOf(rules).flatMap((rule) => listOf(rule['clauses']));
  return [
    ...listOf(prerequisites).flatMap(({ key }): ['flags', string][] => (typeof key === 'string' ? [['flags', key]] : [])),
    ...clauses.flatMap(({ op, values }): ['segments', string][] =>
      op === 'segmentMatch' && Array.isArray(values) ? values.map((value) => ['segments', String(value)]) : [],
    ),
  ];
}

function listOf(value: unknown): Readonly<Record<string, unknown>>[] {
  return Array.isArray(value) ? value.filter((item) => item !== null && typeof item === 'object') : [];
}
