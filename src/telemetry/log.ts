import { type DestinationStream, type Logger, pino } from 'pino';

export type Log = Logger;

export interface LogOptions {
  /** pino's levels; `silent` for none. Default `info`. */
  readonly level?: string;
  /** Default: standard output. */
  readonly destination?: DestinationStream;
}

/**
 * A JSON-lines logger. Law 8 is kept by what is handed to it (codes, ids from the config, counts), and by the error
 * serializer: of an error only its name, message and code are written, because ioredis hangs the command with its
 * arguments (session ids) on the errors that it throws, and Redis repeats them in the text of some.
 */
export function createLog({ level = 'info', destination }: LogOptions = {}): Log {
  const options = { name: 'crossfade', level, base: null, timestamp: pino.stdTimeFunctions.isoTime, serializers: { err: describeError } };
  return destination ? pino(options, destination) : pino(options);
}

/** An error as it may be logged. */
export function describeError(error: unknown): { name: string; message: string; code?: string } {
  if (!(error instanceof Error)) return { name: 'NonError', message: typeof error };
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  const message = error.name === 'ReplyError' ? (error.message.split(' ')[0] ?? '') : error.message;
  return { name: error.name, message, ...(code === undefined ? {} : { code }) };
}

/** An error that nobody foresaw: where it happened, without its message, which may quote what was being read. */
export function describeFailure(error: unknown): { name: string; at: string[] } {
  if (!(error instanceof Error)) return { name: typeof error, at: [] };
  const frames = (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line));
  return { name: error.name, at: frames.slice(0, 5).map((line) => line.trim()) };
}
