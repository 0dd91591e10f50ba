import type { Principal } from '../principal.js';
import { createRecent } from '../recent.js';

/** What stands in the claims of many tokens, held once: a hundred thousand tokens have few clients, tenants and lists of roles. */
export interface SharedTexts {
  text(text: string): string;
  /** Frozen. */
  list(list: readonly string[]): readonly string[];
  /** What of a principal others are made of as well. */
  share(principal: Principal): Pick<Principal, 'client' | 'tenant' | 'roles' | 'scope'>;
}

const MAX = 10_000;
const MAX_WEIGHT = 4_000_000;

export function createSharedTexts(): SharedTexts {
  const texts = createRecent<string, string>({ max: MAX, maxWeight: MAX_WEIGHT, weigh: ({ length }) => length });
  const lists = createRecent<string, readonly string[]>({ max: MAX, maxWeight: MAX_WEIGHT, weigh: (list) => list.join().length + 16 * list.length });

  function text(given: string): string {
    const known = texts.get(given);
    if (known !== undefined) return known;
    texts.set(given, given);
    return given;
  }

  function list(given: readonly string[]): readonly string[] {
    const key = JSON.stringify(given);
    const known = lists.get(key);
    if (known) return known;
    const frozen = Object.freeze(given.map(text));
    lists.set(key, frozen);
    return frozen;
  }

  return {
    text,
    list,
    share({ client, tenant, roles, scope }) {
      return { client: text(client), roles: list(roles), scope: list(scope), ...(tenant === undefined ? {} : { tenant: text(tenant) }) };
    },
  };
}
