import { type KeySource, readJwks } from './jwks.js';
import type { LoadedKey } from './load.js';

/**
 * Signs a token with `key` and verifies it with `keys` under the policy of real traffic. Throws where that fails. It is
 * passed in: the policy belongs to the tokens, which are above the keys.
 */
export type Probe = (key: LoadedKey, keys: KeySource) => Promise<void>;

/** Whether what `key` signs verifies through the JWKS as it is served; the reason where it does not. */
export async function selfTest(key: LoadedKey, servedJwks: string, probe: Probe): Promise<string | undefined> {
  try {
    await probe(key, readJwks(servedJwks));
    return undefined;
  } catch (error) {
    return `what it signs does not verify through the JWKS (${error instanceof Error ? error.message : 'unknown error'}): private and public half may not match`;
  }
}
