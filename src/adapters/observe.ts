import type { Context, Middleware, Next } from 'koa';
import type { Authenticate, Authentication } from '../http/authenticator.js';
import type { IsOwnRequest } from '../http/own-paths.js';
import type { Principal } from '../principal.js';
import { compare, type ExpectedPrincipal, type Mismatch } from '../rollout/comparison.js';
import { traceOf } from '../telemetry/log.js';
import type { Tools } from '../telemetry/tools.js';

/** Whom the app itself found, once it has answered: a subject, more of a principal, or nobody. Undefined: not compared. */
export type Expected = (ctx: Context) => ExpectedAnswer | Promise<ExpectedAnswer>;
type ExpectedAnswer = string | ExpectedPrincipal | null | undefined;

export interface ObserveOptions extends Pick<Tools, 'log' | 'metrics'> {
  readonly authenticate: Authenticate;
  /** Asked after the app has answered. Undefined: only what the bridge would have found is counted. */
  readonly expected: Expected | undefined;
  /** Requests that are left alone. */
  readonly skips: IsOwnRequest;
}

/** Requests that are looked into at once; more than these pass unseen. */
const AT_ONCE = 64;

/** Middleware that finds out who a request is beside the request, and compares; it never delays, changes or fails one. */
export function createObserve({ authenticate, expected, skips, log, metrics }: ObserveOptions): Middleware {
  let underWay = 0;

  /** Never rejects. Undefined: the bridge could not have known. */
  async function find(ctx: Context): Promise<Authentication | undefined> {
    underWay += 1;
    try {
      const found = await authenticate(ctx.req);
      metrics.observed.inc({ client: found.client.id, outcome: outcomeOf(found) });
      return found;
    } catch (error) {
      metrics.observed.inc({ client: 'unknown', outcome: 'unavailable' });
      log.debug({ failure: traceOf(error) }, 'a request could not be observed');
      return undefined;
    } finally {
      underWay -= 1;
    }
  }

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

  return async function crossfadeObserve(ctx: Context, next: Next): Promise<void> {
    if (skips(ctx)) return await next();
    if (underWay >= AT_ONCE) {
      metrics.observed.inc({ client: 'unknown', outcome: 'left-out' });
      return await next();
    }
    // Read now, as it came: the app may change what the request says of itself.
    const finding = find(ctx);
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

function outcomeOf(found: Authentication): string {
  if (found.kind === 'refused') return found.refusal.code;
  return found.kind === 'anonymous' ? (found.rejection?.reason ?? 'anonymous') : found.principal.via;
}

function differences(ours: Principal | undefined, theirs: ExpectedPrincipal | null): readonly Mismatch[] {
  if (!ours) return theirs === null ? [] : ['only-app'];
  return theirs === null ? ['only-bridge'] : compare(ours, theirs);
}

/** The subject that the app names in a header of its response; an empty one is nobody, none is not compared. */
export function expectedByHeader(name: string): Expected {
  return (ctx) => (ctx.response.headers[name.toLowerCase()] === undefined ? undefined : ctx.response.get(name));
}
