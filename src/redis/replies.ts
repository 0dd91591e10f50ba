import { unavailable } from '../errors.js';

/** What Redis answers; where it does not, the answer is that it cannot be known (law 1). @throws {CrossfadeError} `temporarily_unavailable`. */
export async function asking<T>(work: Promise<T>): Promise<T> {
  return await work.catch(cannotKnow);
}

/** @throws {CrossfadeError} `temporarily_unavailable`, for what Redis or the network said. */
export function cannotKnow(cause: unknown): never {
  throw unavailable('redis', cause);
}

/** The value of a JSON text; undefined for what is none: in Redis anybody may have written. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
