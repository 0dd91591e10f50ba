import { systemClock } from '../clock.js';
import { loadConfig } from '../config/load.js';
import { CrossfadeError } from '../errors.js';
import { Connections, createLifecycle, systemRandom } from '../lifecycle.js';
import { createAudit } from '../telemetry/audit.js';
import { createLog } from '../telemetry/log.js';
import { createMetrics } from '../telemetry/metrics.js';
import { print } from './print.js';

export interface EndOptions {
  readonly config: string;
  readonly subject: string;
  readonly why: string;
  readonly exceptSid?: string;
  readonly json?: boolean;
}

/** How long Redis may take to answer at first. */
const REDIS_START_MS = 3000;

/** `crossfade end`: goes to Redis itself, so that it works whether or not an instance answers. The audit line goes to standard error. */
export async function end({ config: path, subject, why, exceptSid, json = false }: EndOptions): Promise<void> {
  const config = await loadConfig(path);
  const quiet = createLog({ level: 'silent' });
  const audit = createAudit(createLog({ destination: process.stderr }));
  const metrics = createMetrics();
  const connections = new Connections(config, quiet, metrics);
  await connections.ready(REDIS_START_MS);
  const lifecycle = createLifecycle({ config, connections, random: systemRandom, clock: systemClock, log: quiet, audit, metrics });
  try {
    const sessions = await lifecycle.persons.end(subject, { why, ...(exceptSid === undefined ? {} : { exceptSid }) });
    if (json) print.json({ sessions });
    else {
      print.line(
        `Ended: ${sessions === 1 ? '1 session' : `${sessions} sessions`} that tokens were made from, all tokens, and every login before this moment.`,
      );
      print.line("Sessions that the bridge never saw and whose record holds no time of the login are the app's own to end.");
    }
  } catch (error) {
    if (!(error instanceof CrossfadeError) || error.code !== 'temporarily_unavailable') throw error;
    throw new Error('Redis does not answer: it may be half done. Run the same again.');
  } finally {
    lifecycle.close();
    connections.close();
  }
}
