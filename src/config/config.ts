import type { z } from 'zod';
import { CrossfadeError } from '../errors.js';
import type { configSchema } from './schema.js';
import type { Secret } from './secret.js';
import type { SerializeHandler, SignedBy } from './session-formats.js';
import type { WrittenSetting } from './written-settings.js';

/** The configuration as a person writes it: the object behind the YAML file. */
export type ConfigInput = z.input<typeof configSchema>;

/** What the schema makes of it: defaults filled in, secrets still files. */
export type Parsed = z.output<typeof configSchema>;
export type ParsedConnection = Omit<Parsed['redis'], 'keyPrefix' | 'commandTimeoutMs'>;

/** Host and port of a server. */
export interface NodeAddress {
  readonly host: string;
  readonly port: number;
}

/** `ca`: PEM; without it the CAs that Node.js knows. `servername`: the name that certificates must have. */
export interface TlsTarget {
  readonly ca?: string | undefined;
  readonly servername?: string | undefined;
}

/** What a Redis lets in, and where its database is: all of it may stand in files that change while the bridge runs. */
export interface RedisAccess {
  /** Of a single server: what its URL says. */
  readonly server?: NodeAddress & { readonly database: number };
  readonly username?: string;
  readonly password?: Secret;
  /** Undefined: no TLS. */
  readonly tls?: TlsTarget;
  readonly sentinel?: { readonly username?: string; readonly password?: Secret; readonly tls?: TlsTarget };
}

/** Where a Redis is and how to enter. */
export interface RedisTarget {
  readonly cluster?: readonly NodeAddress[];
  readonly sentinels?: readonly NodeAddress[];
  /** Of the master that the sentinels watch. */
  readonly name?: string;
  readonly database?: number;
  /** As the files had it when the configuration was loaded. */
  readonly access: RedisAccess;
  /** The same as it is in the files now. */
  readonly readAccess: (current: RedisAccess) => Reread<RedisAccess>;
  /** The files that it was read from. */
  readonly files: readonly string[];
  /** Whether the configuration itself holds the password, in `url`. */
  readonly hasPlainPassword: boolean;
}

/** What files hold now, or what is wrong with them. */
export type Reread<T> =
  | { readonly value: T }
  | { readonly problems: readonly ConfigProblem[] }
  /** A part of it is bad, and stays as it was; the rest is new. */
  | { readonly value: T; readonly problems: readonly ConfigProblem[] };

/** Secrets that stand in a file, as it was when the configuration was loaded. */
export interface FileSecrets {
  readonly current: readonly Secret[];
  /** The same as it is in the file now. */
  readonly read: () => Reread<readonly Secret[]>;
  readonly file: string;
  /** The setting that names it: `sessions[0].secretsFile`. */
  readonly at: string;
}

/** The lines of `fleetSecretFile`, newest first. `pseudonyms`: the line of that name, from which the names of persons come once there are several. */
export interface FleetSecretLines {
  readonly secrets: readonly Secret[];
  readonly pseudonyms?: Secret;
}

/** `fleetSecretFile`, as it was when the configuration was loaded. */
export interface FleetSecretFile {
  readonly file: string;
  readonly current: FleetSecretLines;
  /** The same as it is in the file now. */
  readonly read: () => Reread<FleetSecretLines>;
}

export type SessionConfig = Omit<
  Parsed['sessions'][number],
  'redis' | 'secretsFile' | 'cookie' | 'keyPrefix' | 'signed' | 'signature' | 'serializeHandler' | 'rolling'
> & {
  readonly cookie: string;
  readonly keyPrefix: string;
  /** How the cookie is signed. */
  readonly signedBy: SignedBy;
  /** How keygrip makes the signature. Default: as Koa does. */
  readonly signature?: { readonly algorithm: string; readonly encoding: 'base64' | 'base64url' | 'hex' } | undefined;
  readonly serializeHandler: SerializeHandler;
  readonly rolling: boolean;
  /** Undefined: the cookie is not signed here. */
  readonly secrets?: FileSecrets;
  readonly redis?: RedisTarget;
};

/** `secretHashes`: hex SHA-256 of each secret that is good. */
export type ClientConfig = Omit<Parsed['clients'][number], 'secretHashFile'> & { readonly secretHashes?: FileSecrets };

/** The configuration as the program uses it: defaults filled in, paths absolute, secrets read and wrapped, frozen. */
export type Config = Omit<Parsed, 'admin' | 'redis' | 'sessions' | 'clients' | 'fleetSecretFile'> & {
  readonly admin: Omit<Parsed['admin'], 'tokenFile'> & { readonly token?: FileSecrets };
  readonly fleetSecret: FleetSecretFile;
  /** What is written in the configuration and its files with secrets, for digests. */
  readonly readWritten: () => readonly WrittenSetting[];
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
