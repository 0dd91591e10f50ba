import { traceOf } from '../telemetry/log.js';
import type { Tools } from '../telemetry/tools.js';
import type { Authenticate, Authentication } from './authenticator.js';
import { isVerifyPath, type OwnPathOf } from './own-paths.js';
import type { RequestHead } from './reply.js';
import type { Routes } from './routes.js';
import { allowAnybody } from './verify-endpoint.js';

/** For `mode: observe`: finds out who a request is, beside the request. It never delays, changes or fails one. */
export interface Observer {
  /** Never rejects. Undefined: the bridge could not have known, or too many are looked into already. */
  look(head: RequestHead): Promise<Authentication | undefined>;
}

export interface ObserverOptions extends Pick<Tools, 'log' | 'metrics'> {
  readonly authenticate: Authenticate;
}

/** Requests that are looked into at once; more than these pass unseen. */
const AT_ONCE = 64;

export function createObserver({ authenticate, log, metrics }: ObserverOptions): Observer {
  let underWay = 0;
  return {
    async look(head) {
      if (underWay >= AT_ONCE) {
        metrics.observed.inc({ client: 'unknown', outcome: 'left-out' });
        return undefined;
      }
      underWay += 1;
      try {
        const found = await authenticate(head);
        metrics.observed.inc({ client: found.client.id, outcome: outcomeOf(found) });
        return found;
      } catch (error) {
        metrics.observed.inc({ client: 'unknown', outcome: 'unavailable' });
        log.debug({ failure: traceOf(error) }, 'a request could not be observed');
        return undefined;
      } finally {
        underWay -= 1;
      }
    },
  };
}

function outcomeOf(found: Authentication): string {
  if (found.kind === 'refused') return found.refusal.code;
  return found.kind === 'anonymous' ? (found.rejection?.reason ?? 'anonymous') : found.principal.via;
}

/** Nothing is answered but forward-auth, to which everybody is anonymous. */
export function createObserveRoutes(basePath: string, ownPathOf: OwnPathOf, { look }: Observer): Routes {
  return function observeRoutes(head, url) {
    const path = ownPathOf(url);
    if (path === undefined || !isVerifyPath(path, basePath)) return undefined;
    void look(head);
    return allowAnybody(head);
  };
}
