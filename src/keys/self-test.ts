import { type KeySource, readJwks } from './jwks.js';
import type { LoadedKey } from './load.js';

/**
 * Signs a token with `key` and verifies it with `keys` under the policy of real traffic. Throws where that fails. It is
 * passed in: the policy belongs to the tokens, which are above the keys.
 */
export type Probe = (key: LoadedKey, keys: KeySource) => Promise<void>;

/**
 * Whether what each key signs verifies through the JWKS as it is served. Gives the reason for each that does not. The document is read
 * once for all: a directory of 200 keys must not read it 200 times.
 */
export async function selfTest(keys: readonly LoadedKey[], servedJwks: string, probe: Probe): Promise<ReadonlyMap<LoadedKey, string>> {
  const failed = new Map<LoadedKey, string>();
  if (keys.length === 0) return failed;
  const served = readJwks(servedJwks);
  for (const key of keys) {
    // A key may sign and verify at once, and there may be many: requests are served in between.
    await new Promise(setImmediate);
    await probe(key, served).catch((error: unknown) => {
      const why = error instanceof Error ? error.message : 'unknown error';
      failed.set(key, `what it signs does not verify through the JWKS (${why}): private and public half may not match`);
    });
  }
  return failed;
}
