import type { Context, Middleware } from 'koa';
import type { Authentication } from '../endpoints/authenticator.js';
import type { Observer } from '../endpoints/observer.js';
import type { OwnPathOf } from '../endpoints/own-paths.js';
import type { Principal } from '../principal.js';
import { compare, type ExpectedPrincipal, type Mismatch } from '../rollout/comparison.js';
import { traceOf } from '../telemetry/log.js';
import type { Tools } from '../telemetry/tools.js';

/** Whom the app itself found, once it has answered: a subject, more of a principal, or nobody. Undefined: not compared. */
export type Expected = (ctx: Context) => ExpectedAnswer | Promise<ExpectedAnswer>;
type ExpectedAnswer = string | ExpectedPrincipal | null | undefined;

export interface ObserveOptions extends Pick<Tools, 'log' | 'metrics'> {
  readonly observer: Observer;
  /** Asked after the app has answered. Undefined: only what the bridge would have found is counted. */
  readonly expected: Expected | undefined;
  /** Requests of these paths are left alone. */
  readonly ownPathOf: OwnPathOf;
}

/** Middleware that compares whom the bridge finds with whom the app has found. */
export function koaObserve({ observer, expected, ownPathOf, log, metrics }: ObserveOptions): Middleware {
  /** Never rejects. */
  async function compareWith(ctx: Context, finding: Promise<Authentication | undefined>): Promise<void> {
    try {
      const answer = await expected?.(ctx);
      const found = await finding;
      if (!found || answer === undefined) return;
      const theirs = typeof answer === 'string' ? (answer === '' ? null : { subject: answer }) : answer;
      for (const code of differences(principalOf(found), theirs)) metrics.mismatches.inc({ where: 'observe', code });
    } catch (error) {
      metrics.observed.inc({ client: 'unknown', outcome: 'expected-failed' });
      log.warn({ failure: traceOf(error) }, 'observe.expected failed: this request was not compared');
    }
  }

  return async function crossfadeObserve(ctx, next) {
    if (ownPathOf(ctx.url) !== undefined) return await next();
    // Read now, as it came: the app may change what the request says of itself.
    const finding = observer.look(ctx.req);
    try {
      await next();
    } finally {
      void compareWith(ctx, finding);
    }
  };
}

/** Also of a session that a stage would send to the exchange first: what is compared comes before all stages. */
function principalOf(found: Authentication): Principal | undefined {
  return found.kind === 'anonymous' ? undefined : found.principal;
}

function differences(ours: Principal | undefined, theirs: ExpectedPrincipal | null): readonly Mismatch[] {
  if (!ours) return theirs === null ? [] : ['only-app'];
  return theirs === null ? ['only-bridge'] : compare(ours, theirs);
}

/** The subject that the app names in a header of its response; an empty one is nobody, none is not compared. */
export function expectedByHeader(name: string): Expected {
  return (ctx) => (ctx.response.headers[name.toLowerCase()] === undefined ? undefined : ctx.response.get(name));
}
