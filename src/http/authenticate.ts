import type { OutgoingHttpHeaders } from 'node:http';
import type { Context, Middleware, Next } from 'koa';
import { CrossfadeError } from '../errors.js';
import type { Rollout } from '../rollout/rollout.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { Tools } from '../telemetry/tools.js';
import { tellSpan } from '../telemetry/tracing.js';
import type { Answers } from './answer.js';
import { type Authenticate, type Authentication, migrationHeader } from './authenticator.js';
import type { IsOwnRequest } from './own-paths.js';

export interface AuthenticateOptions extends Pick<Tools, 'log' | 'metrics'> {
  readonly authenticate: Authenticate;
  readonly answers: Answers;
  readonly rollout: Rollout;
  readonly exchangeUri: string;
  readonly returnUri: string;
  /** Whether a request is for one of the bridge's own endpoints, which judge credentials by themselves. */
  readonly isOwn: IsOwnRequest;
}

/** How often the log says that the app refuses whom the bridge knows. */
const TELL_AGAIN_MS = 60_000;

/** Middleware that puts the principal into `ctx.state`, or answers where no handler may: 400, 401, 503. */
export function createAuthenticate(options: AuthenticateOptions): Middleware {
  const { authenticate, answers, metrics, log, isOwn } = options;
  let refusedBehind = 0;
  let toldAt = Number.NEGATIVE_INFINITY;

  function cannotKnow(ctx: Context, error: unknown): void {
    metrics.requests.count('unknown', 'unavailable', 'unknown');
    answers.fail(ctx, error);
  }

  /** Counts a 401 of the app's handlers to a request with a good token. */
  function noteRefusedBehind({ client }: Extract<Authentication, { kind: 'authenticated' }>): void {
    metrics.refusedBehind.inc({ client: client.config ? client.id : 'unknown' });
    refusedBehind += 1;
    if (performance.now() - toldAt < TELL_AGAIN_MS) return;
    toldAt = performance.now();
    log.warn(
      { requests: refusedBehind },
      'handlers of the app answer 401 to requests with a good token: give koa-session the store and the external key of the bridge, or let them read ctx.state.principal (docs/tokens.md, "Handlers that read ctx.session")',
    );
    refusedBehind = 0;
  }

  function goOn(ctx: Context, next: Next, found: Authentication): void | Promise<void> {
    countRequest(metrics, found);
    if (found.kind === 'refused') {
      answers.refuse(ctx, found.refusal);
      return;
    }
    if (found.kind === 'anonymous') {
      if (found.rejection) ctx.state.rejection = found.rejection;
    } else ctx.state.principal = found.principal;
    const before = ctx.res.getHeaders();
    const failed = (error: unknown) => failBehind(ctx, error, before);
    if (found.kind !== 'authenticated') return next().catch(failed);
    const nudges = found.decision.rules.nudge !== undefined;
    if (found.principal.via === 'session') return nudges ? next().then(() => nudge(ctx, found, options), failed) : next().catch(failed);
    return next().then(
      () => {
        if (nudges) nudge(ctx, found, options);
        if (ctx.status === 401) noteRefusedBehind(found);
      },
      (error: unknown) => {
        if (isRefusal(error)) noteRefusedBehind(found);
        failed(error);
      },
    );
  }

  /** What the bridge's own store or functions cannot do right now, behind the app's handlers. */
  function failBehind(ctx: Context, error: unknown, before: Readonly<OutgoingHttpHeaders>): void {
    if (!(error instanceof CrossfadeError) || error.code !== 'temporarily_unavailable' || ctx.headerSent) throw error;
    // What the handler meant to answer is not what happened: its cookies least of all.
    for (const name of ctx.res.getHeaderNames()) ctx.remove(name);
    for (const [name, value] of Object.entries(before)) if (value !== undefined) ctx.res.setHeader(name, value);
    answers.fail(ctx, error);
  }

  return function crossfadeAuthenticate(ctx: Context, next: Next): void | Promise<void> {
    if (isOwn(ctx)) return next();
    let found: Authentication | Promise<Authentication>;
    try {
      found = authenticate(ctx.req);
    } catch (error) {
      return cannotKnow(ctx, error);
    }
    if (!(found instanceof Promise)) return goOn(ctx, next, found);
    return found.then(
      (known) => goOn(ctx, next, known),
      (error: unknown) => cannotKnow(ctx, error),
    );
  };
}

/** What `ctx.throw(401)` throws. */
function isRefusal(error: unknown): boolean {
  return error instanceof Error && 'status' in error && error.status === 401;
}

/** Tells a client that could do what its stage asks for to do so: exchange its session, or return to it. */
export function nudge(
  ctx: Context,
  { principal, client, decision: { rules, stage }, staysSession }: Extract<Authentication, { kind: 'authenticated' }>,
  { rollout, metrics, exchangeUri, returnUri }: Pick<AuthenticateOptions, 'rollout' | 'metrics' | 'exchangeUri' | 'returnUri'>,
): void {
  const forward = rules.nudge === 'forward' && principal.via === 'session' && client.exchanges && !staysSession;
  const back = rules.nudge === 'back' && principal.via === 'jwt' && client.config?.wayBack === true;
  if ((!forward && !back) || ctx.headerSent || !rollout.mayNudge()) return;
  metrics.nudges.inc({ client: client.id });
  ctx.set('Auth-Migration', forward ? migrationHeader(stage, 'exchange', exchangeUri) : migrationHeader(stage, 'return', returnUri));
  // A stored answer would repeat the nudge for as long as it is revalidated: a 304 leaves stored headers as they are (RFC 9111, section 4.3.4).
  ctx.set('Cache-Control', 'no-store');
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
