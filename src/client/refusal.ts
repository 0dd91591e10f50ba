/** How long a refused exchange that nobody asked for is not tried again. */
const REMEMBER_MS = 600_000;

/** A refused exchange, for this page and those after it. A browser may refuse to store anything: then for this page. */
export function createRefusal(name: string): { isRecent(): boolean; note(): void; forget(): void } {
  let until = 0;
  const stored = (use: (storage: Store) => unknown): unknown => {
    try {
      return typeof sessionStorage === 'undefined' ? undefined : use(sessionStorage);
    } catch {
      return undefined;
    }
  };
  return {
    isRecent: () => Math.max(until, Number(stored((storage) => storage.getItem(name)) ?? 0)) > Date.now(),
    note() {
      until = Date.now() + REMEMBER_MS;
      stored((storage) => storage.setItem(name, String(until)));
    },
    forget() {
      until = 0;
      stored((storage) => storage.removeItem(name));
    },
  };
}

interface Store {
  getItem(name: string): string | null;
  setItem(name: string, value: string): void;
  removeItem(name: string): void;
}

declare const sessionStorage: Store | undefined;
