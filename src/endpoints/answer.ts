import { CrossfadeError, ERRORS, type ErrorCode } from '../errors.js';
import type { Progress } from '../rollout/progress.js';
import { traceOf } from '../telemetry/log.js';
import type { Tools } from '../telemetry/tools.js';
import { jsonReply, type Reply } from './reply.js';

/** An answer that is not the one that was asked for. Plain: the request path makes no Error object for a 401. */
export interface Refusal {
  readonly code: ErrorCode;
  /** For the client: `error_description` (RFC 6749, section 5.2). */
  readonly description?: string;
  readonly details?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Answers {
  refuse(refusal: Refusal): Reply;
  /** What was thrown: a CrossfadeError as what it is, anything else as a bare 500 with its cause in the log. */
  fail(error: unknown): Reply;
}

export interface AnswersOptions extends Pick<Tools, 'log' | 'metrics'> {
  readonly progress: Pick<Progress, 'count'>;
  /** 0 ≤ x < 1, to spread `Retry-After`. */
  readonly fraction: () => number;
  readonly nowMs: () => number;
}

/** The one mapper between codes and the wire. */
export function createAnswers({ log, metrics, progress, fraction, nowMs }: AnswersOptions): Answers {
  const loggedAt = new Map<string, number>();

  /** Spread, so that all who were refused do not come back in the same second. */
  function retryAfter({ reason = 'unknown' }: Readonly<Record<string, string>>): string {
    metrics.unavailable.inc({ reason });
    progress.count('refused', `503:${reason}`, 'unknown');
    return String(1 + Math.floor(fraction() * 10));
  }

  function refuse({ code, description, details = NO_DETAILS, headers }: Refusal): Reply {
    const challenge = challengeFor(code, details);
    const list = ['Cache-Control', 'no-store'];
    if (code === 'temporarily_unavailable') list.push('Retry-After', retryAfter(details));
    if (challenge !== undefined) list.push('WWW-Authenticate', challenge);
    if (headers) for (const [name, value] of Object.entries(headers)) list.push(name, value);
    const body = { error: wireCode(code), ...(description === undefined ? {} : { error_description: description }), ...details };
    return jsonReply(ERRORS[code].status, body, list);
  }

  /** Once a second and reason: an outage under load is one story, not one for each request; the metric counts them all. */
  function logUnavailable({ details, cause }: CrossfadeError): void {
    const reason = details['reason'] ?? 'unknown';
    const now = nowMs();
    if (now - (loggedAt.get(reason) ?? Number.NEGATIVE_INFINITY) < 1000) return;
    loggedAt.set(reason, now);
    log.warn({ reason, ...(cause === undefined ? {} : { err: cause }) }, 'requests are answered 503');
  }

  return {
    refuse,
    fail(error) {
      if (error instanceof CrossfadeError) {
        if (error.code === 'temporarily_unavailable') logUnavailable(error);
        const own = error.message !== ERRORS[error.code].meaning;
        return refuse({ code: error.code, details: error.details, headers: error.headers, ...(own ? { description: error.message } : {}) });
      }
      log.error({ failure: traceOf(error) }, 'a request failed in a way that nobody foresaw');
      return jsonReply(500, { error: 'server_error' }, ['Cache-Control', 'no-store']);
    },
  };
}

const NO_DETAILS: Readonly<Record<string, string>> = {};

function wireCode(code: ErrorCode): string {
  if (code === 'forbidden_origin' || code === 'forbidden_host' || code === 'payload_too_large') return 'invalid_request';
  return code;
}

/** RFC 6750, section 3: a bare challenge where no credential came, with the error where a bad one did. */
function challengeFor(code: ErrorCode, details: Readonly<Record<string, string>>): string | undefined {
  switch (code) {
    case 'missing_credential':
    case 'session_not_accepted':
      return 'Bearer';
    case 'invalid_token':
      return 'Bearer error="invalid_token"';
    case 'insufficient_scope':
      return `Bearer error="insufficient_scope", scope="${details['scope'] ?? ''}"`;
    case 'invalid_client':
      return 'Basic realm="crossfade"';
    default:
      return undefined;
  }
}
