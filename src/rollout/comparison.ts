import type { Principal } from '../principal.js';

/** In what two principals of one request differ. Codes only, never values. `docs/rollout.md` lists the same. */
export const MISMATCHES = {
  'only-bridge': 'the bridge found somebody, the app found nobody',
  'only-app': 'the app found somebody, the bridge found nobody',
  'subject-differs': 'two persons: the mapping takes the subject from the wrong place, or in another spelling',
  'tenant-differs': 'the same person in two tenants',
  'roles-differ': 'other roles; their order does not count',
  'scope-differs': 'other scope; its order does not count',
  'auth-time-differs': 'another time of the login',
  'client-differs': 'another client',
  'sid-differs': 'another session',
  'not-signed': 'the token could not be signed',
  'not-verified': 'the token was signed and does not verify',
} as const satisfies Record<string, string>;

export type Mismatch = keyof typeof MISMATCHES;

type Comparable = 'subject' | 'tenant' | 'roles' | 'scope' | 'authTime' | 'client' | 'sid';

/** What is known of the other principal: members that are absent are not compared. */
export type ExpectedPrincipal = { readonly [Field in Comparable]?: Principal[Field] | undefined };

const CODES: readonly (readonly [Comparable, Mismatch])[] = [
  ['subject', 'subject-differs'],
  ['tenant', 'tenant-differs'],
  ['roles', 'roles-differ'],
  ['scope', 'scope-differs'],
  ['authTime', 'auth-time-differs'],
  ['client', 'client-differs'],
  ['sid', 'sid-differs'],
];

export function compare(found: Principal, expected: ExpectedPrincipal): Mismatch[] {
  return CODES.flatMap(([field, code]) => (field in expected && !isSame(found[field], expected[field]) ? [code] : []));
}

/** Lists without their order. */
function isSame(one: unknown, other: unknown): boolean {
  if (!Array.isArray(one)) return one === other;
  return Array.isArray(other) && JSON.stringify([...new Set(one)].sort()) === JSON.stringify([...new Set(other)].sort());
}
