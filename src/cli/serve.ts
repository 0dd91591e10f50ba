import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { closingWhile, sendNotFound } from '../adapters/node.js';
import { createBridge } from '../compose/bridge.js';
import type { Bridge } from '../compose/public.js';
import type { Config } from '../config/config.js';
import { differences } from '../config/differences.js';
import { loadConfig, readSettings } from '../config/load.js';
import { configSchema } from '../config/schema.js';
import { createAdminApp } from '../console/admin.js';
import { errnoOf } from '../errors.js';
import { createLog, type Log } from '../telemetry/log.js';
import { createMetrics } from '../telemetry/metrics.js';
import { listenToSignals } from './signals.js';

export interface ServeOptions {
  readonly config: string;
  readonly logLevel: string;
  /** Lets the instance act though it skips a release, or though Redis holds what it cannot open. */
  readonly force?: boolean;
  readonly why?: string;
}

/**
 * Share of `shutdownSeconds` for which it still answers after SIGTERM while `/readyz` says 503, so that whoever sends the
 * traffic hears of it before the port closes.
 */
const LAME_DUCK = 0.25;

/**
 * A proxy lets larger headers in (nginx 32 KiB), and requests of HTTP/1.0, which name no host: refused here they would be taken for a failure.
 * A connection stays open for longer than proxies keep theirs in a pool (60 s): one that closes it while a POST is on its way loses that.
 */
const SERVER = { maxHeaderSize: 48 * 1024, requireHostHeader: false, keepAliveTimeout: 75_000 };

/** `crossfade serve`: both ports, until SIGTERM or SIGINT; then requests under way are answered, and the status is 0. */
export async function serve(options: ServeOptions): Promise<void> {
  const { force = false, why } = options;
  if (force !== (why !== undefined)) throw new Error('--force and --why go together: the reason is for the audit');
  const signals = listenToSignals();
  const config = await loadConfig(options.config);
  const inForce = readSettings(options.config);
  const log = createLog({ level: options.logLevel });
  const metrics = createMetrics({ processMetrics: true });
  let accepting = false;

  const bridge = await createBridge(config, { log, metrics, ...(why === undefined ? {} : { force: { why } }) });
  if (signals.received !== undefined) {
    await bridge.close();
    log.info({ signal: signals.received }, 'crossfade was asked to end before it had started');
    return;
  }
  const answer: RequestListener = (request, response) => {
    if (!bridge.answer(request, response)) sendNotFound(response);
  };
  const admin = createAdminApp({
    readiness: () => bridge.readiness(),
    registry: metrics.registry,
    accepting: () => accepting,
    api: bridge.operatorApi(),
  });

  const [adminServer, server] = await listenOnBoth(admin.callback(), answer, config, () => !accepting).catch(async (error: unknown) => {
    await bridge.close();
    throw error;
  });
  accepting = true;
  signals.onReload(() => void reload(options.config, inForce, bridge, log));
  log.info({ url: describeAddress(server), admin: describeAddress(adminServer) }, 'crossfade is listening');

  const signal = await signals.ended;
  accepting = false;
  log.info({ signal }, 'draining: not ready for new traffic; requests under way are answered');
  if (signal !== 'SIGINT') await sleep(config.shutdownSeconds * 1000 * LAME_DUCK);
  await drain(server, config.shutdownSeconds, log);
  await drain(adminServer, 0, log);
  await bridge.close();
  log.info('crossfade has ended');
}

async function listenOnBoth(
  admin: RequestListener,
  app: RequestListener,
  config: Pick<Config, 'admin' | 'listen'>,
  isDraining: () => boolean,
): Promise<[Server, Server]> {
  const adminServer = await listen(createServer(SERVER, admin), config.admin, 'admin');
  try {
    return [adminServer, await listen(createServer({ ...SERVER, ServerResponse: closingWhile(isDraining) }, app), config.listen, 'listen')];
  } catch (error) {
    adminServer.close();
    throw error;
  }
}

/** @throws {Error} in words for an operator, where the port cannot be had. */
async function listen(server: Server, { host, port }: { host: string; port: number }, name: string): Promise<Server> {
  // A proxy would take 417 for a failure (RFC 9110, section 10.1.1, lets an expectation be ignored).
  server.on('checkExpectation', (request, response) => server.emit('request', request, response));
  server.listen(port, host);
  try {
    await once(server, 'listening');
  } catch (error) {
    throw new Error(`${name}: cannot listen on ${host}:${port} (${errnoOf(error)})`);
  }
  return server;
}

function describeAddress(server: Server): string {
  const address = server.address();
  if (address === null || typeof address === 'string') return '';
  return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`;
}

/** Key files, flags and files with secrets are read again; what else differs on disk is named. */
async function reload(path: string, inForce: unknown, bridge: Bridge, log: Log): Promise<void> {
  const differs = await settingsThatDiffer(path, inForce);
  log.info({ signal: 'SIGHUP', ...(differs.length > 0 ? { differs } : {}) }, 'reading key files, flags and files with secrets again');
  if (differs.length > 0) log.warn({ differs }, 'the configuration on disk differs from the one in force: restart to apply');
  await bridge.reload(differs);
}

async function settingsThatDiffer(path: string, inForce: unknown): Promise<string[]> {
  try {
    await loadConfig(path);
    return differences(withDefaults(inForce), withDefaults(readSettings(path)));
  } catch (error) {
    return [`everything: ${error instanceof Error ? error.message : 'it cannot be read'}`];
  }
}

/** A default that is written out is no difference. */
function withDefaults(settings: unknown): unknown {
  return configSchema.safeParse(settings).data ?? settings;
}

/** Lets requests under way end, for as long as `seconds`. */
async function drain(server: Server, seconds: number, log: Log): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  server.closeIdleConnections();
  const timer = setTimeout(() => {
    if (seconds > 0) log.warn({ seconds }, 'requests under way took longer than shutdownSeconds and are cut off');
    server.closeAllConnections();
  }, seconds * 1000);
  await closed;
  clearTimeout(timer);
}
