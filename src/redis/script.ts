import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { RedisClient } from './client.js';

/** A Lua script: runs atomically on the node that holds its keys. Rejects with what ioredis rejects with. */
export type Script = (client: RedisClient, keys: readonly string[], args: readonly (string | number | Buffer)[]) => Promise<unknown>;

/** Whether Redis says that a key is of another type: somebody else wrote it, and it counts as absent (law 10). */
export function isWrongType(error: unknown): boolean {
  return error instanceof Error && error.message.includes('WRONGTYPE');
}

/** For the failure of a read: what somebody else has written there counts as absent. */
export function absentIfForeign<T>(absent: T): (error: unknown) => T {
  return (error) => {
    if (isWrongType(error)) return absent;
    throw error;
  };
}

export function readScript(name: string): { readonly text: string; readonly hash: string } {
  const text = readFileSync(new URL(`./scripts/${name}.lua`, import.meta.url), 'utf8');
  return { text, hash: createHash('sha1').update(text).digest('hex') };
}

/**
 * Reads `scripts/NAME.lua`. Redis is sent the script's hash, and its text only where it does not know it yet. `types`: what the
 * keys are, in their order; a key that is of another type is somebody else's, counts as absent, and gives way.
 */
export function loadScript(name: string, types: readonly ('string' | 'hash' | 'zset' | 'stream')[] = []): Script {
  const { text, hash } = readScript(name);

  const run: Script = async (client, keys, args) => {
    try {
      return await client.evalsha(hash, keys.length, ...keys, ...args);
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error;
      return await client.eval(text, keys.length, ...keys, ...args);
    }
  };

  return async function runScript(client, keys, args) {
    try {
      return await run(client, keys, args);
    } catch (error) {
      if (!isWrongType(error)) throw error;
      for (const [at, type] of types.entries()) {
        const key = keys[at];
        if (key !== undefined && ![type, 'none'].includes(await client.type(key))) await client.del(key);
      }
      return await run(client, keys, args);
    }
  };
}
