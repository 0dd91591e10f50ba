import type { SessionConfig } from '../config/config.js';
import { unavailable } from '../errors.js';
import type { SessionRecord } from '../formats/format.js';
import { isRecord } from '../formats/json-record.js';
import { type MappedIdentity, type MappingOutcome, toIdentity } from './identity.js';

/** A mapping in code, for records that paths cannot describe. A throw, or no answer within 2 s, is answered 503: the bridge cannot know. */
export type MappingFunction = (
  record: SessionRecord,
  context: { readonly entry: string },
) => MappedIdentity | null | undefined | Promise<MappedIdentity | null | undefined>;

export type Mapping = (record: SessionRecord) => MappingOutcome | Promise<MappingOutcome>;

/** What stands beside a path that leads to nothing: so much is shown at most. */
export const MAX_PATHS = 8;
/** How long a mapping function may take. */
export const MAPPING_TIMEOUT_MS = 2000;

export function createFunctionMapping(map: MappingFunction, entry: string): Mapping {
  return async function mapByFunction(record) {
    let found: Partial<Record<string, unknown>> | undefined;
    try {
      const mapped = await withinTime(Promise.resolve(map(record, { entry })));
      found = mapped ? { ...mapped } : undefined;
    } catch (cause) {
      throw unavailable('mapping', new MappingFailure(cause));
    }
    if (!found) return { rejected: 'nobody-logged-in', why: 'the mapping function found nobody' };
    return toIdentity(found, (member) => `the mapping function's ${member}`);
  };
}

/** What a mapping function threw, without its message: that may quote the record. */
class MappingFailure extends Error {
  constructor(thrown: unknown) {
    super(`the mapping function failed with ${thrown instanceof Error ? thrown.name : typeof thrown}`);
    this.name = 'MappingFailure';
  }
}

async function withinTime<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('late')), MAPPING_TIMEOUT_MS);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Takes from the record what the paths name, and nothing else. */
export function createPathMapping(paths: NonNullable<SessionConfig['principal']>): Mapping {
  const split = Object.entries(paths).map(([member, path]) => [member, path?.split('.') ?? []] as const);
  const nameOf = (member: keyof typeof paths) => paths[member] ?? member;

  return function mapByPaths(record) {
    const found: Partial<Record<string, unknown>> = {};
    for (const [member, path] of split) found[member] = follow(record, path);
    if (found['subject'] === undefined || found['subject'] === null || found['subject'] === '') {
      return { rejected: 'nobody-logged-in', why: `no ${nameOf('subject')}` };
    }
    return toIdentity(found, nameOf);
  };
}

/**
 * What a record has where this path should lead to something: paths beside the first member that is missing, never values, and only names
 * that a person would have chosen. Undefined: the path leads to something.
 */
export function pathsBeside(record: SessionRecord, path: string): string[] | undefined {
  const names = path.split('.');
  for (let depth = 0; depth < names.length; depth++) {
    const parent = names.slice(0, depth);
    const value = depth === 0 ? record : follow(record, parent);
    if (!isRecord(value)) return pathsBeside(record, parent.join('.'));
    if (Object.hasOwn(value, names[depth] ?? '')) continue;
    const named = Object.keys(value).filter((name) => /^[A-Za-z]\w{0,30}$/.test(name));
    return named.slice(0, MAX_PATHS).map((name) => [...parent, name].join('.'));
  }
  return undefined;
}

function follow(record: SessionRecord, path: readonly string[]): unknown {
  let value: unknown = record;
  for (const name of path) {
    if (value === null || typeof value !== 'object' || Object.hasOwn(value, 'constructor') || !Object.hasOwn(value, name)) return undefined;
    value = Reflect.get(value, name);
  }
  return value;
}
