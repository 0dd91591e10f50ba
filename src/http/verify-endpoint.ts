import type { Context } from 'koa';
import { after } from '../after.js';
import type { Principal } from '../principal.js';
import type { Rollout } from '../rollout/rollout.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { UpstreamTokens } from '../tokens/upstream.js';
import type { Answers, Refusal } from './answer.js';
import { countRequest, nudge } from './authenticate.js';
import type { Authenticate, Authentication } from './authenticator.js';
import { header, type Peers } from './peer.js';
import type { ReadVerifySettings, VerifySettings } from './verify-settings.js';

export interface VerifyEndpointOptions {
  readonly authenticate: Authenticate;
  readonly answers: Answers;
  readonly readSettings: ReadVerifySettings;
  readonly upstream: UpstreamTokens;
  readonly peers: Pick<Peers, 'trusts'>;
  readonly rollout: Rollout;
  readonly metrics: Metrics;
  readonly exchangeUri: string;
  readonly returnUri: string;
}

/**
 * Forward-auth: says who a request is, in headers and with an empty body, to nginx, Caddy, Traefik and Envoy. 200, 401,
 * 403 or 503 and never anything else: nginx turns other statuses into 500. The method does not matter.
 */
export function createVerifyEndpoint(options: VerifyEndpointOptions): (ctx: Context) => void | Promise<void> {
  const { authenticate, answers, readSettings, upstream, peers, metrics } = options;

  function fail(ctx: Context, error: unknown): void {
    metrics.requests.count('unknown', 'unavailable', 'unknown');
    setIdentity(ctx, undefined, '');
    answers.fail(ctx, error);
    if (ctx.status !== 503) answers.refuse(ctx, { code: 'temporarily_unavailable', details: { reason: 'mapping' } });
  }

  function answer(ctx: Context, found: Authentication, settings: VerifySettings): void | Promise<void> {
    countRequest(metrics, found);
    switch (found.kind) {
      case 'refused':
        return refuse(ctx, found.refusal);
      case 'anonymous':
        // Whoever needs a scope needs somebody who has it.
        if (settings.anonymous === 'deny' || settings.scope.length > 0) return refuse(ctx, { code: 'missing_credential' });
        return allow(ctx, undefined, settings.service?.upstream === 'jwt' ? '' : header(ctx.req, 'authorization'));
      case 'authenticated': {
        const { principal } = found;
        if (!settings.scope.every((token) => principal.scope.includes(token)))
          return refuse(ctx, { code: 'insufficient_scope', details: { scope: settings.scope.join(' ') } });
        if (settings.service?.upstream === 'jwt') return allowUpstream(ctx, found, settings.service);
        allow(ctx, found, header(ctx.req, 'authorization'));
        return nudge(ctx, found, options);
      }
    }
  }

  /** The service sees a token of its own in `Authorization`, whatever the client sent. */
  async function allowUpstream(ctx: Context, source: Authenticated, service: { readonly id: string; readonly audience: string }): Promise<void> {
    const asks = peers.trusts(ctx.req);
    const token = asks ? await upstream.tokenFor(source, service) : undefined;
    allow(ctx, source, token === undefined ? undefined : `Bearer ${token}`);
    if (asks) ctx.set('X-Auth-Upstream', token === undefined ? 'unavailable' : 'jwt');
    nudge(ctx, source, options);
  }

  /** A malformed request has no 400 here. */
  function refuse(ctx: Context, refusal: Refusal): void {
    setIdentity(ctx, undefined, '');
    answers.refuse(ctx, refusal);
    if (refusal.code === 'invalid_request') {
      ctx.status = 401;
      ctx.set('WWW-Authenticate', 'Bearer error="invalid_request"');
    }
  }

  return function verifyEndpoint(ctx) {
    try {
      const settings = readSettings(ctx.req);
      const answered = after(authenticate(ctx.req, settings.service?.audience), (found) => answer(ctx, found, settings));
      return answered instanceof Promise ? answered.catch((error: unknown) => fail(ctx, error)) : answered;
    } catch (error) {
      fail(ctx, error);
    }
  };
}

type Authenticated = Extract<Authentication, { kind: 'authenticated' }>;

/** For `mode: observe`: 200 for everybody, and nobody named. */
export function allowAnybody(ctx: Context): void {
  allow(ctx, undefined, header(ctx.req, 'authorization'));
}

/** `authorization` always stands there, as the identity headers do: a proxy overwrites with it what the client sent. */
function allow(ctx: Context, found: Pick<Authenticated, 'principal' | 'decision'> | undefined, authorization = ''): void {
  setIdentity(ctx, found?.principal, found?.decision.stage ?? '');
  ctx.set('Authorization', authorization);
  ctx.status = 200;
  ctx.body = '';
  ctx.remove('Content-Type');
}

/** What a proxy copies to the service behind it, beside `Authorization`. */
export const IDENTITY_HEADERS = [
  'X-Auth-Subject',
  'X-Auth-Tenant',
  'X-Auth-Client',
  'X-Auth-Roles',
  'X-Auth-Scope',
  'X-Auth-Via',
  'X-Auth-Stage',
  'X-Auth-Upstream',
] as const;

/** Always all of them, empty where nothing is known: a proxy that copies one that is missing passes on the client's own. */
function setIdentity(ctx: Context, principal: Principal | undefined, stage: string): void {
  const values: Readonly<Record<(typeof IDENTITY_HEADERS)[number], string>> = {
    'X-Auth-Subject': encodeURIComponent(principal?.subject ?? ''),
    'X-Auth-Tenant': encodeURIComponent(principal?.tenant ?? ''),
    'X-Auth-Client': encodeURIComponent(principal?.client ?? ''),
    'X-Auth-Roles': (principal?.roles ?? []).map(encodeURIComponent).join(' '),
    'X-Auth-Scope': (principal?.scope ?? []).map(encodeURIComponent).join(' '),
    'X-Auth-Via': principal?.via ?? '',
    'X-Auth-Stage': stage,
    'X-Auth-Upstream': '',
  };
  for (const name of IDENTITY_HEADERS) ctx.set(name, values[name]);
  ctx.set('Cache-Control', 'no-store');
}
