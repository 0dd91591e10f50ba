/**
 * Every code that Crossfade answers or throws with, its HTTP status and what it means.
 * `docs/errors.md` lists the same; a test holds the two together.
 */
export const ERRORS = {
  invalid_request: { status: 400, meaning: 'The request is malformed, or its credentials contradict each other (RFC 6749, section 5.2).' },
  invalid_client: { status: 401, meaning: 'Client authentication failed (RFC 6749, section 5.2).' },
  invalid_grant: { status: 400, meaning: 'The refresh token is bad, has expired, was ended, or belongs to another client (RFC 6749, section 5.2).' },
  invalid_scope: { status: 400, meaning: 'More scope was asked for than the session has (RFC 6749, section 5.2).' },
  invalid_target: { status: 400, meaning: 'No such audience or resource is registered (RFC 8693, section 2.2.2).' },
  unauthorized_client: { status: 400, meaning: 'This client may not do that, or not at its current stage; `stage` and `reason` say which.' },
  unsupported_grant_type: { status: 400, meaning: 'The grant type is not one of this token endpoint (RFC 6749, section 5.2).' },
  invalid_token: { status: 401, meaning: 'The bearer token is bad: the bridge knows, and the cookie is not asked (RFC 6750, section 3.1).' },
  missing_credential: { status: 401, meaning: 'The route needs a principal and the request is anonymous.' },
  session_not_accepted: { status: 401, meaning: 'At `jwt-only` the session must be exchanged first; `exchange_uri` says where.' },
  insufficient_scope: { status: 403, meaning: 'The principal lacks a scope that the route requires (RFC 6750, section 3.1).' },
  forbidden_origin: { status: 403, meaning: 'The origin check refused the request; on the wire it is `invalid_request` with status 403.' },
  too_many_requests: { status: 429, meaning: 'A limit was reached; `Retry-After` says for how long.' },
  forbidden_host: { status: 403, meaning: "The operators' API does not answer to this `Host`; on the wire it is `invalid_request` with status 403." },
  not_found: { status: 404, meaning: "There is nothing at this path of the operators' API." },
  method_not_allowed: { status: 405, meaning: 'Another method is taken there; `Allow` says which.' },
  payload_too_large: { status: 413, meaning: 'The body is over 16 KiB.' },
  temporarily_unavailable: { status: 503, meaning: 'The bridge cannot know right now: keep what you hold and try again after `Retry-After`.' },
  config_invalid: { status: 500, meaning: 'The configuration has problems; each is listed with its path. Stops the start.' },
  config_unreadable: { status: 500, meaning: 'The configuration file cannot be read or is not YAML or JSON. Stops the start.' },
} as const satisfies Record<string, { status: number; meaning: string }>;

export type ErrorCode = keyof typeof ERRORS;

/** Why a request got 503: what the bridge was waiting for. */
export type UnavailableReason =
  | 'redis'
  | 'keys'
  | 'revocations'
  | 'signing'
  | 'mapping'
  | 'whoami'
  | 'settings'
  | 'clock'
  | 'held'
  | 'family'
  | 'secret'
  | 'release';

/** What is told of a refusal beside its code: `reason` in the answer's body. */
export type TypedReason = UnavailableReason | 'token-too-large';

export interface CrossfadeErrorOptions {
  /** For the client's eyes: never a secret, never a value out of a session or token. */
  readonly message?: string;
  readonly reason?: TypedReason | undefined;
  /** Members that stand beside `error` in the answer's body. */
  readonly details?: Readonly<Record<string, string>>;
  /** Response headers that belong to the answer. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Why, in a word, for the audit alone: the client is not told. */
  readonly auditReason?: string | undefined;
  readonly cause?: unknown;
}

/** The one error class. `code` is literal, `status` is the HTTP status that it is answered with. */
export class CrossfadeError extends Error {
  readonly code: ErrorCode;
  readonly status: number;
  readonly details: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  /** With 503: what the bridge was waiting for. */
  readonly reason: TypedReason | undefined;
  readonly auditReason: string | undefined;

  constructor(code: ErrorCode, options: CrossfadeErrorOptions = {}) {
    super(options.message ?? ERRORS[code].meaning, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'CrossfadeError';
    this.code = code;
    this.status = ERRORS[code].status;
    this.reason = options.reason;
    this.details = { ...options.details, ...(options.reason === undefined ? {} : { reason: options.reason }) };
    this.headers = options.headers ?? {};
    this.auditReason = options.auditReason;
  }
}

/** The answer to "cannot know" (law 1). */
export function unavailable(reason: UnavailableReason, cause?: unknown): CrossfadeError {
  return new CrossfadeError('temporarily_unavailable', { reason, cause });
}

/** What the system calls a failure: `ENOENT`, `EADDRINUSE`. */
export function errnoOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown error';
}
