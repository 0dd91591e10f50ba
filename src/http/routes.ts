import { METHODS } from 'node:http';
import cors from '@koa/cors';
import Router from '@koa/router';
import { SpanStatusCode } from '@opentelemetry/api';
import Koa, { type Context, type Middleware, type Next } from 'koa';
import compose from 'koa-compose';
import { CrossfadeError, type UnavailableReason, unavailable } from '../errors.js';
import type { Tools } from '../telemetry/tools.js';
import { traced } from '../telemetry/tracing.js';
import type { Answers } from './answer.js';
import { withinBudget } from './budget.js';
import { awaitBody } from './form.js';
import type { Limits } from './limits.js';
import { createOwnRequests, isVerifyPath, POST_PATHS, type PostPath } from './own-paths.js';
import { allowAnybody } from './verify-endpoint.js';
import { JWKS_PATH, METADATA_PATH } from './well-known.js';

type Endpoint = (ctx: Context) => void | Promise<void>;

export interface RoutesOptions extends Pick<Tools, 'audit' | 'metrics'> {
  readonly basePath: string;
  /** Origins of all clients: they may call the endpoints from their pages. */
  readonly origins: ReadonlySet<string>;
  readonly answers: Answers;
  /** Why an endpoint cannot do its work at the moment; undefined: it can. */
  readonly cannotNow: (endpoint: PostPath) => UnavailableReason | undefined;
  /** How long an endpoint may take in all, in ms. */
  readonly budgetMs: (endpoint: PostPath) => number;
  readonly limits: Limits;
  /** What is POSTed to, by its name under the base path. */
  readonly posts: Readonly<Record<PostPath, Endpoint>>;
  readonly verify: (ctx: Context) => void | Promise<void>;
  readonly jwks: Endpoint;
  readonly metadata: Endpoint;
}

const CORS_HEADERS = ['Authorization', 'Content-Type', 'X-Client-Id', 'X-Client-Version'];
const CORS_EXPOSED = ['Auth-Migration', 'Retry-After', 'WWW-Authenticate'];

/** All endpoints as one middleware; paths that are not the bridge's go on to the app. */
export function createRoutes(options: RoutesOptions): Middleware {
  const { basePath, origins, answers, cannotNow, budgetMs, audit, limits, metrics, posts, verify, jwks, metadata } = options;
  const isOwn = createOwnRequests(basePath);

  // All methods that Node.js parses: one that the router does not know would be answered 501, without `Allow` (RFC 9110, section 15.5.6).
  const router = new Router({ methods: METHODS });
  for (const name of POST_PATHS) {
    router.post(`${basePath}/${name}`, async (ctx: Context) => {
      const onLate = (error: unknown) => audit('request.late', { endpoint: name, outcome: outcomeOf(error) });
      await awaitBody(ctx);
      const reason = cannotNow(name);
      if (reason) throw unavailable(reason);
      await withinBudget(ctx, budgetMs(name), async () => await posts[name](ctx), onLate);
    });
  }
  router.get(JWKS_PATH, async (ctx: Context) => await jwks(ctx));
  router.get(METADATA_PATH, async (ctx: Context) => await metadata(ctx));
  const inner = new Koa();
  inner.use(router.routes());
  inner.use(router.allowedMethods());
  const dispatch = compose(inner.middleware);

  const answerCors = cors({
    origin: (ctx) => {
      const origin = ctx.get('Origin');
      return origins.has(origin) ? origin : '';
    },
    credentials: true,
    allowMethods: ['GET', 'HEAD', 'POST'],
    allowHeaders: CORS_HEADERS,
    exposeHeaders: CORS_EXPOSED,
    maxAge: 600,
  });

  /** What is POSTed to has a span of its own, inside whatever span the request has. */
  async function answer(ctx: Context): Promise<void> {
    const endpoint = ctx.method === 'POST' ? POST_PATHS.find((name) => ctx.path === `${basePath}/${name}`) : undefined;
    if (endpoint === undefined) return void (await answerNow(ctx));
    await traced(`crossfade.${endpoint}`, async (span) => {
      const outcome = await answerNow(ctx);
      metrics.answers.inc({ endpoint, outcome });
      span.setAttributes({ 'crossfade.outcome': outcome, 'http.response.status_code': ctx.status });
      if (ctx.status >= 500) span.setStatus({ code: SpanStatusCode.ERROR });
    });
  }

  async function answerNow(ctx: Context): Promise<string> {
    let outcome = 'granted';
    try {
      await dispatch(ctx);
      if (ctx.status === 405) answers.refuse(ctx, { code: 'method_not_allowed' });
    } catch (error) {
      const answered = error instanceof CrossfadeError ? await limits.failed(ctx, error) : error;
      outcome = outcomeOf(answered);
      answers.fail(ctx, answered);
    }
    return outcome;
  }

  return function crossfadeRoutes(ctx: Context, next: Next): void | Promise<void> {
    if (!isOwn(ctx)) return next();
    if (isVerifyPath(ctx.path, basePath)) return verify(ctx);
    return answerCors(ctx, async () => await answer(ctx));
  };
}

function outcomeOf(error: unknown): string {
  return error === undefined ? 'granted' : error instanceof CrossfadeError ? error.code : 'server_error';
}

/** For `mode: observe`: nothing is answered but forward-auth, to which everybody is anonymous. */
export function createObserveRoutes(basePath: string, observe: Middleware): Middleware {
  return async function crossfadeObserveRoutes(ctx: Context, next: Next): Promise<void> {
    if (!isVerifyPath(ctx.path, basePath)) return await next();
    await observe(ctx, async () => allowAnybody(ctx));
  };
}
