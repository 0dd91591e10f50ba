import type { ServerAddress } from './connector.js';

/** What Redis answers, in the first word of an error, where it cannot do what it is there for. */
const STATES = [
  'READONLY',
  'UNBLOCKED',
  'MASTERDOWN',
  'LOADING',
  'BUSY',
  'MISCONF',
  'OOM',
  'NOREPLICAS',
  'NOAUTH',
  'WRONGPASS',
  'NOPERM',
  'CLUSTERDOWN',
] as const;

/** `REPLACED`: sentinels name another primary; `WRONGDB`: the database cannot be selected; `TIMEOUT`: a command was not answered; `AWAY`: a node of a Cluster that is not there. */
export type RedisState = (typeof STATES)[number] | 'WRONGDB' | 'REPLICA' | 'REPLACED' | 'TIMEOUT' | 'AWAY' | 'ERR';

/** What a connection may be called: `up`, `away`, or what is wrong. */
export const REDIS_STATES = ['up', 'away', ...STATES, 'WRONGDB', 'REPLICA', 'REPLACED', 'TIMEOUT', 'AWAY', 'ERR'] as const;

/** What is wrong, for an operator: the state, and a sentence with the server and what to do. Holds no key and no secret. */
export interface Fault {
  readonly state: RedisState;
  readonly words: string;
  /** Whether reads fail as well, or must not be believed. */
  readonly stopsReads: boolean;
}

/** Each state in words: what it means here. */
const WORDS: Readonly<Record<RedisState, string>> = {
  READONLY: 'it is a replica now and takes no writes: a failover has happened; connecting again',
  UNBLOCKED: 'it has become a replica: a failover has happened; connecting again',
  MASTERDOWN: 'it is a replica that has lost its primary; connecting again',
  REPLICA: 'it is a replica that has lost its primary: what it holds may be old',
  REPLACED: 'the sentinels name another primary, which it has not heard of: connecting again',
  LOADING: 'it is still loading its data',
  BUSY: 'a script of somebody holds it',
  MISCONF: 'it cannot save to disk and takes no writes: look at its log and disk',
  OOM: 'its memory is full and it takes no writes: raise maxmemory',
  NOREPLICAS: 'too few replicas follow it, so that it takes no writes (min-replicas-to-write)',
  NOAUTH: 'it wants a password: set username and passwordFile',
  WRONGPASS: 'it refuses user or password',
  NOPERM: 'its ACL does not let this user do what the bridge needs',
  CLUSTERDOWN: 'the Cluster is down, or a part of its slots is not served',
  WRONGDB: 'the database of the URL cannot be selected',
  TIMEOUT: 'it does not answer in time',
  AWAY: 'it cannot be reached',
  ERR: 'it answers with an error',
};

/** The credentials of sentinels have settings of their own. */
const OF_SENTINELS: Readonly<Partial<Record<RedisState, string>>> = {
  NOAUTH: 'it wants a password: set sentinelPasswordFile',
  WRONGPASS: 'it refuses user or password: set sentinelUsername and sentinelPasswordFile',
};

/** It answers, but for writes. */
const WRITES_ONLY: ReadonlySet<RedisState> = new Set(['MISCONF', 'OOM', 'NOREPLICAS', 'NOPERM']);

export function faultOf(state: RedisState): Fault {
  return { state, words: WORDS[state], stopsReads: !WRITES_ONLY.has(state) };
}

/** The command that Redis, or a probe, says is not allowed. */
export function forbiddenCommand({ message }: Error): string | undefined {
  if (!message.includes('NOPERM')) return undefined;
  return /run the '([\w|]+)'|NOPERM (\w+) is not allowed/
    .exec(message)
    ?.slice(1)
    .find((name) => name !== undefined);
}

/** A command that the ACL keeps from this user. */
export function forbidden(command: string): Fault {
  return { ...faultOf('NOPERM'), words: `its ACL does not let this user run ${command.toUpperCase()}, which the bridge needs` };
}

const ANY_STATE = new RegExp(`(?:^|[\\s-])(${STATES.join('|')})\\b`);

/** The state that an error tells of; undefined for errors of a single command. A script of Redis 6 has the word inside the text. */
export function stateOf(error: Error): RedisState | undefined {
  // What a script may not do is called so.
  if (error.message.includes('The user executing the script')) return 'NOPERM';
  const found = ANY_STATE.exec(error.message.slice(0, 200))?.[1];
  return STATES.find((state) => state === found);
}

/** What OpenSSL and Node.js call a certificate that cannot be trusted, and what that means. */
const CERTIFICATES: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'its certificate has expired',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is from a CA that is not known here: set tls.caFile',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is from a CA that is not known here: set tls.caFile',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is from a CA that is not known here: set tls.caFile',
  UNABLE_TO_GET_ISSUER_CERT: 'its certificate is from a CA that is not known here: set tls.caFile',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'its certificate is from a CA that is not known here: set tls.caFile',
  CERT_SIGNATURE_FAILURE: 'its certificate is not signed by the CA of tls.caFile',
  CERT_CHAIN_TOO_LONG: 'its certificate is too far from the CA of tls.caFile',
  CERT_REJECTED: 'the CA of tls.caFile is not for servers',
  CERT_REVOKED: 'its certificate was revoked',
  CERT_UNTRUSTED: 'the CA of tls.caFile is not for servers',
  INVALID_CA: 'what tls.caFile holds is not the certificate of a CA',
  INVALID_PURPOSE: 'what tls.caFile holds is not the certificate of a CA, or not of one for servers',
  PATH_LENGTH_EXCEEDED: 'its certificate is too far from the CA of tls.caFile',
  UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY: 'the key of the CA in tls.caFile cannot be read',
  UNSPECIFIED: 'the CA of tls.caFile must not sign the certificate of this server',
};

/** Whether a connection failed since the server's certificate is not to be trusted here. */
export function isOfCertificate(error: Error): boolean {
  return 'code' in error && typeof error.code === 'string' && Object.hasOwn(CERTIFICATES, error.code);
}

/** What the network calls a failure, in words. */
const NETWORK: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOTFOUND: 'no such name in the DNS',
  EAI_AGAIN: 'the DNS does not answer',
  ETIMEDOUT: 'no answer in time',
  EHOSTUNREACH: 'no route to it',
  ENETUNREACH: 'no route to it',
  ECONNRESET: 'it closed the connection: does it want TLS, or a client certificate?',
  EPIPE: 'it closed the connection: does it want TLS, or has it too many clients?',
  EPROTO: 'it does not speak TLS there, or not this version of it',
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: 'it wants a client certificate, and the bridge has none: set tls-auth-clients no',
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: 'the two agree on no way to speak TLS, or it wants a client certificate (tls-auth-clients no)',
  ERR_SSL_WRONG_VERSION_NUMBER: 'it does not speak TLS there',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'it does not speak TLS there',
};

/** Why a connection failed: host and port, and the cause in words with its code. */
export function describeFailure(server: ServerAddress, error: Error): string {
  return `${nameOfServer(server)}: ${describeCause(error, server.isSentinel)}`;
}

function nameOfServer({ host, port, isSentinel }: ServerAddress): string {
  return `${isSentinel ? 'sentinel ' : ''}${host.includes(':') ? `[${host}]` : host}:${port}`;
}

function describeCause(error: Error, isSentinel: boolean): string {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return `its certificate is for another name (${namesOf(error)}): set tls.servername`;
  const state = stateOf(error);
  if (state !== undefined) return `${isSentinel ? (OF_SENTINELS[state] ?? WORDS[state]) : WORDS[state]} (${state})`;
  if (error.message.includes('No such master')) return 'it knows no master of this name: set name as in "sentinel monitor"';
  if (error.message.startsWith('Socket timeout')) return 'it does not answer any more';
  if (error.message.includes('Command timed out')) return 'it takes connections and does not answer';
  if (code === undefined) return error.message === 'no answer in time' ? 'no answer in time: does it speak TLS there?' : error.message;
  return `${CERTIFICATES[code] ?? NETWORK[code] ?? 'the connection failed'} (${code})`;
}

/** The names in the certificate of somebody else; they are not ours to trust, only to show. */
function namesOf(error: Error): string {
  const cert: unknown = Reflect.get(error, 'cert');
  const names: unknown = cert !== null && typeof cert === 'object' ? Reflect.get(cert, 'subjectaltname') : undefined;
  return typeof names === 'string' ? names.slice(0, 200) : 'none';
}

/** The server is another one now, or has another role: connecting again may find the primary. */
export const MOVED_ON: ReadonlySet<RedisState> = new Set(['READONLY', 'UNBLOCKED', 'MASTERDOWN', 'REPLICA', 'REPLACED']);
/** The server's data may be old, or may belong to another application. */
export const UNBELIEVABLE: ReadonlySet<RedisState> = new Set([...MOVED_ON, 'WRONGDB']);
