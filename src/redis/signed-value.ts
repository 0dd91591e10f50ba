import { createHmac, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import type { Audit } from '../telemetry/audit.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { RedisClient } from './connection.js';
import { parseJson } from './replies.js';

const envelope = z.strictObject({ version: z.int().positive(), payload: z.string(), mac: z.string() });

/** Stands for the content of a key that is no string. */
const WRONG_TYPE = 'a key of another type';

export interface SignedValueOptions<T> {
  readonly client: RedisClient;
  /** The Redis key without prefix: what the value is called in audits and metrics. */
  readonly name: string;
  /** The Redis key. */
  readonly key: string;
  /** Derived from the fleet's secret. */
  readonly macKey: Buffer;
  readonly schema: z.ZodType<T>;
  readonly audit: Audit;
  readonly metrics: Metrics;
}

/**
 * A JSON value in Redis that decides about something, kept under a MAC and a version (law 10). What was written without
 * the fleet's secret, or is older than what this instance has already seen, counts as absent, is audited, and gives way
 * to the next write.
 */
export class SignedValue<T> {
  readonly #options: SignedValueOptions<T>;
  #highestVersion = 0;
  #lastRefused: string | undefined;

  constructor(options: SignedValueOptions<T>) {
    this.#options = options;
  }

  /** The value, or undefined where there is none that counts. Throws what ioredis throws. */
  async read(): Promise<T | undefined> {
    return this.#open(await this.#get());
  }

  /**
   * Replaces the value by what `change` makes of it, atomically; `change` is called again where another instance was
   * faster. Undefined from `change` leaves it as it is. Throws what ioredis throws.
   */
  async update(change: (current: T | undefined) => T | undefined): Promise<T | undefined> {
    for (let attempt = 0; attempt < 10; attempt++) {
      const found = await this.#get();
      const current = this.#open(found);
      const next = change(current);
      if (next === undefined) return current;
      // The time, so that whoever has not seen what Redis has lost does not begin anew below it.
      const version = Math.max(this.#highestVersion + 1, Date.now());
      if (await this.#replace(found, this.#seal(next, version))) {
        this.#highestVersion = version;
        return next;
      }
    }
    throw new Error(`${this.#options.name} was changed by others ten times in a row`);
  }

  /** A key of another type is something that somebody else wrote: it fails the check like any other. */
  async #get(): Promise<string | null> {
    return await this.#options.client.get(this.#options.key).catch((error: unknown) => {
      if (error instanceof Error && error.message.startsWith('WRONGTYPE')) return WRONG_TYPE;
      throw error;
    });
  }

  #seal(value: T, version: number): string {
    const payload = JSON.stringify(value);
    return JSON.stringify({ version, payload, mac: this.#mac(version, payload).toString('base64url') });
  }

  #open(found: string | null): T | undefined {
    if (found === null) return undefined;
    const opened = envelope.safeParse(parseJson(found));
    if (!opened.success) return this.#refuse(found, 'malformed');
    const { version, payload, mac } = opened.data;
    const expected = this.#mac(version, payload);
    const given = Buffer.from(mac, 'base64url');
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return this.#refuse(found, 'bad-mac');
    if (version < this.#highestVersion) return this.#refuse(found, 'replayed');
    const value = this.#options.schema.safeParse(parseJson(payload));
    if (!value.success) return this.#refuse(found, 'unknown-shape');
    this.#highestVersion = version;
    return value.data;
  }

  /** Audited once for each value that stands there, however often it is read. */
  #refuse(found: string, reason: string): undefined {
    if (found !== this.#lastRefused) {
      this.#lastRefused = found;
      this.#options.metrics.refusedValues.inc({ key: this.#options.name });
      this.#options.audit('value.refused', { key: this.#options.name, reason });
    }
    return undefined;
  }

  #mac(version: number, payload: string): Buffer {
    return createHmac('sha256', this.#options.macKey).update(`${this.#options.name}\0${version}\0${payload}`).digest();
  }

  async #replace(expected: string | null, value: string): Promise<boolean> {
    const script = `
      local current = redis.pcall('GET', KEYS[1])
      if type(current) == 'table' then current = '${WRONG_TYPE}' end
      if (current or '') ~= ARGV[1] then return 0 end
      redis.call('SET', KEYS[1], ARGV[2])
      return 1`;
    return (await this.#options.client.eval(script, 1, this.#options.key, expected ?? '', value)) === 1;
  }
}
