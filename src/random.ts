import { randomBytes } from 'node:crypto';

/** Randomness, passed in so that tests can fix it. */
export interface RandomSource {
  /** Unguessable text of `bytes` bytes, base64url. */
  token(bytes: number): string;
  /** 0 ≤ x < 1; for jitter, not for secrets. */
  fraction(): number;
}

export const systemRandom: RandomSource = {
  token: (bytes) => randomBytes(bytes).toString('base64url'),
  fraction: () => Math.random(),
};
