import { cpSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ConfigInput } from '../../src/config/config.js';
import { type RunningCli, runCli, startCli } from '../lib/cli-process.js';
import { freePort } from '../lib/free-port.js';

/** One `crossfade serve`, with a key directory of its own. */
export interface BridgeProcess {
  readonly name: string;
  readonly url: string;
  readonly admin: string;
  readonly keys: string;
  readonly configFile: string;
  start(env?: Readonly<Record<string, string>>): Promise<void>;
  /** SIGTERM, as an orchestrator does it; resolves when it has ended. */
  stop(): Promise<void>;
  /** Sends a signal to the living process. */
  signal(name: NodeJS.Signals): void;
  /** Changes the configuration file; in force from the next start on. */
  configure(change: (config: ConfigInput) => ConfigInput): void;
  /** What it has logged, of every start. */
  log(): string;
  /** What `/readyz` says of signing. */
  signing(): Promise<string>;
  /** `crossfade COMMAND …` with its configuration. */
  run(...args: string[]): Promise<string>;
}

export async function createBridgeProcess(directory: string, name: string, base: ConfigInput): Promise<BridgeProcess> {
  const [port, adminPort] = [await freePort(), await freePort()];
  const keys = join(directory, `${name}-keys`);
  mkdirSync(keys);
  cpSync(join(directory, 'keys'), keys, { recursive: true });
  const configFile = join(directory, `${name}.json`);
  let config: ConfigInput = {
    ...base,
    listen: { port },
    admin: { port: adminPort, tokenFile: 'admin-token' },
    keys: { ...base.keys, directory: keys },
  };
  writeFileSync(configFile, JSON.stringify(config));
  let cli: RunningCli | undefined;
  const starts: RunningCli[] = [];
  const admin = `http://127.0.0.1:${adminPort}`;
  return {
    name,
    url: `http://127.0.0.1:${port}`,
    admin,
    keys,
    configFile,
    async start(env) {
      cli = startCli(['serve', '--config', configFile, '--log-level', 'info'], directory, env);
      starts.push(cli);
      await cli.logged('crossfade is listening');
    },
    async stop() {
      if (!cli || !isAlive(cli)) return;
      cli.process.kill('SIGTERM');
      await cli.ended();
    },
    signal(name) {
      cli?.process.kill(name);
    },
    configure(change) {
      config = change(config);
      writeFileSync(configFile, JSON.stringify(config));
    },
    log: () => starts.map((one) => one.text()).join('\n'),
    async signing() {
      const answer: unknown = await (await fetch(`${admin}/readyz`)).json();
      return answer !== null && typeof answer === 'object' && 'signing' in answer ? String(answer.signing) : 'unknown';
    },
    async run(...args) {
      const { status, stdout, stderr } = await runCli([...args, '--config', configFile], directory);
      if (status !== 0) throw new Error(`crossfade ${args.join(' ')}: status ${status}\n${stdout}${stderr}`);
      return stdout;
    },
  };
}

const isAlive = ({ process }: RunningCli) => process.exitCode === null && process.signalCode === null;

/** Empties a key directory and fills it anew. */
export function replaceKeys(directory: string, files: ReadonlyMap<string, string>): void {
  for (const name of readdirSync(directory)) rmSync(join(directory, name));
  for (const [name, text] of files) writeFileSync(join(directory, name), text, { mode: 0o600 });
}
