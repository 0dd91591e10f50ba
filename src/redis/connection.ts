import type { Redis } from 'ioredis';
import type { RedisAccess } from '../config/config.js';
import type { Tools } from '../telemetry/tools.js';
import type { BatchedReads } from './batched-reads.js';
import type { RedisClient } from './client.js';
import type { ProbeKind } from './probe.js';

export interface RedisConnection {
  readonly client: RedisClient;
  readonly reads: BatchedReads;
  /** Resolves when Redis can be used, or after `timeoutMs`; never rejects. True: it can be used. */
  ready(timeoutMs: number): Promise<boolean>;
  /** Asks Redis now. Never rejects. */
  probe(): Promise<void>;
  /** Whether a primary answered the last probe: what is read is to be believed. */
  readonly canRead: boolean;
  /** Whether one took a write, where that is asked. */
  readonly canWrite: boolean;
  /** `up`, `away`, or what Redis calls the reason for which it cannot be used (`READONLY`, `MISCONF`). */
  readonly state: string;
  /** For an operator: what is wrong now, a sentence for each server. */
  readonly problems: readonly string[];
  /** Calls back each time that it can be used again, after it could not. */
  onUsable(listener: () => void): void;
  /** Calls back each time that the connection is given up, or was lost: what stood on the server for it is gone. */
  onLost(listener: () => void): void;
  /** The time by Redis' own clock, in ms. Rejects with what ioredis rejects with. */
  nowMs(): Promise<number>;
  /** Why it cannot be used, as far as Redis or the network said: server and cause, in words. */
  problem(): string | undefined;
  /** One more connection to the same single server, with the same credentials for as long as it lives. */
  duplicate(options: Parameters<Redis['duplicate']>[0]): Redis;
  /** Uses other credentials from now on. Living connections are authenticated again in place. */
  setAccess(access: RedisAccess): Promise<void>;
  /** Gives the connection up and opens it again. */
  reconnect(): void;
  close(): void;
}

export interface RedisConnectionOptions extends Pick<Tools, 'log' | 'metrics'> {
  /** What it is called in logs and metrics. */
  readonly name: string;
  readonly commandTimeoutMs: number;
  /** What the server must do: take writes, or hold what is new. */
  readonly probe: ProbeKind;
  /** A key that only probes use, among those that this user may read, and write where `probe` writes. */
  readonly probeKey: string;
  /** Whether it is probed every 2 s while all is well too; else only after it has connected, until it can be used. Default: yes. */
  readonly probeAgain?: boolean;
  /** Called where Redis refuses the credentials: they may have changed. */
  readonly onRefusedAccess?: () => void;
}
