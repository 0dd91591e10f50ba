import type { Log, LogLevel } from './log.js';

/** The longest reason that an operator may give, in characters. */
export const MAX_WHY = 200;

/** Every audit event, and when it is written. `docs/events.md` lists the same; a test holds the two together. */
export const AUDIT_EVENTS = {
  'exchange.granted': 'A session was exchanged for an access token.',
  'exchange.refused': 'An exchange was refused: by the request, the client, the stage, or because signing is broken.',
  'refresh.granted': 'A refresh token was exchanged for another one and an access token.',
  'refresh.refused': 'A refresh was refused: by the request, the client, the stage, or because the family or its session has ended.',
  'return.granted': 'A refresh token was exchanged for a session cookie; `restored` says whether the session had to be made anew.',
  'return.refused': 'A return was refused: by the request, the client, the stage, or because the family or its session has ended.',
  'tokens.issued': 'Tokens were issued for a login that the app did without a session.',
  'tokens.refused': 'Tokens were not issued at a login, or a revocation or introspection was refused.',
  'family.revoked':
    'A family of refresh tokens was ended by itself: by its client, because a used token came again (`reused`), or because its session went while it was made.',
  'family.caught-up':
    'A refresh token was newer than what Redis knew: Redis has lost a write, and the family goes on from it. `lost` says how many rotations.',
  'family.returned': 'A family has returned to its session, and is closed.',
  'session.ended': 'A session was ended, and everything that was made from it; `reason` says how it came to our knowledge.',
  'logout.incomplete':
    'A logout by token did not find the record: Redis has lost where it is. Its cookie opens nothing, and is deleted when it comes.',
  'session.vanished':
    'Records are gone without having ended, and not by a logout: eviction, a flush, a restart, very many at once. Nobody was logged out by it.',
  'person.ended': 'All sessions and tokens of a person were ended.',
  'operator.refused': "A request to the operators' API was refused: its token, its `Host`, or what it asked for.",
  'limit.reached': 'A request was answered 429.',
  'events.restored': 'Redis came back without the event stream; this instance has written again what it knew.',
  'ends.rewritten':
    'After a change of the Redis node, or a lost write, this instance has written again which sessions, families and persons have ended.',
  'request.late': 'A request was answered 503 because Redis took too long in all; what it had begun was finished after that, with `outcome`.',
  'origin.refused': 'The origin check refused a POST that reads or may set a cookie.',
  'principal.conflict': 'One request carried credentials of two principals.',
  'session.answered': 'A bearer could not be verified because keys are in doubt; the cookie of the same session answered for it.',
  'key.accepted': 'A key file passed every self-test and joined the key ring.',
  'key.rejected': 'A key file was refused; the ring stays as it was.',
  'key.activated': 'Another key signs from now on.',
  'key.denied': 'A key was taken out of use for good: revoked because it has leaked, or retired.',
  'key.forced': 'An operator lets a key sign although not every live instance verifies it.',
  'fleet.joined': 'Another instance has appeared on this Redis.',
  'fleet.left': 'An instance was not heard of for 15 seconds, or has ended.',
  'stage.clamped': 'A clamp was set: by an operator, or by the guardrail.',
  'stage.released': 'A clamp was released: by an operator, or because its time was over.',
  'guardrail.tripped': 'The bridge failed a cohort by its own fault, past the budget; the cohort is held at `session-only`.',
  'instance.held': 'This instance fails a cohort by its own fault where another instance serves it well: it answers exchange and refresh 503.',
  'instance.released': 'An instance that was held goes on: after a clean self-test, or by an operator.',
  'signing.changed': 'Signing health went from one state to another.',
  'secret.changed':
    'A file with secrets has changed, and what it holds is in use: Redis credentials, cookie secrets, the token of the operators, client secrets.',
  'secret.rejected': 'A file with secrets has changed and cannot be used; what it held before stays in force.',
  'secret.dropped': '`secretsFile` has lost a cookie secret, which goes on verifying for `keepDroppedSecretSeconds`.',
  'secret.restored': 'A cookie secret is in use again: the line `-` before it is gone.',
  'secret.ended': 'A cookie secret was taken out of use at once: by an operator, or by the line `-` of its file.',
  'fleet.secret-activated': 'Another fleet secret writes from now on: every live instance opens it.',
  'fleet.secret-rewritten': 'This instance has written under the new fleet secret what decides and what has ended.',
  'fleet.secret-denied': 'A fleet secret is out of use for good: finished because nothing was left under it, or revoked because it has leaked.',
  'start.forced': 'An operator lets this instance act although it skips a release, or although Redis holds what it cannot open.',
  'flags.changed': 'The flag source delivered other flags.',
  'flags.failed': 'The flag source cannot be used; the last known flags stay in force.',
  'value.refused': 'A value in Redis that decides about something failed its check and counts as absent (law 10).',
} as const satisfies Record<string, string>;

export type AuditEvent = keyof typeof AUDIT_EVENTS;

/** Names and counts only: ids from the config, codes, `sid`, `kid`. Never a token, a cookie or a claim. */
export type AuditFields = Readonly<Record<string, string | number | boolean | undefined>>;

export type Audit = (event: AuditEvent, fields?: AuditFields) => void;

/** What somebody should look at, soon or at once. All other events are what the bridge is there for. */
const LEVELS: Readonly<Partial<Record<AuditEvent, 'warn' | 'error'>>> = {
  'logout.incomplete': 'warn',
  'session.vanished': 'warn',
  'operator.refused': 'warn',
  'events.restored': 'warn',
  'ends.rewritten': 'warn',
  'request.late': 'warn',
  'key.rejected': 'error',
  'key.forced': 'warn',
  'guardrail.tripped': 'error',
  'instance.held': 'error',
  'secret.rejected': 'error',
  'fleet.secret-denied': 'warn',
  'start.forced': 'warn',
  'flags.failed': 'error',
  'value.refused': 'error',
};

/** The level of the line that an event is. Of `signing.changed` it is that of the state which is entered. */
export function levelOf(event: AuditEvent, { to }: AuditFields = {}): LogLevel {
  if (event === 'signing.changed') return to === 'broken' ? 'error' : to === 'degraded' ? 'warn' : 'info';
  return LEVELS[event] ?? 'info';
}

export function createAudit(log: Log): Audit {
  return function audit(event, fields = {}) {
    log[levelOf(event, fields)]({ audit: event, ...fields }, event);
  };
}
