/** Who a request is, whichever credential said so. Handlers read it from `ctx.state.principal`. */
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

/** What a mapping, by paths or by a function, makes of a session record. */
export interface Identity {
  readonly subject: string;
  readonly tenant?: string;
  readonly roles: readonly string[];
  readonly scope: readonly string[];
  /** Seconds since the epoch. */
  readonly authTime?: number;
}

/** Why a credential that was presented is not one. Literal values: they stand in logs, metrics and `ctx.state.rejection`. */
export type SessionRejection =
  | 'bad-signature'
  | 'bad-id'
  | 'unknown-session'
  | 'expired'
  | 'unreadable-record'
  | 'nobody-logged-in'
  | 'unmappable-record';

export type BearerRejection =
  | 'malformed'
  | 'too-large'
  | 'bad-header'
  | 'bad-algorithm'
  | 'bad-type'
  | 'bad-kid'
  | 'unknown-kid'
  | 'bad-issuer'
  | 'bad-audience'
  | 'bad-claims'
  | 'expired'
  | 'not-yet-valid'
  | 'bad-signature'
  | 'foreign';
