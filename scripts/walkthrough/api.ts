import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import Koa from 'koa';
import { type Bridge, createBridge, loadConfig } from '../../src/index.js';
import { createLog } from '../../src/telemetry/log.js';
import { closeServer, legacyPages, urlOf } from '../lib/legacy-app.js';

export interface Api {
  readonly url: string;
  readonly bridge: Bridge;
  /** How often other flags came into force since the start, as the audit log says. */
  flagChanges(): number;
  close(): Promise<void>;
}

export interface ApiOptions {
  readonly configPath: string;
  /** Where it listens, so that a restart comes back under the same address. Default: a free port. */
  readonly port?: number;
  /** The legacy app's middleware that comes before: its sessions. */
  readonly sessions: (app: Koa) => Koa.Middleware;
}

/**
 * A product as it is in the middle of a migration: the legacy pages with koa-session, and an API whose handlers know
 * nothing but `ctx.state.principal`.
 */
export async function startApi({ configPath, port = 0, sessions }: ApiOptions): Promise<Api> {
  let flagChanges = 0;
  const readLog = (line: string) => {
    if (line.includes('"audit":"flags.changed"')) flagChanges += 1;
  };
  const bridge = await createBridge(await loadConfig(configPath), { log: createLog({ destination: { write: readLog } }) });
  const app = new Koa();
  app.use(async function metrics(ctx, next) {
    if (ctx.path !== '/metrics') return await next();
    ctx.type = bridge.metrics.registry.contentType;
    ctx.body = await bridge.metrics.registry.metrics();
  });
  app.use(bridge.authenticate());
  app.use(bridge.routes());
  app.use(sessions(app));
  app.use(legacyPages());
  const requireOrders = bridge.require({ scope: 'read:orders' });
  app.use(async function orders(ctx, next) {
    if (ctx.path !== '/orders') return await next();
    await requireOrders(ctx, async () => {
      ctx.body = { orders: [7, 11], for: ctx.state.principal?.subject, via: ctx.state.principal?.via };
    });
  });
  app.use(function home(ctx) {
    ctx.type = 'html';
    ctx.body = `<!doctype html><title>Product</title><p>${ctx.state.principal ? 'You are logged in.' : '<a href="/login">Log in</a>'}`;
  });
  const server: Server = createServer(app.callback()).listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: urlOf(server),
    bridge,
    flagChanges: () => flagChanges,
    async close() {
      await closeServer(server);
      await bridge.close();
    },
  };
}
