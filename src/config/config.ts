import type { z } from 'zod';
import { CrossfadeError } from '../errors.js';
import type { configSchema } from './schema.js';
import type { Secret } from './secret.js';

/** The configuration as a person writes it: the object behind the YAML file. */
export type ConfigInput = z.input<typeof configSchema>;

/** What the schema makes of it: defaults filled in, secrets still files. */
export type Parsed = z.output<typeof configSchema>;
export type ParsedConnection = Omit<Parsed['redis'], 'keyPrefix' | 'commandTimeoutMs'>;

/** Where a Redis is and how to enter, with the secrets read. */
export interface RedisTarget {
  readonly url?: Secret;
  readonly cluster?: readonly { readonly host: string; readonly port: number }[];
  readonly sentinels?: readonly { readonly host: string; readonly port: number }[];
  readonly name?: string;
  readonly tls?: boolean | { readonly ca: string };
  readonly username?: string;
  readonly password?: Secret;
}

export type SessionConfig = Omit<
  Parsed['sessions'][number],
  'redis' | 'secretsFile' | 'cookie' | 'keyPrefix' | 'signed' | 'signature' | 'serializeHandler' | 'rolling'
> & {
  readonly cookie: string;
  readonly keyPrefix: string;
  /** How the cookie is signed. */
  readonly signedBy: 'keygrip' | 'express' | 'cookie-signature' | 'none';
  /** How keygrip makes the signature. Default: as Koa does. */
  readonly signature?: { readonly algorithm: string; readonly encoding: 'base64' | 'base64url' | 'hex' } | undefined;
  readonly serializeHandler: 'php' | 'php_serialize';
  readonly rolling: boolean;
  readonly secrets: readonly Secret[];
  readonly redis?: RedisTarget;
};

export type ClientConfig = Omit<Parsed['clients'][number], 'secretHashFile'> & { readonly secretHash?: Secret };

/** The configuration as the program uses it: defaults filled in, paths absolute, secrets read and wrapped, frozen. */
export type Config = Omit<Parsed, 'admin' | 'redis' | 'sessions' | 'clients' | 'fleetSecretFile'> & {
  readonly admin: Omit<Parsed['admin'], 'tokenFile'> & { readonly token?: Secret };
  readonly fleetSecret: Secret;
  readonly redis: RedisTarget & { readonly keyPrefix: string; readonly commandTimeoutMs: number };
  readonly sessions: readonly SessionConfig[];
  readonly clients: readonly ClientConfig[];
};

/** One thing that is wrong, and where: `sessions[0].principal.subject`. */
export interface ConfigProblem {
  readonly path: string;
  readonly message: string;
}

/** Thrown with all problems at once. `message` lists them, a line each. */
export class ConfigError extends CrossfadeError {
  readonly problems: readonly ConfigProblem[];

  constructor(source: string, problems: readonly ConfigProblem[], code: 'config_invalid' | 'config_unreadable' = 'config_invalid') {
    const lines = problems.map(({ path, message }) => `  ${path === '' ? '' : `${path}: `}${message}`);
    super(code, { message: `${source}: ${problems.length === 1 ? '1 problem' : `${problems.length} problems`}\n${lines.join('\n')}` });
    this.name = 'ConfigError';
    this.problems = problems;
  }
}
