import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Cluster, Redis } from 'ioredis';
import Koa from 'koa';
import Koa2 from 'koa2';
import { closeServer, type LegacyAppOptions, legacySessions, urlOf } from '../../scripts/lib/legacy-app.js';
import { createBridge } from '../../src/compose/bridge.js';
import type { Bridge, BridgeOptions } from '../../src/compose/public.js';
import type { ConfigInput } from '../../src/config/config.js';
import { resolveConfig } from '../../src/config/load.js';
import { createLog } from '../../src/telemetry/log.js';
import { LogLines } from './log-lines.js';
import { record } from './transcript.js';

export interface InstanceOptions {
  readonly bridge?: BridgeOptions;
  readonly koa?: 2 | 3;
  /** Middleware of the app's own, before everything else. */
  readonly first?: Koa.Middleware;
  /**
   * A koa-session of the app's own: `before` or `after` `authenticate()`, on a store of the app's, or `ours` behind it, with the
   * bridge's store and external key.
   */
  readonly koaSession?: 'before' | 'after' | 'ours';
  /** Options of that koa-session. */
  readonly legacy?: Partial<LegacyAppOptions>;
  /** Handlers of the app's own, before those that every instance has. */
  readonly handlers?: Koa.Middleware;
}

export interface CallOptions extends RequestInit {
  readonly cookie?: string;
  readonly bearer?: string;
}

/** A Koa app with a bridge in front of its handlers. */
export interface Instance {
  readonly bridge: Bridge;
  readonly url: string;
  readonly log: LogLines;
  /** How often a handler behind the bridge was reached. */
  reached(): number;
  call(path: string, init?: CallOptions): Promise<Response>;
  /** POSTs a form to one of the endpoints. */
  post(path: string, form?: Record<string, string>, init?: CallOptions): Promise<Response>;
  metrics(): Promise<string>;
  close(): Promise<void>;
}

export async function startInstance(
  config: ConfigInput,
  directory: string,
  app: { readonly secrets: readonly string[]; readonly redis: Redis | Cluster },
  options: InstanceOptions,
): Promise<Instance> {
  const log = new LogLines();
  const bridge = await createBridge(resolveConfig(config, { baseDir: directory }), {
    log: createLog({ destination: log, level: 'debug' }),
    ...options.bridge,
  });
  let reached = 0;
  const koa: Koa = options.koa === 2 ? new Koa2() : new Koa();
  koa.silent = true;
  koa.keys = [...app.secrets];
  if (options.first) koa.use(options.first);
  if (options.koaSession === 'before') koa.use(legacySessions(koa, app.redis, [], {}));
  koa.use(bridge.authenticate());
  koa.use(bridge.routes());
  if (options.koaSession === 'after') koa.use(legacySessions(koa, app.redis, [], {}));
  if (options.koaSession === 'ours') {
    const session = { ...options.legacy?.session, store: bridge.sessionStore(), externalKey: bridge.externalKey() };
    koa.use(legacySessions(koa, app.redis, [], { ...options.legacy, session }));
  }
  if (options.handlers) koa.use(options.handlers);
  const pass: Koa.Middleware = async (_ctx, next) => await next();
  const [orders, me] = config.mode === 'observe' ? [pass, pass] : [bridge.require({ scope: 'read:orders' }), bridge.require()];
  koa.use(async (ctx) => {
    const answer = async () => {
      reached += 1;
      ctx.body = { principal: ctx.state.principal ?? null, rejection: ctx.state.rejection ?? null, session: ctx['session']?.user?.id ?? null };
    };
    if (ctx.path === '/orders') await orders(ctx, answer);
    else if (ctx.path === '/me') await me(ctx, answer);
    else await answer();
  });
  const server = createServer(koa.callback()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = urlOf(server);

  const instance: Instance = {
    bridge,
    url,
    log,
    reached: () => reached,
    async call(path, { cookie, bearer, headers, ...init } = {}) {
      const sent = new Headers(headers);
      if (cookie !== undefined) sent.set('cookie', cookie);
      if (bearer !== undefined) sent.set('authorization', `Bearer ${bearer}`);
      return await fetch(url + path, { redirect: 'manual', ...init, headers: sent });
    },
    post: async (path, form = {}, init = {}) => await instance.call(path, { ...init, method: 'POST', body: new URLSearchParams(form) }),
    metrics: async () => await bridge.metrics.registry.metrics(),
    async close() {
      record(await instance.metrics());
      await closeServer(server);
      await bridge.close();
    },
  };
  return instance;
}
