import { randomBytes, randomUUID } from 'node:crypto';

/** Ids that nobody guesses, in the spellings that apps have for theirs. */
export function randomIds(): readonly string[] {
  return [randomUUID(), randomBytes(16).toString('hex'), randomBytes(24).toString('base64url'), randomBytes(32).toString('base64url')];
}
