import Koa, { type Middleware } from 'koa';
import type { Registry } from 'prom-client';

/** What the admin port tells of a bridge. */
export interface Readiness {
  /** Sessions can be served. */
  readonly ready: boolean;
  /** Tokens can be issued as well: a key signs, and the bridge's own Redis takes note of the family. */
  readonly canIssue: boolean;
  /** One word for each part, for whoever reads the answer. */
  readonly parts: Readonly<Record<string, string>>;
  /** Why keys are not healthy, a sentence each. */
  readonly problems: readonly string[];
}

export interface AdminOptions {
  readonly readiness: () => Promise<Readiness>;
  readonly registry: Registry;
  /** False from SIGTERM on, so that no new traffic is sent here. */
  readonly accepting: () => boolean;
  /** Answers `/api/…`, and the files of the console. */
  readonly api: Middleware;
}

/** What needs no token. */
const OPEN_PATHS: ReadonlySet<string> = new Set(['/healthz', '/readyz', '/metrics']);

/** The operators' port: health for the platform and metrics for Prometheus, which need no token and tell no secret, and the API, which needs one. */
export function createAdminApp({ readiness, registry, accepting, api }: AdminOptions): Koa {
  const app = new Koa();
  app.use(async function admin(ctx, next) {
    ctx.set('Cache-Control', 'no-store');
    if (!OPEN_PATHS.has(ctx.path)) return await api(ctx, next);
    if (ctx.method !== 'GET' && ctx.method !== 'HEAD') {
      ctx.status = 405;
      ctx.set('Allow', 'GET, HEAD');
      return;
    }
    switch (ctx.path) {
      case '/healthz':
        ctx.body = { status: 'ok' };
        return;
      case '/readyz': {
        const { ready, canIssue, parts, problems } = await readiness();
        const good = accepting() && ready && (ctx.query['for'] !== 'issue' || canIssue);
        ctx.status = good ? 200 : 503;
        ctx.body = { ready: good, accepting: accepting(), ...parts, ...(problems.length > 0 ? { problems } : {}) };
        return;
      }
      case '/metrics':
        ctx.type = registry.contentType;
        ctx.body = await registry.metrics();
    }
  });
  return app;
}
