import { hash } from 'node:crypto';
import { createRecent } from '../recent.js';

/** What is known of tokens, under their SHA-256 and never under the tokens themselves: who reads this memory can show none of them. */
export interface RememberedTokens<T extends Remembered> {
  get(digest: string): T | undefined;
  set(digest: string, value: T): void;
  drop(digest: string): void;
}

export interface Remembered {
  /** Of the token, in characters. */
  readonly length: number;
}

export interface RememberedOptions<T> {
  /** So many in any case, and at most twice as many; where tokens are long, as many as are worth so many short ones. */
  readonly max: number;
  /** Whether one that nobody shows is kept any longer. */
  readonly holds: (value: T) => boolean;
  /** Called with how many there are. */
  readonly counted: (size: number) => void;
  readonly nowMs: () => number;
}

/** How often all of them are looked through, while new ones come. */
const SWEEP_MS = 30_000;
/** A token of this length is a short one. */
const SHORT = 1024;

/** The name of a token: 32 bytes, a character each. */
export function digestOf(token: string): string {
  return hash('sha256', token, 'binary');
}

export function createRememberedTokens<T extends Remembered>({ max, holds, counted, nowMs }: RememberedOptions<T>): RememberedTokens<T> {
  const known = createRecent<string, T>({ max, maxWeight: max * SHORT, weigh: ({ length }) => length });
  let sweptAt = nowMs();

  return {
    get: known.get,
    set(digest, value) {
      known.set(digest, value);
      counted(known.size);
      if (nowMs() - sweptAt < SWEEP_MS) return;
      sweptAt = nowMs();
      void known.sweep(holds).then(() => counted(known.size));
    },
    drop(digest) {
      known.delete(digest);
      counted(known.size);
    },
  };
}
