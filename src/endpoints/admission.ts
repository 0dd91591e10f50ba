import { CrossfadeError } from '../errors.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { Tools } from '../telemetry/tools.js';
import { tellSpan } from '../telemetry/tracing.js';
import type { Answers } from './answer.js';
import type { Authenticate, Authenticated, Authentication } from './authenticator.js';
import type { Nudge } from './nudge.js';
import type { Now, Reply, RequestHead } from './reply.js';
import type { CrossfadeState } from './state.js';

/** Whether a request goes on to the app's handlers; `answered`: no handler may. */
export type Admitted = Exclude<Authentication, { kind: 'refused' }> | { readonly kind: 'answered'; readonly reply: Reply };

/** What middleware needs: before the handler, after it, and where it has failed. */
export interface Admission {
  /** Counts the request. At once, where nobody has to be asked. Never throws or rejects. */
  admit(head: RequestHead): Now<Admitted>;
  nudge: Nudge;
  /** Counts a 401 of the app's handlers to a request with a good token. */
  refusedBehind(found: Authenticated): void;
  /** The answer for what a handler threw: where the bridge's own store or functions cannot do their work. Undefined: it is the app's own error. */
  failedBehind(error: unknown): Reply | undefined;
}

export interface AdmissionOptions extends Pick<Tools, 'log' | 'metrics'> {
  readonly authenticate: Authenticate;
  readonly answers: Answers;
  readonly nudge: Nudge;
}

/** How often the log says that the app refuses whom the bridge knows. */
const TELL_AGAIN_MS = 60_000;

export function createAdmission({ authenticate, answers, nudge, metrics, log }: AdmissionOptions): Admission {
  let refusedBehind = 0;
  let toldAt = Number.NEGATIVE_INFINITY;

  function cannotKnow(error: unknown): Admitted {
    metrics.requests.count('unknown', 'unavailable', 'unknown');
    return { kind: 'answered', reply: answers.fail(error) };
  }

  function judge(found: Authentication): Admitted {
    countRequest(metrics, found);
    return found.kind === 'refused' ? { kind: 'answered', reply: answers.refuse(found.refusal) } : found;
  }

  return {
    admit(head) {
      try {
        const found = authenticate(head);
        return found instanceof Promise ? found.then(judge, cannotKnow) : judge(found);
      } catch (error) {
        return cannotKnow(error);
      }
    },
    nudge,
    refusedBehind({ client }) {
      metrics.refusedBehind.inc({ client: client.config ? client.id : 'unknown' });
      refusedBehind += 1;
      if (performance.now() - toldAt < TELL_AGAIN_MS) return;
      toldAt = performance.now();
      log.warn(
        { requests: refusedBehind },
        'handlers of the app answer 401 to requests with a good token: give koa-session the store and the external key of the bridge, or let them read the principal that the bridge found (docs/tokens.md, "Handlers that read ctx.session")',
      );
      refusedBehind = 0;
    },
    failedBehind: (error) => (error instanceof CrossfadeError && error.code === 'temporarily_unavailable' ? answers.fail(error) : undefined),
  };
}

/** What is left for the app's handlers. */
export function noteIn(state: CrossfadeState, found: Exclude<Admitted, { kind: 'answered' }>): void {
  if (found.kind === 'authenticated') state.principal = found.principal;
  else if (found.rejection) state.rejection = found.rejection;
}

/** In the metrics, and on the span of the request where it has one. */
export function countRequest(metrics: Metrics, found: Authentication): void {
  const credential = found.kind === 'authenticated' ? found.principal.via : found.kind === 'anonymous' ? 'none' : 'refused';
  const outcome = found.kind === 'refused' ? found.refusal.code : found.kind;
  metrics.requests.count(credential, outcome, found.client.config ? found.client.id : 'unknown');
  tellSpan(() => ({
    'crossfade.credential': credential,
    'crossfade.outcome': outcome,
    'crossfade.client': found.client.id,
    ...(found.kind === 'authenticated'
      ? { 'crossfade.cohort': found.decision.cohort, 'crossfade.stage': found.decision.stage, 'crossfade.reason': found.decision.reason }
      : {}),
  }));
}
