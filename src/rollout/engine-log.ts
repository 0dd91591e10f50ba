import type { LDClient, LDLogger } from 'launchdarkly-node-server-sdk';
import type { Log } from '../telemetry/log.js';

const REPEAT_MS = 60_000;
const MAX_TOLD = 200;

/** Errors of evaluations (a flag that is not there) come with every evaluation: each is told once until flags change. */
export function reportErrors(client: LDClient, log: Log): void {
  const told = new Set<string>();
  client.on('update', () => told.clear());
  client.on('error', (error: unknown) => {
    const message = error instanceof Error ? error.message : 'unknown error';
    if (told.has(message) || told.size >= MAX_TOLD) return;
    told.add(message);
    log.warn({ err: error }, 'the flag engine reports an error');
  });
}

/** The SDK's warnings and errors, in our log; its chatter is left out. `secret` is cut out of what it says. */
export function engineLogger(log: Log, secret?: string): LDLogger {
  const toldAt = new Map<string, number>();
  const say =
    (level: 'warn' | 'error') =>
    (...words: unknown[]): void => {
      const text = words.map((word) => (typeof word === 'string' ? word : word instanceof Error ? word.message : '')).join(' ');
      // It repeats itself with every evaluation.
      const now = performance.now();
      if (now - (toldAt.get(text) ?? Number.NEGATIVE_INFINITY) < REPEAT_MS) return;
      if (toldAt.size >= MAX_TOLD) toldAt.clear();
      toldAt.set(text, now);
      log[level]({ source: 'launchdarkly-sdk' }, secret ? text.replaceAll(secret, '[secret]') : text);
    };
  return { error: say('error'), warn: say('warn'), info: () => undefined, debug: () => undefined };
}
