import type { OutgoingHttpHeaders } from 'node:http';
import type { Context, Middleware, Next } from 'koa';
import { type Admission, type Admitted, noteIn } from '../endpoints/admission.js';
import type { Authenticated } from '../endpoints/authenticator.js';
import type { OwnPathOf } from '../endpoints/own-paths.js';
import type { Reply } from '../endpoints/reply.js';
import type { Requirement } from '../endpoints/require.js';
import type { Routes } from '../endpoints/routes.js';
import type { CrossfadeState } from '../endpoints/state.js';
import { bodyOf } from './body.js';

declare module 'koa' {
  interface DefaultState extends CrossfadeState {}
}

/** Middleware that puts the principal into `ctx.state`, or answers where no handler may: 400, 401, 503. */
export function koaAuthenticate(admission: Admission, ownPathOf: OwnPathOf): Middleware {
  const { admit, nudge, refusedBehind, failedBehind } = admission;

  function goOn(ctx: Context, next: Next, found: Admitted): void | Promise<void> {
    if (found.kind === 'answered') return writeReply(ctx, found.reply);
    noteIn(ctx.state, found);
    const before = ctx.res.getHeaders();
    const failed = (error: unknown) => failBehind(ctx, error, before);
    if (found.kind !== 'authenticated') return next().catch(failed);
    const nudges = found.decision.rules.nudge !== undefined;
    if (found.principal.via === 'session') return nudges ? next().then(() => nudgeNow(ctx, found), failed) : next().catch(failed);
    return next().then(
      () => {
        if (nudges) nudgeNow(ctx, found);
        if (ctx.status === 401) refusedBehind(found);
      },
      (error: unknown) => {
        if (isRefusal(error)) refusedBehind(found);
        failed(error);
      },
    );
  }

  function nudgeNow(ctx: Context, found: Authenticated): void {
    const nudged = ctx.headerSent ? undefined : nudge(found);
    if (nudged !== undefined) ctx.set({ 'Auth-Migration': nudged, 'Cache-Control': 'no-store' });
  }

  /** What the bridge's own store or functions cannot do right now, behind the app's handlers. */
  function failBehind(ctx: Context, error: unknown, before: Readonly<OutgoingHttpHeaders>): void {
    const reply = ctx.headerSent ? undefined : failedBehind(error);
    if (!reply) throw error;
    // What the handler meant to answer is not what happened: its cookies least of all.
    for (const name of ctx.res.getHeaderNames()) ctx.remove(name);
    for (const [name, value] of Object.entries(before)) if (value !== undefined) ctx.res.setHeader(name, value);
    writeReply(ctx, reply);
  }

  return function crossfadeAuthenticate(ctx, next) {
    if (ownPathOf(ctx.url) !== undefined) return next();
    const found = admit(ctx.req);
    return found instanceof Promise ? found.then((known) => goOn(ctx, next, known)) : goOn(ctx, next, found);
  };
}

/** What `ctx.throw(401)` throws. */
function isRefusal(error: unknown): boolean {
  return error instanceof Error && 'status' in error && error.status === 401;
}

/** Middleware for routes that need somebody. It comes after `authenticate()`. */
export function koaRequire(requirement: Requirement): Middleware {
  return function crossfadeRequire(ctx, next) {
    const reply = requirement(ctx.state.principal);
    return reply ? writeReply(ctx, reply) : next();
  };
}

/** All endpoints as one middleware; paths that are not the bridge's go on to the app. */
export function koaRoutes(routes: Routes, ownPathOf: OwnPathOf): Middleware {
  return function crossfadeRoutes(ctx, next) {
    // Most requests are the app's: nothing is made for them.
    if (ownPathOf(ctx.url) === undefined) return next();
    const reply = routes(ctx.req, ctx.url, bodyOf(ctx.req, ctx.request));
    if (reply === undefined) return next();
    return reply instanceof Promise ? reply.then((known) => writeReply(ctx, known)) : writeReply(ctx, reply);
  };
}

/** Koa sends it. Headers of the app's that ran before stay. */
export function writeReply(ctx: Context, reply: Reply): void {
  const { status, headers, body } = reply;
  ctx.status = status;
  if (body === undefined) {
    ctx.body = status === 204 || status === 304 ? null : '';
    ctx.remove('Content-Type');
  }
  for (let at = 0; at < headers.length; at += 2) {
    const [name = '', value = ''] = [headers[at], headers[at + 1]];
    if (name === 'Set-Cookie') ctx.append(name, value);
    else if (name === 'Vary') ctx.vary(value);
    else ctx.set(name, value);
  }
  // Where its type is known Koa looks for none.
  if (body !== undefined) ctx.body = body;
}
