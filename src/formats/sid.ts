import { hash } from 'node:crypto';

/** The public name of a session: 32 characters that do not lead back to the Redis key. */
export function sidOf(entry: string, key: string): string {
  return hash('sha256', `xf-sid\0${entry}\0${key}`, 'base64url').slice(0, 32);
}
