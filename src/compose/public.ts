import type { Middleware } from 'koa';
import type { LDClient } from 'launchdarkly-node-server-sdk';
import type { ConnectMount } from '../adapters/connect.js';
import type { ExternalKey } from '../adapters/external-key.js';
import type { AnswerOwn } from '../adapters/node.js';
import type { Expected } from '../adapters/observe.js';
import type { SessionStore } from '../adapters/session-store.js';
import type { Clock } from '../clock.js';
import type { Readiness } from '../console/admin.js';
import type { EndSubjectOptions } from '../endings/person.js';
import type { EndableSession } from '../endings/revocation.js';
import type { IssueFor } from '../endpoints/issue-for.js';
import type { RequireOptions } from '../endpoints/require.js';
import type { SigningReport } from '../keys/signing.js';
import type { MappingFunction } from '../sessions/mapping.js';
import type { AppLog } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';

export interface BridgeOptions {
  /** Stands in for `sessions[].principal`. */
  readonly principal?: MappingFunction;
  /** A LaunchDarkly client that the app already has, instead of `rollout.flags`. It stays the app's to close. */
  readonly launchdarkly?: LDClient;
  /** For `mode: observe`: whom the app itself found. Default: what the header says that `observe.expectedHeader` names. */
  readonly observe?: { readonly expected: Expected };
  /**
   * An operator lets this instance act though it skips a release, or though Redis holds what no secret of `fleetSecretFile` opens, which it
   * then takes for junk. `why`: for the audit.
   */
  readonly force?: { readonly why: string };
  /** The app's own logger: `(fields, message)`, as in pino. Default: JSON lines on standard output, from `info` on. */
  readonly log?: AppLog;
  /** Default: metrics of their own, at `bridge.metrics.registry`. */
  readonly metrics?: Metrics;
  readonly clock?: Clock;
}

/** Both credentials on one app: what `createBridge` gives. */
export interface Bridge {
  /** Middleware that puts the principal into `ctx.state.principal`, or answers 400, 401 or 503. */
  authenticate(): Middleware;
  /** Middleware for routes that need a principal, and a scope where one is named: 401, 403. */
  require(options?: RequireOptions): Middleware;
  /** Middleware that serves the bridge's own paths; all others go on to the app. */
  routes(): Middleware;
  /**
   * The same for Connect and Express: `authenticate`, `require()`, `routes`, and `errors` to be mounted last. The principal is in `req.crossfade`.
   * @throws {TypeError} in `mode: observe`, which is for Koa and forward-auth.
   */
  connect(): ConnectMount;
  /** Answers a request for one of the bridge's own paths on bare `node:http` or `node:http2`. False: it is for somebody else, and nothing was done. */
  readonly answer: AnswerOwn;
  /** A store for the app's own koa-session, by cookie or by token; of the entry of koa-session with this name, by default of the first. */
  sessionStore(entry?: string): SessionStore;
  /** koa-session's option `externalKey`: with it and the store, `ctx.session` is there for requests with a token too. `authenticate()` must come before koa-session. */
  externalKey(): ExternalKey;
  /** Tokens at a login that the app has done without a session. */
  readonly issueFor: IssueFor;
  /**
   * Ends everything that was issued to a person before, on both sides: a changed password, a ban. Gives the number of sessions that tokens had been made from.
   * Sessions that the bridge never saw and whose record holds no time of the login stay the app's to end.
   * @throws {CrossfadeError} `temporarily_unavailable`: it may be half done, and must be tried again.
   */
  endSubject(subject: string, options: EndSubjectOptions): Promise<number>;
  /**
   * Calls `ended` once this session, or tokens made from it, were ended, by whichever instance: for WebSockets and event
   * streams. Given the principal, also where a session without tokens ends with its person. Gives what stops it.
   */
  onEnded(session: string | EndableSession, ended: () => void | Promise<void>): () => void;
  /** Middleware that serves the console at `/` and `/api/…` to operators: for a port of their own, as `crossfade serve` has. */
  operatorApi(): Middleware;
  readonly metrics: Metrics;
  /** What operators ask: keys, Redis, flags. Never throws. */
  readiness(): Promise<Readiness>;
  /** State of the signing keys. */
  signing(): SigningReport;
  /** Reads the key directory and tests every key now, instead of at the next change or interval. Never rejects. */
  reloadKeys(): Promise<void>;
  /**
   * Reads key files, flags and files with secrets now, and nothing else. `differs`: settings of the configuration on disk that are not those
   * in force; `status` names them until the next call. Never rejects.
   */
  reload(differs?: readonly string[]): Promise<void>;
  /** Ends watches and connections. Requests under way should have been answered before. */
  close(): Promise<void>;
}
