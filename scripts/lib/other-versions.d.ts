/** Older versions under names of their own, as package.json installs them. */
declare module 'koa2' {
  export { default } from 'koa';
}
declare module 'koa-session-5' {
  import type Koa from 'koa';
  import type { CreateSessionOptions } from 'koa-session';

  export default function session(options: CreateSessionOptions, app: Koa): Koa.Middleware;
}
