import type { Log } from './log.js';

/** Every audit event, and when it is written. `docs/events.md` lists the same; a test holds the two together. */
export const AUDIT_EVENTS = {
  'exchange.granted': 'A session was exchanged for an access token.',
  'exchange.refused': 'An exchange was refused: by the request, the client, the stage, or because signing is broken.',
  'origin.refused': 'The origin check refused a POST that reads or may set a cookie.',
  'principal.conflict': 'One request carried credentials of two principals.',
  'session.answered': 'A bearer could not be verified because keys are in doubt; the cookie of the same session answered for it.',
  'key.accepted': 'A key file passed every self-test and joined the key ring.',
  'key.rejected': 'A key file was refused; the ring stays as it was.',
  'key.activated': 'Another key signs from now on.',
  'signing.changed': 'Signing health went from one state to another.',
  'flags.changed': 'The flag source delivered other flags.',
  'flags.failed': 'The flag source cannot be used; the last known flags stay in force.',
  'value.refused': 'A value in Redis that decides about keys or flags failed its check and counts as absent (law 10).',
} as const satisfies Record<string, string>;

export type AuditEvent = keyof typeof AUDIT_EVENTS;

/** Names and counts only: ids from the config, codes, `sid`, `kid`. Never a token, a cookie or a claim. */
export type AuditFields = Readonly<Record<string, string | number | boolean | undefined>>;

export type Audit = (event: AuditEvent, fields?: AuditFields) => void;

export function createAudit(log: Log): Audit {
  return function audit(event, fields = {}) {
    log.info({ audit: event, ...fields }, event);
  };
}
