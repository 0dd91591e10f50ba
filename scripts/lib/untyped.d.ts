/** Older versions under names of their own, as package.json installs them. */
declare module 'koa2' {
  export { default } from 'koa';
}
/** They have no types of their own. */
declare module 'koa-generic-session' {
  import type Koa from 'koa';

  export default function session(options: { readonly store: unknown }): Koa.Middleware;
}
declare module 'koa-redis' {
  export default function createStore(options: { readonly client: unknown }): object;
}
declare module 'koa-session-5' {
  import type Koa from 'koa';
  import type { CreateSessionOptions } from 'koa-session';

  export default function session(options: CreateSessionOptions, app: Koa): Koa.Middleware;
}

declare module 'koa-session-4' {
  import type Koa from 'koa';
  import type { CreateSessionOptions } from 'koa-session';

  export default function session(options: CreateSessionOptions, app: Koa): Koa.Middleware;
}

declare module 'koa-session-6' {
  import type Koa from 'koa';
  import type { CreateSessionOptions } from 'koa-session';

  export default function session(options: CreateSessionOptions, app: Koa): Koa.Middleware;
}

declare module 'connect-redis-6' {
  import type session from 'express-session';
  import type { Redis } from 'ioredis';
  export default function connectRedis(library: typeof session): new (options: { client: Redis; ttl?: number }) => session.Store;
}
