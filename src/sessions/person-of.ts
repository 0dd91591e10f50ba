import { pseudonym } from '../config/secret.js';

/** A short name for a person, for keys and fields of the bridge's own. */
export function personOf(personKey: Buffer, subject: string): string {
  return pseudonym(personKey, subject).slice(0, 22);
}
