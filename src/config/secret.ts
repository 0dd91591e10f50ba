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

/** What names are made with. They stay while secrets rotate: another name for a person would be another person. */
const PSEUDONYM_PURPOSES = ['person', 'subject', 'traffic', 'cookie-secret', 'settings'] as const;
export type PseudonymKeys = Readonly<Record<(typeof PSEUDONYM_PURPOSES)[number], Buffer>>;

const KEY_BYTES = 32;
export const PSEUDONYM_BYTES = KEY_BYTES * PSEUDONYM_PURPOSES.length;

/** The line `pseudonyms=` of a fleet whose names come from this secret: it tells nothing of the secret. */
export function pseudonymsOf(fleetSecret: Secret): Secret {
  const keys = PSEUDONYM_PURPOSES.map((purpose) => deriveKey(fleetSecret, purpose));
  return new Secret(Buffer.concat(keys).toString('base64url'));
}

export function readPseudonyms(line: Secret): PseudonymKeys {
  const bytes = Buffer.from(line.reveal(), 'base64url');
  const keyOf = (purpose: keyof PseudonymKeys) => {
    const at = PSEUDONYM_PURPOSES.indexOf(purpose) * KEY_BYTES;
    return bytes.subarray(at, at + KEY_BYTES);
  };
  return {
    person: keyOf('person'),
    subject: keyOf('subject'),
    traffic: keyOf('traffic'),
    'cookie-secret': keyOf('cookie-secret'),
    settings: keyOf('settings'),
  };
}

/** A stable name for `value` that says nothing of it to anyone without the key. */
export function pseudonym(key: Buffer, value: string): string {
  return createHmac('sha256', key).update(value).digest('base64url');
}
