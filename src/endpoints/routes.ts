import { SpanStatusCode } from '@opentelemetry/api';
import { CrossfadeError, type UnavailableReason, unavailable } from '../errors.js';
import type { Tools } from '../telemetry/tools.js';
import { traced } from '../telemetry/tracing.js';
import type { Answers } from './answer.js';
import { withinBudget } from './budget.js';
import { createCors } from './cors.js';
import type { CountFailure } from './failed-addresses.js';
import { awaitBody, type ReadBody } from './form.js';
import { isVerifyPath, type OwnPathOf, POST_PATHS, type PostPath, toOriginForm } from './own-paths.js';
import { emptyReply, type Now, type Reply, type RequestHead } from './reply.js';
import { JWKS_PATH, METADATA_PATH } from './well-known.js';

/**
 * Answers requests for the bridge's own paths. `url`: path and query as they came, also where the app is mounted. Undefined: the path is not the
 * bridge's, and the app goes on. Never throws or rejects: what fails is a reply as well.
 */
export type Routes = (head: RequestHead, url: string | undefined, readBody: ReadBody) => Now<Reply> | undefined;

export type Endpoint = (head: RequestHead, readBody: ReadBody) => Now<Reply>;

export interface RoutesOptions extends Pick<Tools, 'audit' | 'metrics'> {
  readonly basePath: string;
  readonly ownPathOf: OwnPathOf;
  /** Origins of all clients: they may call the endpoints from their pages. */
  readonly origins: ReadonlySet<string>;
  readonly answers: Answers;
  /** Why an endpoint cannot do its work at the moment; undefined: it can. */
  readonly cannotNow: (endpoint: PostPath) => UnavailableReason | undefined;
  /** How long an endpoint may take in all, in ms. */
  readonly budgetMs: (endpoint: PostPath) => number;
  readonly countFailure: CountFailure;
  /** What is POSTed to, by its name under the base path. */
  readonly posts: Readonly<Record<PostPath, (head: RequestHead, readBody: ReadBody) => Promise<Reply>>>;
  readonly verify: (head: RequestHead, url: string) => Now<Reply>;
  readonly jwks: Endpoint;
  readonly metadata: Endpoint;
}

/** What is at one path. */
interface Place {
  /** As the header says it (RFC 9110, section 10.2.1). */
  readonly allow: 'POST' | 'HEAD, GET';
  readonly endpoint: Endpoint;
  /** What is POSTed to has a name, and a span of its own. */
  readonly post?: PostPath;
}

/** All endpoints. */
export function createRoutes(options: RoutesOptions): Routes {
  const { basePath, ownPathOf, answers, cannotNow, budgetMs, audit, metrics, posts, verify } = options;
  const cors = createCors(options.origins);

  /** With one time for all that it asks of Redis, from when its body is there. */
  function inTime(name: PostPath): Endpoint {
    return async (head, readBody) => {
      await awaitBody(head, readBody);
      const reason = cannotNow(name);
      if (reason) throw unavailable(reason);
      const onLate = (error: unknown) => audit('request.late', { endpoint: name, outcome: outcomeOf(error) });
      return await withinBudget(head, budgetMs(name), async () => await posts[name](head, readBody), onLate);
    };
  }

  const places = new Map<string, Place>([
    [JWKS_PATH, { allow: 'HEAD, GET', endpoint: options.jwks }],
    [METADATA_PATH, { allow: 'HEAD, GET', endpoint: options.metadata }],
    ...POST_PATHS.map((name) => [`${basePath}/${name}`, { allow: 'POST', endpoint: inTime(name), post: name }] as const),
  ]);

  async function answer(place: Place, head: RequestHead, readBody: ReadBody): Promise<{ reply: Reply; outcome: string }> {
    try {
      return { reply: await place.endpoint(head, readBody), outcome: outcomeOf(undefined) };
    } catch (error) {
      const answered = error instanceof CrossfadeError ? await options.countFailure(head, error) : error;
      return { reply: answers.fail(answered), outcome: outcomeOf(answered) };
    }
  }

  async function answerPost(name: PostPath, place: Place, head: RequestHead, readBody: ReadBody): Promise<Reply> {
    return await traced(`crossfade.${name}`, async (span) => {
      const { reply, outcome } = await answer(place, head, readBody);
      metrics.answers.inc({ endpoint: name, outcome });
      span.setAttributes({ 'crossfade.outcome': outcome, 'http.response.status_code': reply.status });
      if (reply.status >= 500) span.setStatus({ code: SpanStatusCode.ERROR });
      return reply;
    });
  }

  async function answerAt(place: Place, head: RequestHead, readBody: ReadBody): Promise<Reply> {
    const { method = 'GET' } = head;
    if (method === 'OPTIONS') return emptyReply(200, ['Allow', place.allow, 'Content-Type', 'text/plain; charset=utf-8']);
    if (!place.allow.split(', ').includes(method)) return answers.refuse({ code: 'method_not_allowed', headers: { Allow: place.allow } });
    return place.post ? await answerPost(place.post, place, head, readBody) : (await answer(place, head, readBody)).reply;
  }

  return function routes(head, url, readBody) {
    const path = ownPathOf(url);
    if (path === undefined) return undefined;
    if (isVerifyPath(path, basePath)) return verify(head, toOriginForm(url ?? ''));
    const place = places.get(path);
    if (!place) return undefined;
    return (
      cors.preflight(head) ?? answerAt(place, head, readBody).then((reply) => ({ ...reply, headers: [...cors.headersFor(head), ...reply.headers] }))
    );
  };
}

function outcomeOf(error: unknown): string {
  return error === undefined ? 'granted' : error instanceof CrossfadeError ? error.code : 'server_error';
}
