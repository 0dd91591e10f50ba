import cors from '@koa/cors';
import Router from '@koa/router';
import Koa, { type Context, type Middleware, type Next } from 'koa';
import compose from 'koa-compose';
import { CrossfadeError } from '../errors.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { Answers } from './answer.js';
import type { Limits } from './limits.js';
import { allowAnybody } from './verify-endpoint.js';
import { JWKS_PATH, METADATA_PATH } from './well-known.js';

type Endpoint = (ctx: Context) => void | Promise<void>;

export interface RoutesOptions {
  readonly basePath: string;
  /** Origins of all clients: they may call the endpoints from their pages. */
  readonly origins: ReadonlySet<string>;
  readonly answers: Answers;
  readonly limits: Limits;
  readonly metrics: Metrics;
  /** What is POSTed to, by its name under the base path. */
  readonly posts: Readonly<Record<PostPath, Endpoint>>;
  readonly verify: (ctx: Context) => Promise<void>;
  readonly jwks: Endpoint;
  readonly metadata: Endpoint;
}

const POST_PATHS = ['token', 'session', 'issue', 'revoke', 'introspect', 'logout'] as const;
type PostPath = (typeof POST_PATHS)[number];

const CORS_HEADERS = ['Authorization', 'Content-Type', 'X-Client-Id', 'X-Client-Version'];
const CORS_EXPOSED = ['Auth-Migration', 'Retry-After', 'WWW-Authenticate'];

/** Whether a path is one of the bridge's endpoints: those judge credentials by themselves. */
export function createOwnPaths(basePath: string): (path: string) => boolean {
  const own = new Set([...POST_PATHS.map((name) => `${basePath}/${name}`), JWKS_PATH, METADATA_PATH]);
  return (path) => own.has(path) || isVerifyPath(path, basePath);
}

function isVerifyPath(path: string, basePath: string): boolean {
  return path === `${basePath}/verify` || path.startsWith(`${basePath}/verify/`) || path.startsWith(`${basePath}/verify;`);
}

/** All endpoints as one middleware; paths that are not the bridge's go on to the app. */
export function createRoutes(options: RoutesOptions): Middleware {
  const { basePath, origins, answers, limits, metrics, posts, verify, jwks, metadata } = options;
  const isOwnPath = createOwnPaths(basePath);

  const router = new Router();
  for (const name of POST_PATHS) router.post(`${basePath}/${name}`, async (ctx: Context) => await posts[name](ctx));
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

  async function answer(ctx: Context): Promise<void> {
    let outcome = 'granted';
    try {
      await dispatch(ctx);
      if (ctx.status === 405) answers.refuse(ctx, { code: 'method_not_allowed' });
    } catch (error) {
      const answered = error instanceof CrossfadeError ? await limits.failed(ctx, error) : error;
      outcome = answered instanceof CrossfadeError ? answered.code : 'server_error';
      answers.fail(ctx, answered);
    }
    const endpoint = POST_PATHS.find((name) => ctx.path === `${basePath}/${name}`);
    if (endpoint && ctx.method === 'POST') metrics.answers.inc({ endpoint, outcome });
  }

  return async function crossfadeRoutes(ctx: Context, next: Next): Promise<void> {
    if (!isOwnPath(ctx.path)) return await next();
    if (isVerifyPath(ctx.path, basePath)) return await verify(ctx);
    await answerCors(ctx, async () => await answer(ctx));
  };
}

/** For `mode: observe`: nothing is answered but forward-auth, to which everybody is anonymous. */
export function createObserveRoutes(basePath: string, observe: Middleware): Middleware {
  return async function crossfadeObserveRoutes(ctx: Context, next: Next): Promise<void> {
    if (!isVerifyPath(ctx.path, basePath)) return await next();
    await observe(ctx, async () => allowAnybody(ctx));
  };
}
