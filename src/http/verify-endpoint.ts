import type { Context } from 'koa';
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
export function createVerifyEndpoint(options: VerifyEndpointOptions): (ctx: Context) => Promise<void> {
  const { authenticate, answers, readSettings, upstream, peers, metrics } = options;

  return async function verifyEndpoint(ctx) {
    setIdentity(ctx, undefined, '');
    ctx.set('Cache-Control', 'no-store');
    try {
      const settings = readSettings(ctx.req);
      const found = await authenticate(ctx.req, settings.service?.audience);
      countRequest(metrics, found);
      await answer(ctx, found, settings);
    } catch (error) {
      metrics.requests.inc({ credential: 'unknown', outcome: 'unavailable', client: 'unknown' });
      answers.fail(ctx, error);
      if (ctx.status !== 503) answers.refuse(ctx, { code: 'temporarily_unavailable', details: { reason: 'mapping' } });
    }
  };

  async function answer(ctx: Context, found: Authentication, settings: VerifySettings): Promise<void> {
    switch (found.kind) {
      case 'refused':
        return refuse(ctx, found.refusal);
      case 'anonymous':
        // Whoever needs a scope needs somebody who has it.
        if (settings.anonymous === 'deny' || settings.scope.length > 0) return refuse(ctx, { code: 'missing_credential' });
        allow(ctx, settings.service?.upstream === 'jwt' ? '' : header(ctx.req, 'authorization'));
        return;
      case 'authenticated': {
        const { principal, decision } = found;
        if (!settings.scope.every((token) => principal.scope.includes(token)))
          return refuse(ctx, { code: 'insufficient_scope', details: { scope: settings.scope.join(' ') } });
        setIdentity(ctx, principal, decision.stage);
        allow(ctx, await credentialFor(ctx, found, settings));
        nudge(ctx, found, options);
      }
    }
  }

  /** What the service sees in `Authorization`: a token of its own where it is to have one, else what the client sent. */
  async function credentialFor(
    ctx: Context,
    source: Extract<Authentication, { kind: 'authenticated' }>,
    { service }: VerifySettings,
  ): Promise<string | undefined> {
    if (service?.upstream !== 'jwt') return header(ctx.req, 'authorization');
    if (!peers.trusts(ctx.req)) return undefined;
    const token = await upstream.tokenFor(source, service);
    ctx.set('X-Auth-Upstream', token === undefined ? 'unavailable' : 'jwt');
    return token === undefined ? undefined : `Bearer ${token}`;
  }

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
  allow(ctx, header(ctx.req, 'authorization'));
}

/** `authorization` always stands there, as the identity headers do: a proxy overwrites with it what the client sent. */
function allow(ctx: Context, authorization = ''): void {
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
  const identity: Record<(typeof IDENTITY_HEADERS)[number], string> = {
    'X-Auth-Subject': encodeURIComponent(principal?.subject ?? ''),
    'X-Auth-Tenant': encodeURIComponent(principal?.tenant ?? ''),
    'X-Auth-Client': encodeURIComponent(principal?.client ?? ''),
    'X-Auth-Roles': (principal?.roles ?? []).map(encodeURIComponent).join(' '),
    'X-Auth-Scope': (principal?.scope ?? []).map(encodeURIComponent).join(' '),
    'X-Auth-Via': principal?.via ?? '',
    'X-Auth-Stage': stage,
    'X-Auth-Upstream': '',
  };
  ctx.set(identity);
}
