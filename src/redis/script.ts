import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { RedisClient } from './connection.js';

/** A Lua script: runs atomically on the node that holds its keys. Rejects with what ioredis rejects with. */
export type Script = (client: RedisClient, keys: readonly string[], args: readonly (string | number)[]) => Promise<unknown>;

/** Reads `scripts/NAME.lua`. Redis is sent the script's hash, and its text only where it does not know it yet. */
export function loadScript(name: string): Script {
  const text = readFileSync(new URL(`./scripts/${name}.lua`, import.meta.url), 'utf8');
  const hash = createHash('sha1').update(text).digest('hex');

  return async function runScript(client, keys, args) {
    try {
      return await client.evalsha(hash, keys.length, ...keys, ...args);
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error;
      return await client.eval(text, keys.length, ...keys, ...args);
    }
  };
}
