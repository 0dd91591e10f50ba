import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Admission, type Admitted, noteIn } from '../endpoints/admission.js';
import type { Authenticated } from '../endpoints/authenticator.js';
import type { OwnPathOf } from '../endpoints/own-paths.js';
import { headersOf, type Reply } from '../endpoints/reply.js';
import type { Requirement, RequireOptions } from '../endpoints/require.js';
import type { Routes } from '../endpoints/routes.js';
import type { CrossfadeState } from '../endpoints/state.js';
import { bodyOf } from './body.js';

/** A request as Connect and Express have it: the bridge leaves there what it has found. */
export interface ConnectRequest extends IncomingMessage {
  /** Path and query as they came, also where the app is mounted. */
  originalUrl?: string;
  crossfade?: CrossfadeState;
}

declare global {
  namespace Express {
    interface Request {
      /** What the bridge's `authenticate` has found (`bridge.connect()`). */
      crossfade?: CrossfadeState;
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

  /** There is no moment after a handler here: what is told then is told with the headers. */
  function nudgeWithHeaders(response: ServerResponse, found: Authenticated): void {
    const writeHead = response.writeHead.bind(response);
    Object.defineProperty(response, 'writeHead', {
      configurable: true,
      writable: true,
      value: (...given: Parameters<typeof writeHead>) => {
        response.writeHead = writeHead;
        const nudged = nudge(found);
        if (nudged === undefined) return writeHead(...given);
        const [status, ...rest] = given;
        // What is given with the status would come after, and win.
        for (const [name, value] of givenHeaders(rest.at(-1))) response.setHeader(name, value);
        response.setHeader('Auth-Migration', nudged).setHeader('Cache-Control', 'no-store');
        return typeof rest[0] === 'string' ? writeHead(status, rest[0]) : writeHead(status);
      },
    });
  }

  function goOn(request: ConnectRequest, response: ServerResponse, next: () => void, found: Admitted): void {
    if (found.kind === 'answered') {
      put(response, found.reply);
      return;
    }
    request.crossfade = {};
    noteIn(request.crossfade, found);
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
        if (reply) put(response, reply);
        else next();
      };
    },
    routes(request, response, next) {
      const reply = routes(request, urlOf(request), bodyOf(request, request));
      if (reply === undefined) next();
      else if (reply instanceof Promise) void reply.then((known) => put(response, known));
      else put(response, reply);
    },
    errors(error, _request, response, next) {
      const reply = response.headersSent ? undefined : failedBehind(error);
      if (!reply) return next(error);
      // What the handler meant to answer is not what happened: its cookies least of all.
      response.removeHeader('Set-Cookie');
      put(response, reply);
    },
  };
}

function urlOf({ originalUrl, url }: ConnectRequest): string | undefined {
  return originalUrl ?? url;
}

function givenHeaders(given: unknown): [string, string | number | readonly string[]][] {
  const isValue = (value: unknown) => typeof value === 'string' || typeof value === 'number' || Array.isArray(value);
  if (given === null || typeof given !== 'object') return [];
  const pairs = Array.isArray(given)
    ? given.flatMap((name, at) => (at % 2 === 0 ? [[String(name), given[at + 1]] as const] : []))
    : Object.entries(given);
  return pairs.flatMap(([name, value]) => (isValue(value) ? [[name, value] as [string, string | number | readonly string[]]] : []));
}

/** Headers that ran before stay. */
function put(response: ServerResponse, reply: Reply): void {
  response.statusCode = reply.status;
  for (const [name, value] of headersOf(reply)) {
    if (name === 'Set-Cookie' || name === 'Vary') response.appendHeader(name, value);
    else response.setHeader(name, value);
  }
  response.end(reply.body);
}
