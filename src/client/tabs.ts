import type { AccessToken } from './grants.js';

/** What tabs tell each other. */
export type TabMessage = { readonly token: AccessToken } | 'signed-in' | 'signed-out' | 'ask';

/** All tabs of one origin; outside of a browser only this process. */
export interface Tabs {
  /** Does some work, that never rejects, while no other tab does any. */
  alone<T>(work: () => Promise<T>): Promise<T>;
  tell(message: TabMessage): void;
  /** Waits a moment for what the other tabs hold, if there are any. */
  ask(): Promise<void>;
  close(): void;
}

interface Locks {
  request<T>(name: string, work: () => Promise<T>): Promise<T>;
}

// Where there is no DOM there are no tabs; Node has channels of its own, which are not meant.
declare const document: object | undefined;
declare const navigator: { readonly locks?: Locks } | undefined;

const ANSWER_MS = 60;

/** Web Locks and a BroadcastChannel, where the browser has them; where it does not let them be used, this tab goes on alone. */
export function joinTabs(name: string, heard: (message: TabMessage) => void): Tabs {
  const locks = typeof document === 'undefined' || typeof navigator === 'undefined' ? undefined : navigator.locks;
  const alone: Tabs = { alone: (work) => work(), tell: () => undefined, ask: async () => undefined, close: () => undefined };
  if (!locks || typeof BroadcastChannel === 'undefined') return alone;
  const channel = new BroadcastChannel(name);
  let isClosed = false;
  channel.onmessage = ({ data }: { data: TabMessage }) => heard(data);
  const tell = (message: TabMessage) => {
    if (!isClosed) channel.postMessage(message);
  };
  return {
    alone: (work) => locks.request(name, work).catch(work),
    tell,
    async ask() {
      tell('ask');
      await new Promise((resolve) => setTimeout(resolve, ANSWER_MS));
    },
    close() {
      isClosed = true;
      channel.close();
    },
  };
}
