import type { Context } from 'koa';
import type { Config } from '../config/config.js';
import type { Principal } from '../principal.js';
import type { Rollout } from '../rollout/rollout.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { Answers, Refusal } from './answer.js';
import { countRequest, nudge } from './authenticate.js';
import type { Authenticate } from './authenticator.js';

export interface VerifyEndpointOptions {
  readonly authenticate: Authenticate;
  readonly answers: Answers;
  readonly anonymous: Config['verify']['anonymous'];
  readonly rollout: Rollout;
  readonly metrics: Metrics;
  readonly exchangeUri: string;
  readonly returnUri: string;
}

/**
 * Forward-auth: says who a request is, in headers and with an empty body, to nginx, Caddy, Traefik and Envoy. 200, 401,
 * 403 or 503 and never anything else: nginx turns other statuses into 500. The method does not matter.
 */
export function createVerifyEndpoint(options: VerifyEndpointOptions): (ctx: Context) => Promise<void> {
  const { authenticate, answers, anonymous, metrics } = options;

  return async function verifyEndpoint(ctx) {
    setIdentity(ctx, undefined, '');
    ctx.set('Cache-Control', 'no-store');
    try {
      const found = await authenticate(ctx.req);
      countRequest(metrics, found);
      if (found.kind === 'refused') refuse(ctx, found.refusal);
      else if (found.kind === 'authenticated') {
        setIdentity(ctx, found.principal, found.decision.stage);
        allow(ctx);
        nudge(ctx, found, options);
      } else if (anonymous === 'allow') allow(ctx);
      else refuse(ctx, { code: 'missing_credential' });
    } catch (error) {
      metrics.requests.inc({ credential: 'unknown', outcome: 'unavailable', client: 'unknown' });
      answers.fail(ctx, error);
      if (ctx.status !== 503) answers.refuse(ctx, { code: 'temporarily_unavailable', details: { reason: 'mapping' } });
    }
  };

  /** A malformed request has no 400 here. */
  function refuse(ctx: Context, refusal: Refusal): void {
    answers.refuse(ctx, refusal);
    if (refusal.code === 'invalid_request') {
      ctx.status = 401;
      ctx.set('WWW-Authenticate', 'Bearer error="invalid_request"');
    }
  }
}

/** For `mode: observe`: 200 for everybody, and nobody named. */
export function allowAnybody(ctx: Context): void {
  setIdentity(ctx, undefined, '');
  ctx.set('Cache-Control', 'no-store');
  allow(ctx);
}

function allow(ctx: Context): void {
  ctx.status = 200;
  ctx.body = '';
  ctx.remove('Content-Type');
}

/** Always all of them, empty where nothing is known: a proxy that copies one that is missing passes on the client's own. */
function setIdentity(ctx: Context, principal: Principal | undefined, stage: string): void {
  ctx.set({
    'X-Auth-Subject': encodeURIComponent(principal?.subject ?? ''),
    'X-Auth-Tenant': encodeURIComponent(principal?.tenant ?? ''),
    'X-Auth-Client': encodeURIComponent(principal?.client ?? ''),
    'X-Auth-Roles': (principal?.roles ?? []).map(encodeURIComponent).join(' '),
    'X-Auth-Scope': (principal?.scope ?? []).map(encodeURIComponent).join(' '),
    'X-Auth-Via': principal?.via ?? '',
    'X-Auth-Stage': stage,
    'X-Auth-Upstream': '',
  });
}
