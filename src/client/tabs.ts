/** An access token as it was given. `expiresAt` in ms, by the clock of this machine. */
export interface AccessToken {
  readonly value: string;
  readonly expiresAt: number;
}

/** What tabs tell each other. */
export type TabMessage = { readonly token: AccessToken } | 'signed-in' | 'signed-out' | 'ask';

/** All tabs of one origin; outside of a browser only this process. */
export interface Tabs {
  /** Does some work, that never rejects, while no other tab does any. */
  alone<T>(work: () => Promise<T>): Promise<T>;
  post(message: TabMessage): void;
  /** Waits a moment for what the other tabs hold, if there are any. */
  ask(): Promise<void>;
  close(): void;
}

interface Locks {
  request<T>(name: string, options: { readonly signal: AbortSignal }, work: () => Promise<T>): Promise<T>;
}

// Where there is no DOM there are no tabs; Node has channels of its own, which are not meant.
declare const document: object | undefined;
declare const navigator: { readonly locks?: Locks } | undefined;

const ANSWER_MS = 60;
/** A tab that the browser has frozen may hold the lock for ever. */
const LOCK_MS = 2000;

/** Web Locks and a BroadcastChannel, where the browser has them; where it does not let them be used, this tab goes on alone. */
export function joinTabs(name: string, heard: (message: TabMessage) => void): Tabs {
  const alone: Tabs = { alone: (work) => work(), post: () => undefined, ask: async () => undefined, close: () => undefined };
  const shared = openShared(name);
  if (!shared) return alone;
  const { locks, channel } = shared;
  let isClosed = false;
  channel.onmessage = ({ data }: { data: TabMessage }) => heard(data);
  const post = (message: TabMessage) => {
    if (!isClosed) channel.postMessage(message);
  };
  return {
    async alone<T>(work: () => Promise<T>) {
      const { signal, clear } = abortAfter(LOCK_MS);
      let done: Promise<T> | undefined;
      const once = () => (done ??= work());
      try {
        return await locks.request(name, { signal }, () => {
          clear();
          return once();
        });
      } catch {
        return await once();
      } finally {
        clear();
      }
    },
    post,
    async ask() {
      post('ask');
      await new Promise((resolve) => setTimeout(resolve, ANSWER_MS));
    },
    close() {
      isClosed = true;
      channel.close();
    },
  };
}

/** Browsers refuse either where a site may store nothing: by a getter or a constructor that throws. */
function openShared(name: string): { readonly locks: Locks; readonly channel: InstanceType<typeof BroadcastChannel> } | undefined {
  try {
    const locks = typeof document === 'undefined' || typeof navigator === 'undefined' ? undefined : navigator.locks;
    return locks && { locks, channel: new BroadcastChannel(name) };
  } catch {
    return undefined;
  }
}

/** AbortSignal.timeout, which Safari has from 16 on and React Native not at all. */
export function abortAfter(ms: number): { readonly signal: AbortSignal; clear(): void } {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), ms);
  return { signal: controller.signal, clear: () => clearTimeout(timer) };
}
