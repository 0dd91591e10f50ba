import { writeSync } from 'node:fs';
import { type DestinationStream, pino } from 'pino';

interface WriteLine {
  (fields: object, message: string): void;
  (message: string): void;
}

/** What the bridge logs to: pino's own order of arguments. */
export interface Log {
  readonly debug: WriteLine;
  readonly info: WriteLine;
  readonly warn: WriteLine;
  readonly error: WriteLine;
}

const LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LEVELS)[number];

/** An app's own logger: pino and bunyan as they are, others with a function that turns the arguments around. */
export type AppLog = Readonly<Record<LogLevel, (fields: object, message: string) => unknown>>;

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
  return pino(options, destination ?? standardOutput());
}

/**
 * Writes to the app's logger. Law 8 is kept whatever that one makes of an error; one that throws or rejects costs a line, never a request.
 * @throws {TypeError} where a level is missing: its lines would be lost without a word.
 */
export function adoptLog(app: AppLog): Log {
  for (const level of LEVELS)
    if (typeof app[level] !== 'function') throw new TypeError(`log: has no function ${level}(fields, message); docs/in-app.md shows an adapter`);
  const write = (level: LogLevel) => (first: object | string, message?: string) => {
    const [fields, text] = typeof first === 'string' ? [{}, first] : [first, message ?? ''];
    try {
      const written = app[level]('err' in fields ? { ...fields, err: describeError(fields.err) } : fields, text);
      if (written instanceof Promise) written.catch(() => undefined);
    } catch {}
  };
  return { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
}

/** How often a full pipe is tried again, and after how many ms. */
const TRIES = 20;
const TRY_AGAIN_MS = 5;

/**
 * Standard output, which may be a file on a full disk or a pipe that nobody reads. pino's own destination keeps what it could not write, and
 * tries for ever when the process ends. Here a line that cannot be written is dropped and counted: requests matter more (laws 1 and 7).
 */
function standardOutput(): DestinationStream {
  let lost = 0;
  /** The end of a line of which a part was written. */
  let begun: Buffer = Buffer.alloc(0);
  const asleep = new Int32Array(new SharedArrayBuffer(4));

  /** Gives what could not be written. Waits for a reader that is slow, but no more once a line was lost. */
  function put(bytes: Buffer): Buffer {
    let rest: Buffer = bytes;
    for (let tries = lost > 0 ? 1 : TRIES; tries > 0 && rest.length > 0; tries--) {
      try {
        rest = rest.subarray(writeSync(1, rest));
      } catch (error) {
        if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) return rest;
        if (tries > 1) Atomics.wait(asleep, 0, 0, TRY_AGAIN_MS);
      }
    }
    return rest;
  }

  /** False: nothing of it was written. */
  function putLine(line: string): boolean {
    begun = put(begun);
    if (begun.length > 0) return false;
    const bytes = Buffer.from(line);
    const rest = put(bytes);
    if (rest.length === bytes.length) return false;
    begun = rest;
    return true;
  }

  return {
    write(line) {
      if (!putLine(line)) lost += 1;
      else if (lost > 0 && putLine(describeLoss(lost))) lost = 0;
    },
  };
}

function describeLoss(lost: number): string {
  const msg = 'lines of this log could not be written and are lost';
  return `${JSON.stringify({ level: 40, name: 'crossfade', time: new Date().toISOString(), lost, msg })}\n`;
}

interface DescribedError {
  readonly name: string;
  readonly message: string;
  readonly code?: string;
}

/** Descriptions are not described again where one logger hands them to the next. */
const described = new WeakSet<object>();

/** An error as it may be logged. */
function describeError(error: unknown): DescribedError {
  const description = isDescribed(error) ? error : describe(error);
  described.add(description);
  return description;
}

function isDescribed(error: unknown): error is DescribedError {
  return typeof error === 'object' && error !== null && described.has(error);
}

function describe(error: unknown): DescribedError {
  if (!(error instanceof Error)) return { name: 'NonError', message: typeof error };
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  const message = error.name === 'ReplyError' ? (error.message.split(' ')[0] ?? '') : error.message;
  return { name: error.name, message, ...(code === undefined ? {} : { code }) };
}

/** An error that nobody foresaw: where it happened, without its message, which may quote what was being read. */
export function traceOf(error: unknown): { name: string; at: string[] } {
  if (!(error instanceof Error)) return { name: typeof error, at: [] };
  const frames = (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line));
  return { name: error.name, at: frames.slice(0, 5).map((line) => line.trim()) };
}
