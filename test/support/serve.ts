import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '../../scripts/lib/free-port.js';
import type { ConfigInput } from '../../src/config/config.js';
import { type RunningCli, startCli } from './cli.js';
import type { World } from './world.js';

export interface Service {
  readonly url: string;
  readonly admin: string;
  readonly configFile: string;
  readonly cli: RunningCli;
  stop(): Promise<void>;
}

/**
 * `crossfade serve` as a process of its own, on the files and the Redis of a world. Its issuer is its own URL: so it is no
 * instance of the world's fleet, unless `configure` says so. `main`: the program of another release.
 */
export async function startService(
  world: World,
  configure: (config: ConfigInput) => ConfigInput = (config) => config,
  main?: string,
): Promise<Service> {
  const [port, adminPort] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${port}`;
  const redis = { ...world.config.redis, keyPrefix: `${world.config.redis.keyPrefix}alone:` };
  const config = configure({ ...world.config, redis, issuer: url, listen: { port }, admin: { port: adminPort, tokenFile: 'admin-token' } });
  const configFile = join(world.directory, `crossfade-${port}.json`);
  writeFileSync(join(world.directory, 'admin-token'), `${ADMIN_TOKEN}\n`);
  writeFileSync(configFile, JSON.stringify(config));
  const cli = startCli(['serve', '--config', configFile], world.directory, {}, main);
  await cli.logged('crossfade is listening');
  return {
    url,
    admin: `http://127.0.0.1:${adminPort}`,
    configFile,
    cli,
    async stop() {
      cli.process.kill('SIGINT');
      await cli.ended();
    },
  };
}

/** Makes a service an instance of the world's own fleet. */
export function ofFleetOf(world: World): (config: ConfigInput) => ConfigInput {
  return (config) => ({ ...config, issuer: world.config.issuer, redis: world.config.redis });
}

export const ADMIN_TOKEN = 'the-admin-token-of-these-tests-60b1d7c2';
