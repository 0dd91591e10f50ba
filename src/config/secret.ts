import { createHmac, hkdfSync } from 'node:crypto';
import { inspect } from 'node:util';

/** A value that must not leave: every way of printing it gives `[secret]`. */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  /** The value itself, for the one place that uses it. */
  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return '[secret]';
  }

  toJSON(): string {
    return '[secret]';
  }

  [inspect.custom](): string {
    return '[secret]';
  }
}

/**
 * A 32-byte key for one purpose, derived from the fleet's secret (HKDF-SHA256, RFC 5869), so that no two uses share a key.
 */
export function deriveKey(fleetSecret: Secret, purpose: string): Buffer {
  const secret = Buffer.from(fleetSecret.reveal(), 'base64url');
  return Buffer.from(hkdfSync('sha256', secret, Buffer.alloc(0), `crossfade v1 ${purpose}`, 32));
}

/** A stable name for `value` that says nothing of it to anyone without the key. */
export function pseudonym(key: Buffer, value: string): string {
  return createHmac('sha256', key).update(value).digest('base64url');
}
