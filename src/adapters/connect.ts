import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { type Admission, type Admitted, noteIn } from '../endpoints/admission.js';
import type { Authenticated } from '../endpoints/authenticator.js';
import type { OwnPathOf } from '../endpoints/own-paths.js';
import type { Requirement, RequireOptions } from '../endpoints/require.js';
import type { Routes } from '../endpoints/routes.js';
import type { CrossfadeState } from '../endpoints/state.js';
import { bodyOf } from './body.js';
import { isAnswered, sendReply } from './response.js';

/** A request as Connect and Express have it: the bridge leaves there what it has found. */
export interface ConnectRequest extends IncomingMessage {
  /** Path and query as they came, also where the app is mounted. */
  originalUrl?: string | undefined;
  crossfade?: CrossfadeState | undefined;
}

declare global {
  namespace Express {
    interface Request {
      /** What the bridge's `authenticate` has found (`bridge.connect()`). */
      crossfade?: CrossfadeState | undefined;
    }
  }
}

export type ConnectHandler = (request: ConnectRequest, response: ServerResponse, next: (error?: unknown) => void) => void;
export type ConnectErrorHandler = (error: unknown, request: ConnectRequest, response: ServerResponse, next: (error?: unknown) => void) => void;

/** The bridge as middleware of Connect, Express, or anything that takes theirs. */
export interface ConnectMount {
  /** Puts the principal into `req.crossfade`, or answers 400, 401 or 503. */
  readonly authenticate: ConnectHandler;
  /** For routes that need a principal, and a scope where one is named: 401, 403. @throws {TypeError} at once, for a scope that is none. */
  require(options?: RequireOptions): ConnectHandler;
  /** Serves the bridge's own paths; all others go on to the app. */
  readonly routes: ConnectHandler;
  /** To be mounted last: answers 503 for what the bridge could not do behind the app's handlers; all other errors go on. */
  readonly errors: ConnectErrorHandler;
}

export interface ConnectOptions {
  readonly admission: Admission;
  readonly ownPathOf: OwnPathOf;
  readonly routes: Routes;
  readonly requirementOf: (options?: RequireOptions) => Requirement;
}

export function createConnectMount({ admission, ownPathOf, routes, requirementOf }: ConnectOptions): ConnectMount {
  const { admit, nudge, refusedBehind, failedBehind } = admission;

  /** Headers as they were when a request was admitted. */
  const before = new WeakMap<ServerResponse, OutgoingHttpHeaders>();

  /** There is no moment after a handler here: what is told then is told with the headers. An answer that is a failure tells nothing. */
  function nudgeWithHeaders(response: ServerResponse, found: Authenticated): void {
    const writeHead = response.writeHead;
    Object.defineProperty(response, 'writeHead', {
      configurable: true,
      writable: true,
      value(status: number, ...rest: unknown[]) {
        response.writeHead = writeHead;
        const nudged = status >= 500 ? undefined : nudge(found);
        const given = nudged === undefined ? rest : withHeaders(response, rest, { 'Auth-Migration': nudged, 'Cache-Control': 'no-store' });
        return Reflect.apply(writeHead, response, [status, ...given]);
      },
    });
  }

  function goOn(request: ConnectRequest, response: ServerResponse, next: () => void, found: Admitted): void {
    if (found.kind === 'answered') {
      sendReply(response, found.reply);
      return;
    }
    request.crossfade = {};
    noteIn(request.crossfade, found);
    before.set(response, response.getHeaders());
    if (found.kind === 'authenticated') {
      if (found.decision.rules.nudge !== undefined) nudgeWithHeaders(response, found);
      if (found.principal.via === 'jwt') response.once('finish', () => response.statusCode === 401 && refusedBehind(found));
    }
    next();
  }

  return {
    authenticate(request, response, next) {
      if (ownPathOf(urlOf(request)) !== undefined) return next();
      const found = admit(request);
      if (found instanceof Promise) void found.then((known) => goOn(request, response, next, known));
      else goOn(request, response, next, found);
    },
    require(options) {
      const requirement = requirementOf(options);
      return function crossfadeRequire(request, response, next) {
        const reply = requirement(request.crossfade?.principal);
        if (reply) sendReply(response, reply);
        else next();
      };
    },
    routes(request, response, next) {
      const url = urlOf(request);
      const reply = ownPathOf(url) === undefined ? undefined : routes(request, url, bodyOf(request, request));
      if (reply === undefined) next();
      else if (reply instanceof Promise) void reply.then((known) => sendReply(response, known));
      else sendReply(response, reply);
    },
    errors(error, _request, response, next) {
      const reply = isAnswered(response) ? undefined : failedBehind(error);
      if (!reply) {
        next(error);
        return;
      }
      // What the handler meant to answer is not what happened: its cookies least of all.
      const kept = before.get(response) ?? {};
      for (const name of response.getHeaderNames()) response.removeHeader(name);
      for (const [name, value] of Object.entries(kept)) if (value !== undefined) response.setHeader(name, value);
      response.statusMessage = '';
      sendReply(response, reply);
    },
  };
}

function urlOf({ originalUrl, url }: ConnectRequest): string | undefined {
  return originalUrl ?? url;
}

/** What `writeHead` was given behind the status, with these headers in place of any of their name. */
function withHeaders(response: ServerResponse, given: readonly unknown[], headers: Readonly<Record<string, string>>): readonly unknown[] {
  const names = new Set(Object.keys(headers).map((name) => name.toLowerCase()));
  const isTheirs = (name: unknown) => !names.has(String(name).toLowerCase());
  const last = given.at(-1);
  if (Array.isArray(last)) {
    const isOfPairs = Array.isArray(last[0]);
    const kept = isOfPairs ? last.filter(([name]) => isTheirs(name)) : last.filter((_, at) => isTheirs(last[at - (at % 2)]));
    return [...given.slice(0, -1), [...kept, ...(isOfPairs ? Object.entries(headers) : Object.entries(headers).flat())]];
  }
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  if (last === null || typeof last !== 'object') return given;
  return [...given.slice(0, -1), Object.fromEntries(Object.entries(last).filter(([name]) => isTheirs(name)))];
}
