/** Who a request is, whichever credential said so. Handlers read it from `ctx.state.principal`; it is frozen. */
export interface Principal {
  /** The person, in the legacy app's own naming; `sub` in a token. */
  readonly subject: string;
  readonly tenant?: string;
  /** Id of the registered client that the request or token belongs to, or `unknown`. */
  readonly client: string;
  readonly roles: readonly string[];
  readonly scope: readonly string[];
  /** Public name of the session that this goes back to: 32 characters of base64url. */
  readonly sid: string;
  /** When the person logged in, in seconds since the epoch; absent where the app does not record it. */
  readonly authTime?: number;
  /** When the credential ends, in seconds since the epoch; absent for a session that Redis keeps without an end. */
  readonly expiresAt?: number;
  readonly via: 'session' | 'jwt';
}

/** While it is being made. */
export type Mutable<T> = { -readonly [Member in keyof T]: T[Member] };

/** Whether a text is one name of a scope (RFC 6749, section 3.3). */
export function isScopeToken(text: string): boolean {
  return /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(text);
}

/** What a mapping, by paths or by a function, makes of a session record. */
export interface Identity {
  readonly subject: string;
  readonly tenant?: string;
  readonly roles: readonly string[];
  readonly scope: readonly string[];
  /** Seconds since the epoch. */
  readonly authTime?: number;
  /** The same in ms, where the app is that exact; else the last ms of that second. Orders logins against what has ended. */
  readonly authTimeMs?: number;
}

/** The principal of a token that is about to be signed; `scope` may be less than the identity's. */
export function tokenPrincipal({ subject, tenant, roles, authTime }: Identity, token: Pick<Principal, 'sid' | 'client' | 'scope'>): Principal {
  return {
    subject,
    roles,
    ...token,
    via: 'jwt',
    ...(tenant === undefined ? {} : { tenant }),
    ...(authTime === undefined ? {} : { authTime }),
  };
}

/** Why a credential that was presented is not one. Literal values: they stand in logs, metrics and `ctx.state.rejection`. */
export type SessionRejection = keyof typeof SESSION_REJECTIONS;
export type BearerRejection = keyof typeof BEARER_REJECTIONS;

/** Why a cookie is no credential, from the first thing that is looked at to the last. `docs/errors.md` lists the same. */
export const SESSION_REJECTIONS = {
  'bad-id': 'what stands in the cookie is no session id',
  'bad-signature': 'no configured secret made its signature',
  'unknown-session': 'there is no such record, or something of another type; or the app that was asked knows nobody by it',
  'unreadable-record': 'what is there is no session record',
  expired: 'the record is past its end',
  'nobody-logged-in': 'the mapping found no subject',
  'logged-out': 'this login was ended; a record that is found all the same was written by a request that came too late',
  'unmappable-record': 'a mapped value is of a type that it must not be',
} as const satisfies Record<string, string>;

/** Why a bearer is none: all but `foreign` are 401. `docs/errors.md` lists the same. */
export const BEARER_REJECTIONS = {
  malformed: 'three parts, but not spelled as a token of ours can be, or without an issuer',
  'too-large': 'over 8 KiB',
  'bad-algorithm': 'an algorithm that is not accepted, or not that of its key',
  'bad-type': 'its `typ` is not `at+jwt`',
  'bad-kid': 'its `kid` is not of the form that a `kid` has',
  'bad-header': 'members in the header that do not belong there, such as a key of its own',
  'bad-issuer': 'another issuer under a `kid` of ours',
  'bad-audience': 'made for somebody else',
  'bad-claims': 'a claim is missing, of a wrong type or absurd',
  expired: 'past its `exp`',
  'not-yet-valid': '`iat` or `nbf` lie ahead by more than the skew',
  'unknown-kid': 'no key of this `kid`, and the key ring is sure of itself',
  'revoked-kid': 'its key was taken out of use by an operator',
  'bad-signature': 'the signature does not verify',
  revoked: 'its session, its family or its person was ended',
  foreign: "somebody else's token; `bearer.foreign` says whether it passes",
} as const satisfies Record<string, string>;
