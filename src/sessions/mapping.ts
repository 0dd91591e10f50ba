import type { SessionConfig } from '../config/config.js';
import { unavailable } from '../errors.js';
import type { SessionRecord } from '../formats/format.js';
import { isRecord } from '../formats/json-record.js';
import { isBeforeEpoch, readTime } from '../formats/time.js';
import { type Identity, isScopeToken, type Mutable } from '../principal.js';

/** What a mapping function may give: null or undefined means that nobody is logged in. */
export interface MappedIdentity {
  readonly subject: string;
  readonly tenant?: string;
  readonly roles?: readonly string[];
  readonly scope?: readonly string[];
  /** Seconds since the epoch, with a fraction where the app is that exact. */
  readonly authTime?: number;
}

/** A mapping in code, for records that paths cannot describe. A throw, or no answer within 2 s, is answered 503: the bridge cannot know. */
export type MappingFunction = (
  record: SessionRecord,
  context: { readonly entry: string },
) => MappedIdentity | null | undefined | Promise<MappedIdentity | null | undefined>;

export type MappingOutcome =
  | { readonly identity: Identity }
  | {
      readonly rejected: 'nobody-logged-in' | 'unmappable-record';
      /** For `check --sample`: names paths, never values. */
      readonly why: string;
    };

export type Mapping = (record: SessionRecord) => MappingOutcome | Promise<MappingOutcome>;

const MAX_VALUE_LENGTH = 1024;
const MAX_LIST_LENGTH = 256;
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

/** A value of a type that nobody expected makes the record unmappable: dropping a tenant could widen what the rest grants. */
export function toIdentity(found: Partial<Record<string, unknown>>, nameOf: (member: keyof MappedIdentity) => string): MappingOutcome {
  const subject = toText(found['subject']);
  if (subject === undefined) return unmappable(nameOf('subject'), 'is not a string with visible characters, or a whole number');
  const tenant = toText(found['tenant']);
  if (tenant === undefined && isGiven(found['tenant']))
    return unmappable(nameOf('tenant'), 'is not a string with visible characters, or a whole number');
  const roles = toList(found['roles'], (text) => [text]);
  if (!roles) return unmappable(nameOf('roles'), 'is not a list of strings or whole numbers');
  const scope = toList(found['scope'], (text) => text.split(' ').filter((token) => token !== ''));
  if (!scope?.every(isScopeToken)) return unmappable(nameOf('scope'), 'is not a scope (RFC 6749, section 3.3)');
  const authTimeMs = readTime(found['authTime'], 'last');
  if (authTimeMs === undefined && isGiven(found['authTime']) && !isBeforeEpoch(found['authTime']))
    return unmappable(nameOf('authTime'), 'is not a time');
  const identity: Mutable<Identity> = { subject, roles, scope };
  if (tenant !== undefined) identity.tenant = tenant;
  if (authTimeMs !== undefined) {
    identity.authTime = Math.floor(authTimeMs / 1000);
    identity.authTimeMs = authTimeMs;
  }
  return { identity };
}

function unmappable(path: string, problem: string): MappingOutcome {
  return { rejected: 'unmappable-record', why: `${path} ${problem}` };
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null && value !== '';
}

/** U+FFFD stands for bytes that were no UTF-8: two persons whose names differ only there would be one. */
function toText(value: unknown): string | undefined {
  if (typeof value === 'string') {
    const isWhole = value.length <= MAX_VALUE_LENGTH && value.isWellFormed() && !value.includes('\ufffd') && VISIBLE.test(value);
    return isWhole ? value : undefined;
  }
  return Number.isSafeInteger(value) ? String(value) : undefined;
}

/** At least one character that a person can see. U+2800 is the empty Braille pattern, which Unicode does not count as white space. */
const VISIBLE = /[^\s\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Zs}\p{Default_Ignorable_Code_Point}\u2800]/u;

function toList(value: unknown, fromText: (text: string) => string[]): string[] | undefined {
  if (!isGiven(value)) return [];
  const single = typeof value === 'number' ? toText(value) : value;
  const list = typeof single === 'string' ? fromText(single) : isSparseList(value) ? Object.values(value) : value;
  if (!Array.isArray(list) || list.length > MAX_LIST_LENGTH) return undefined;
  const texts = list.map(toText).filter((text) => text !== undefined);
  return texts.length === list.length ? texts : undefined;
}

/** What PHP makes of a list with gaps: a map whose keys are numbers. */
function isSparseList(value: unknown): value is Readonly<Record<string, unknown>> {
  return isRecord(value) && Object.keys(value).every((key) => /^\d+$/.test(key));
}
