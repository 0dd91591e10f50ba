import type { Fault } from './faults.js';

/** A machine that is busy for a moment is no fault: a server that did not answer in time is asked once more. */
export interface Patience {
  /** What counts of a probe. `before`: what the last one found, by server. */
  judge(server: string, fault: Fault | undefined, before: ReadonlyMap<string, Fault | undefined>): Fault | undefined;
}

export function createPatience(againMs: number, askAgain: () => void): Patience {
  /** Servers that did not answer the last probe in time, once. */
  const slow = new Set<string>();
  return {
    judge(server, fault, before) {
      if (fault?.state !== 'TIMEOUT') {
        slow.delete(server);
        return fault;
      }
      if (slow.has(server)) return fault;
      slow.add(server);
      setTimeout(askAgain, againMs).unref();
      // The first of a connection says nothing that could be believed meanwhile.
      return before.has(server) ? before.get(server) : fault;
    },
  };
}

/** Whether it can be read from, once one of `usable` was told so, or after `timeoutMs`. */
export async function untilUsable(usable: Set<() => void>, canRead: () => boolean, timeoutMs: number): Promise<boolean> {
  return await new Promise<boolean>((resolve) => {
    const timer = setTimeout(settle, timeoutMs, false);
    const onUsable = () => settle(canRead());
    usable.add(onUsable);
    function settle(isReady: boolean) {
      clearTimeout(timer);
      usable.delete(onUsable);
      resolve(isReady);
    }
  });
}
