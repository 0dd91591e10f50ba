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

export type MappingOutcome =
  | { readonly identity: Identity }
  | {
      readonly rejected: 'nobody-logged-in' | 'unmappable-record';
      /** For `check --sample`: names paths, never values. */
      readonly why: string;
    };

/** Of a subject, a tenant, a role or a scope token, in characters. */
const MAX_VALUE_LENGTH = 1024;
/** Of roles or scope. */
const MAX_LIST_LENGTH = 256;

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
