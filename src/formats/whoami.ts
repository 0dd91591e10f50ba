import CircuitBreaker from 'opossum';
import type { SessionConfig } from '../config/config.js';
import { unavailable } from '../errors.js';
import type { SessionRejection } from '../principal.js';
import type { Tools } from '../telemetry/tools.js';
import type { LocatedSession, SessionFormat, StoredRecord } from './format.js';
import { readJsonRecord } from './json-record.js';
import { createJsonShape } from './json-session.js';
import { endOf } from './keyed-format.js';
import type { RecordStore } from './record-store.js';
import { sidOf } from './sid.js';

/** Whatever can stand in a header: the app alone knows what its cookies look like. */
const COOKIE_VALUE = /^[ -:<-~\x80-\xff]{1,4000}$/;
/** Cookies of the name that are asked about for one request, at most. */
const MAX_COOKIES = 4;
const MAX_BODY_BYTES = 64 * 1024;
/** Questions under way at once, at most; one more cannot be asked. */
const MAX_AT_ONCE = 100;
/** With at least so many failures among the questions of the last 10 s, and half of them failed, none is asked for a while. */
const MIN_QUESTIONS = 10;
const FAILED_PERCENT = 50;
const WINDOW_MS = 10_000;
const PAUSE_MS = 2000;

export type WhoamiConfig = NonNullable<SessionConfig['http']>;

/** `format: http`: the key of a session is the cookie itself, as it came. Nothing is kept, so nothing can be brought back. */
export function createWhoamiFormat({ name: entry, cookie }: Pick<SessionConfig, 'name' | 'cookie'>, { expiresAt }: WhoamiConfig): SessionFormat {
  const { read } = createJsonShape({ storage: 'string', expiresAt });
  return {
    storage: 'text',
    endsWithKey: false,
    cookieNames: [cookie],
    locate: (cookies) =>
      [...new Set(cookies.flatMap(([name, value]) => (name === cookie ? [value] : [])))]
        .map((value): LocatedSession => (COOKIE_VALUE.test(value) ? { key: value, sid: sidOf(entry, value) } : { rejected: 'bad-id' }))
        .sort((one, other) => Number('rejected' in one) - Number('rejected' in other))
        .slice(0, MAX_COOKIES),
    parse: ({ text, ttlMs }, nowMs) => endOf(read(text), ttlMs, nowMs),
    cookiesOf: (value) => [[cookie, value]],
    cookieLife: () => undefined,
    restore: () => undefined,
  };
}

export interface WhoamiOptions extends WhoamiConfig, Pick<Tools, 'log' | 'metrics'> {
  /** Name of the config's entry, for logs and metrics. */
  readonly entry: string;
  readonly cookie: string;
}

export interface Whoami extends RecordStore {
  close(): void;
}

/**
 * Asks the legacy app itself whom a cookie belongs to: one GET to one URL, with this cookie and nothing else of the request. 200 with a
 * JSON object is an answer; 401, 403, 204 or `null` say that it is nobody. Everything else, a redirect included, is no answer: it cannot
 * be known (law 1). Nothing is kept, and an app that does not answer is left alone for a while.
 */
export function createWhoami({ url, cookie, timeoutMs, entry, log, metrics }: WhoamiOptions): Whoami {
  const breaker = new CircuitBreaker(async (value: string) => await askWhoami({ url, timeoutMs }, `${cookie}=${value}`), {
    timeout: false,
    capacity: MAX_AT_ONCE,
    volumeThreshold: MIN_QUESTIONS,
    errorThresholdPercentage: FAILED_PERCENT,
    rollingCountTimeout: WINDOW_MS,
    resetTimeout: PAUSE_MS,
    enableSnapshots: false,
    // Anybody may send a cookie that the app answers with 500: that must not take the others' answers away.
    // Nor must too many at once: that is no fault of the app.
    errorFilter: (error: unknown) => (error instanceof NoAnswer ? error.isOfThisCookie : isOverCapacity(error)),
  });
  breaker.on('open', () => log.error({ entry }, 'the app that is asked whom a cookie belongs to does not answer; not asked for a while'));
  breaker.on('close', () => log.info({ entry }, 'the app that is asked whom a cookie belongs to answers again'));
  const count = (outcome: 'answered' | 'nobody' | 'failed') => metrics.whoamiAnswers.inc({ entry, outcome });

  return {
    async read(value): Promise<StoredRecord | SessionRejection> {
      const text = await breaker.fire(value).catch((cause: unknown) => {
        count('failed');
        throw unavailable('whoami', cause instanceof Error ? cause : undefined);
      });
      count(text === undefined ? 'nobody' : 'answered');
      return text === undefined ? 'unknown-session' : { text, ttlMs: -1 };
    },
    create: async () => undefined,
    remove: async () => undefined,
    removeSame: async () => false,
    close: () => breaker.shutdown(),
  };
}

function isOverCapacity(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ESEMLOCKED';
}

/** Why there was no answer; never with anything that was sent or received. */
class NoAnswer extends Error {
  override readonly name = 'NoAnswer';
  /** Whether another cookie may well get one. */
  readonly isOfThisCookie: boolean;

  constructor(message: string, { isOfThisCookie = false }: { isOfThisCookie?: boolean } = {}) {
    super(message);
    this.isOfThisCookie = isOfThisCookie;
  }
}

/** One question, without a cookie if none is given. Gives the JSON object of the answer; undefined: nobody. Throws where there is no answer. */
export async function askWhoami({ url, timeoutMs }: Pick<WhoamiConfig, 'url' | 'timeoutMs'>, cookie?: string): Promise<string | undefined> {
  let response: Response;
  let text: string;
  try {
    const headers = { ...(cookie === undefined ? {} : { cookie }), accept: 'application/json', 'user-agent': 'crossfade' };
    response = await fetch(url, { headers, redirect: 'manual', signal: AbortSignal.timeout(timeoutMs) });
    text = await readBody(response);
  } catch (error) {
    throw error instanceof NoAnswer ? error : new NoAnswer(`does not answer (${nameOf(error)})`);
  }
  const { status } = response;
  if (status === 401 || status === 403 || status === 204 || (status === 200 && /^\s*(null)?\s*$/.test(text))) return undefined;
  if (status !== 200) {
    const isOfThisCookie = ![502, 503, 504].includes(status);
    throw new NoAnswer(`answered ${status}; 200 with a JSON object, or 401 for nobody, is an answer`, { isOfThisCookie });
  }
  if (!readJsonRecord(text)) throw new NoAnswer('answered 200 without a JSON object; 401 is for nobody', { isOfThisCookie: true });
  return text;
}

async function readBody(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength;
    // Leaving the loop ends the connection.
    if (bytes > MAX_BODY_BYTES) throw new NoAnswer('answered with more than 64 KiB', { isOfThisCookie: true });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** `TimeoutError`, or what the network called it. */
function nameOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown error';
  const { cause } = error;
  return cause instanceof Error && 'code' in cause && typeof cause.code === 'string' ? cause.code : error.name;
}
