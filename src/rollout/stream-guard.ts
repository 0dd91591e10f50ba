import type { LDClientContext } from 'launchdarkly-node-server-sdk';

export interface StreamEvents {
  /** The stream stands. */
  opened(): void;
  /** The stream broke, and the SDK tries again. */
  retrying(): void;
  /** The SDK threw while it read what came. */
  unreadable(error: unknown): void;
}

/**
 * Stands between the SDK and its event stream. The SDK reads flags inside the stream's own callback: a flag that it cannot
 * read would end the process. And it tells nobody whether the stream stands.
 */
export function guardStream({ platform: { requests } }: LDClientContext, events: StreamEvents): void {
  const create = requests.createEventSource.bind(requests);
  requests.createEventSource = (url, options) => {
    const source = create(url, options);
    return new Proxy(source, {
      get(target, name) {
        if (name === 'addEventListener') {
          return (type: string, listener: (event?: { data?: unknown }) => void) =>
            target.addEventListener(type, (event) => ownFaults(() => listener(event), events));
        }
        const member: unknown = Reflect.get(target, name);
        return typeof member === 'function' ? member.bind(target) : member;
      },
      set(target, name, value: unknown) {
        const told = name === 'onopen' ? events.opened : name === 'onretrying' ? events.retrying : undefined;
        if (!told || typeof value !== 'function') return Reflect.set(target, name, value);
        return Reflect.set(target, name, (...args: unknown[]) => {
          told();
          return value(...args);
        });
      },
    });
  };
}

function ownFaults(read: () => void, events: StreamEvents): void {
  try {
    read();
  } catch (error) {
    events.unreadable(error);
  }
}
