import { describe, expect, it } from 'vitest';
import { createAudit } from '../../src/telemetry/audit.js';
import { type AppLog, adoptLog } from '../../src/telemetry/log.js';

function collect(): { readonly app: AppLog; readonly lines: [string, object, string][] } {
  const lines: [string, object, string][] = [];
  const at = (level: string) => (fields: object, message: string) => void lines.push([level, fields, message]);
  return { app: { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }, lines };
}

describe('the logger of the app', () => {
  it('gets fields and a message at each level, also where there are no fields', () => {
    const { app, lines } = collect();
    const log = adoptLog(app);
    log.debug('one');
    log.info({ a: 1 }, 'two');
    log.warn({ b: 2 }, 'three');
    log.error('four');
    expect(lines).toEqual([
      ['debug', {}, 'one'],
      ['info', { a: 1 }, 'two'],
      ['warn', { b: 2 }, 'three'],
      ['error', {}, 'four'],
    ]);
  });

  it('never gets what a Redis client hangs on its errors (law 8)', () => {
    const { app, lines } = collect();
    const error = Object.assign(new Error("WRONGTYPE Operation against 'sess:the-session-id'"), {
      name: 'ReplyError',
      command: { name: 'get', args: ['sess:the-session-id'] },
    });
    adoptLog(app).warn({ err: error }, 'Redis refuses');
    expect(lines).toEqual([['warn', { err: { name: 'ReplyError', message: 'WRONGTYPE' } }, 'Redis refuses']]);
  });

  it('may throw: that costs its line and no request', () => {
    const fails = () => {
      throw new Error('disk full');
    };
    const log = adoptLog({ debug: fails, info: fails, warn: fails, error: fails });
    expect(() => log.error({ a: 1 }, 'x')).not.toThrow();
  });

  it('may reject: nobody hears of it', async () => {
    const unheard: unknown[] = [];
    const note = (reason: unknown) => void unheard.push(reason);
    process.on('unhandledRejection', note);
    const rejects = async () => await Promise.reject(new Error('away'));
    adoptLog({ debug: rejects, info: rejects, warn: rejects, error: rejects }).error('x');
    await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', note);
    expect(unheard).toEqual([]);
  });

  it('must have every level', () => {
    // @ts-expect-error what a program in JavaScript may hand over
    expect(() => adoptLog({ info: () => undefined })).toThrow('log: has no function debug(fields, message)');
  });
});

it.each([
  ['exchange.granted', {}, 'info'],
  ['key.rejected', {}, 'error'],
  ['value.refused', {}, 'error'],
  ['flags.failed', {}, 'error'],
  ['signing.changed', { to: 'degraded' }, 'warn'],
  ['signing.changed', { to: 'broken' }, 'error'],
  ['signing.changed', { to: 'healthy' }, 'info'],
] as const)('%s %o is told at the level %s', (event, fields, level) => {
  const { app, lines } = collect();
  createAudit(adoptLog(app))(event, fields);
  expect(lines).toEqual([[level, { audit: event, ...fields }, event]]);
});
