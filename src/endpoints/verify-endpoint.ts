import { after } from '../now-or-later.js';
import type { Principal } from '../principal.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { UpstreamTokens } from '../tokens/upstream.js';
import { countRequest } from './admission.js';
import type { Answers, Refusal } from './answer.js';
import type { Authenticate, Authenticated, Authentication } from './authenticator.js';
import type { Nudge } from './nudge.js';
import type { Peers } from './peer.js';
import { emptyReply, type HeaderList, header, type Now, type Reply, type RequestHead } from './reply.js';
import type { ReadVerifySettings, VerifySettings } from './verify-settings.js';

export interface VerifyEndpointOptions {
  readonly authenticate: Authenticate;
  readonly answers: Answers;
  readonly readSettings: ReadVerifySettings;
  readonly upstream: UpstreamTokens;
  readonly peers: Pick<Peers, 'trusts'>;
  readonly nudge: Nudge;
  readonly metrics: Metrics;
}

/**
 * Forward-auth: says who a request is, in headers and with an empty body, to nginx, Caddy, Traefik and Envoy. 200, 401,
 * 403 or 503 and never anything else: nginx turns other statuses into 500. The method does not matter.
 */
export function createVerifyEndpoint(options: VerifyEndpointOptions): (head: RequestHead, url: string) => Now<Reply> {
  const { authenticate, answers, readSettings, upstream, peers, nudge, metrics } = options;

  function fail(error: unknown): Reply {
    metrics.requests.count('unknown', 'unavailable', 'unknown');
    const reply = answers.fail(error);
    return ofNobody(reply.status === 503 ? reply : answers.refuse({ code: 'temporarily_unavailable', details: { reason: 'mapping' } }));
  }

  function answer(head: RequestHead, found: Authentication, settings: VerifySettings): Now<Reply> {
    countRequest(metrics, found);
    switch (found.kind) {
      case 'refused':
        return refuse(found.refusal);
      case 'anonymous':
        // Whoever needs a scope needs somebody who has it.
        if (settings.anonymous === 'deny' || settings.scope.length > 0) return refuse({ code: 'missing_credential' });
        return allow(undefined, settings.service?.upstream === 'jwt' ? '' : header(head, 'authorization'));
      case 'authenticated': {
        const { principal } = found;
        if (!settings.scope.every((token) => principal.scope.includes(token)))
          return refuse({ code: 'insufficient_scope', details: { scope: settings.scope.join(' ') } });
        if (settings.service?.upstream === 'jwt') return allowUpstream(head, found, settings.service);
        return allow(found, header(head, 'authorization'), '', nudge(found));
      }
    }
  }

  /** The service sees a token of its own in `Authorization`, whatever the client sent. */
  async function allowUpstream(
    head: RequestHead,
    source: Authenticated,
    service: { readonly id: string; readonly audience: string },
  ): Promise<Reply> {
    const asks = peers.trusts(head);
    const token = asks ? await upstream.tokenFor(source, service) : undefined;
    const said = asks ? (token === undefined ? 'unavailable' : 'jwt') : '';
    return allow(source, token === undefined ? undefined : `Bearer ${token}`, said, nudge(source));
  }

  /** A malformed request has no 400 here. */
  function refuse(refusal: Refusal): Reply {
    const reply = ofNobody(answers.refuse(refusal));
    if (refusal.code !== 'invalid_request') return reply;
    return { ...reply, status: 401, headers: [...reply.headers, 'WWW-Authenticate', 'Bearer error="invalid_request"'] };
  }

  return function verifyEndpoint(head, url) {
    try {
      const settings = readSettings(head, url);
      const answered = after(authenticate(head, settings.service?.audience), (found) => answer(head, found, settings));
      return answered instanceof Promise ? answered.catch(fail) : answered;
    } catch (error) {
      return fail(error);
    }
  };
}

/** For `mode: observe`: 200 for everybody, and nobody named. */
export function allowAnybody(head: RequestHead): Reply {
  return allow(undefined, header(head, 'authorization'));
}

/** `authorization` always stands there, as the identity headers do: a proxy overwrites with it what the client sent. */
function allow(found: Pick<Authenticated, 'principal' | 'decision'> | undefined, authorization = '', upstream = '', nudged?: string): Reply {
  return emptyReply(200, [
    ...(found ? identityOf(found.principal, found.decision.stage, upstream) : NOBODY),
    'Authorization',
    authorization,
    'Cache-Control',
    'no-store',
    ...(nudged === undefined ? [] : ['Auth-Migration', nudged]),
  ]);
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
function identityOf({ subject, tenant, client, roles, scope, via }: Principal, stage: string, upstream: string): HeaderList {
  const values: Readonly<Record<(typeof IDENTITY_HEADERS)[number], string>> = {
    'X-Auth-Subject': encodeURIComponent(subject),
    'X-Auth-Tenant': encodeURIComponent(tenant ?? ''),
    'X-Auth-Client': encodeURIComponent(client),
    'X-Auth-Roles': roles.map(encodeURIComponent).join(' '),
    'X-Auth-Scope': scope.map(encodeURIComponent).join(' '),
    'X-Auth-Via': via,
    'X-Auth-Stage': stage,
    'X-Auth-Upstream': upstream,
  };
  return Object.entries(values).flat();
}

const NOBODY: HeaderList = IDENTITY_HEADERS.flatMap((name) => [name, '']);

function ofNobody(reply: Reply): Reply {
  return { ...reply, headers: [...NOBODY, ...reply.headers] };
}
