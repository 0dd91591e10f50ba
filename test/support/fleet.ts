import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '../../scripts/lib/free-port.js';
import type { ConfigInput } from '../../src/config/config.js';
import { type RunningCli, runCli, startCli } from './cli.js';
import type { World } from './world.js';

/** One `crossfade serve`, with a key directory of its own. */
export interface Member {
  readonly name: string;
  readonly url: string;
  readonly admin: string;
  /** Its key directory. */
  readonly keys: string;
  readonly configFile: string;
  /** The process that runs at the moment. */
  readonly cli: RunningCli;
  /** What it has logged since the last start. */
  audits(event: string): Record<string, unknown>[];
  metrics(): Promise<string>;
  /** Writes another configuration; counts from the next start on. */
  configure(change: (config: ConfigInput) => ConfigInput): void;
  /** `main`: the program of another release; from then on it is this one. */
  start(main?: string): Promise<void>;
  /** SIGTERM, as an orchestrator does it; or SIGKILL. */
  stop(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
}

export interface TestFleet {
  readonly members: readonly Member[];
  /** `crossfade COMMAND … --config` of the first member; its standard output. */
  run(...args: string[]): Promise<string>;
  status(): Promise<string>;
  close(): Promise<void>;
}

/** So that a key is tried every second, and signs two seconds after it was first seen. */
const KEYS = { selfTestSeconds: 1, publishSeconds: 2 };

/** Instances on one Redis, each a process of its own, on the sessions of a world; the world's own bridge is none of them. */
export async function startFleet(
  world: World,
  size: number,
  change: (config: ConfigInput) => ConfigInput = (config) => config,
  main?: string,
): Promise<TestFleet> {
  // The machine is busy: that Redis is slow is not what is tried here.
  const redis = { ...world.config.redis, keyPrefix: `${world.config.redis.keyPrefix}fleet:`, commandTimeoutMs: 3000 };
  const members: Member[] = [];
  for (let at = 0; at < size; at++) members.push(await createMember(world, `bridge-${at}`, change({ ...world.config, redis })));
  const [first] = members;
  if (!first) throw new Error('a fleet has at least one instance');
  const { configFile } = first;
  await Promise.all(members.map(async (member) => await member.start(main)));

  async function run(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await runCli([...args, '--config', configFile]);
    if (status !== 0) throw new Error(`crossfade ${args.join(' ')}: status ${status}\n${stdout}${stderr}`);
    return stdout;
  }

  return {
    members,
    run,
    async status() {
      const { stdout, stderr } = await runCli(['status', '--config', configFile]);
      return stdout + stderr;
    },
    async close() {
      await Promise.all(members.map(async (member) => await member.stop('SIGKILL')));
    },
  };
}

async function createMember(world: World, name: string, base: ConfigInput): Promise<Member> {
  const [port, adminPort] = [await freePort(), await freePort()];
  const keys = join(world.directory, `${name}-keys`);
  mkdirSync(keys);
  cpSync(join(world.directory, 'keys'), keys, { recursive: true });
  const configFile = join(world.directory, `${name}.json`);
  let config: ConfigInput = {
    ...base,
    listen: { port },
    admin: { port: adminPort },
    keys: { ...base.keys, ...KEYS, directory: keys },
    // Nobody here waits a minute.
    limits: { ...base.limits, exchangePerSessionPerMinute: 1_000_000 },
    shutdownSeconds: 1,
  };
  writeFileSync(configFile, JSON.stringify(config));
  let cli: RunningCli | undefined;

  const running = (): RunningCli => {
    if (!cli) throw new Error(`${name} was never started`);
    return cli;
  };
  return {
    name,
    url: `http://127.0.0.1:${port}`,
    admin: `http://127.0.0.1:${adminPort}`,
    keys,
    configFile,
    get cli() {
      return running();
    },
    audits: (event) => running().lines.filter((line) => line['audit'] === event),
    metrics: async () => await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text(),
    configure(change) {
      config = change(config);
      writeFileSync(configFile, JSON.stringify(config));
    },
    async start(main) {
      cli = startCli(['serve', '--config', configFile], world.directory, {}, main);
      await cli.logged('crossfade is listening');
    },
    async stop(signal = 'SIGTERM') {
      if (!cli || cli.process.exitCode !== null || cli.process.signalCode !== null) return;
      cli.process.kill(signal);
      await cli.ended();
    },
  };
}

/** Empties a key directory and fills it anew. */
export function replaceKeys({ keys }: Pick<Member, 'keys'>, files: Readonly<Record<string, string>>): void {
  rmSync(keys, { recursive: true });
  mkdirSync(keys);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(keys, name), text, { mode: 0o600 });
}
