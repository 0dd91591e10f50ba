import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { z } from 'zod';
import { pseudonymsOf, Secret } from '../../src/config/secret.js';
import { FleetSecrets } from '../../src/redis/fleet-keyring.js';
import { runCli } from './cli.js';
import { remember } from './transcript.js';
import type { World } from './world.js';

export function makeSecret(): Secret {
  return new Secret(randomBytes(32).toString('base64url'));
}

/** Newest first, as in the file; the last one is the one that the fleet began with. */
export function holdSecrets(...secrets: Secret[]): FleetSecrets {
  const first = secrets.at(-1);
  if (!first) return new FleetSecrets({ secrets: [makeSecret()] });
  return new FleetSecrets(secrets.length === 1 ? { secrets } : { secrets, pseudonyms: pseudonymsOf(first) });
}

/** `crossfade secrets add` on the file of a world; resolves when its fleet writes with the new one. `config`: a file for commands. */
export async function rotateFleetSecret(world: World): Promise<{ config: string; added: string; before: string }> {
  const config = join(world.directory, 'command.json');
  writeFileSync(config, JSON.stringify(world.config));
  const { stdout, stderr } = await runCli(['secrets', 'add', '--json', '--config', config]);
  expect(stderr).toBe('');
  const { added, secrets } = z.object({ added: z.string(), secrets: z.array(z.string()) }).parse(JSON.parse(stdout));
  remember(...world.readFile('fleet-secret').trim().replaceAll('pseudonyms=', '').split('\n'));
  const state = async () => {
    const list = JSON.parse((await runCli(['secrets', 'list', '--json', '--config', config])).stdout);
    return list.fleet.find(({ name }: { name: string }) => name === added)?.state;
  };
  await expect.poll(state, { timeout: 20_000, interval: 500 }).toBe('writes');
  return { config, added, before: secrets[1] ?? '' };
}
