import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { Redis } from 'ioredis';
import type { RedisAccess, RedisTarget } from '../config/config.js';
import { credentials } from './client.js';
import { connectorFor } from './connector.js';

/** What the sentinels of a primary say, beside the connection to it. */
export interface Sentinels {
  /**
   * Whether they name another primary than the server at the other end of a connection: an old one may not have heard of it yet, and call itself
   * a primary for as long as it is cut off. False where none of them answers, or they are at odds. Never rejects.
   */
  nameAnother(connection: Redis): Promise<boolean>;
  close(): void;
}

export interface SentinelsOptions {
  readonly target: Pick<RedisTarget, 'sentinels' | 'name'>;
  /** As it is now. */
  readonly access: () => RedisAccess;
  readonly timeoutMs: number;
}

/** How soon a sentinel is connected to again that was lost. */
const AGAIN_MS = 2000;

export function watchSentinels({ target: { sentinels = [], name = '' }, access, timeoutMs }: SentinelsOptions): Sentinels {
  const live = () => credentials(access().sentinel ?? {});
  const all = sentinels.map(({ host, port }) => {
    const client = new Redis({
      host,
      port,
      ...live(),
      lazyConnect: true,
      enableOfflineQueue: false,
      enableReadyCheck: false,
      maxRetriesPerRequest: 0,
      retryStrategy: () => AGAIN_MS,
      connectTimeout: Math.max(timeoutMs, 1000),
      commandTimeout: timeoutMs,
      Connector: connectorFor(false, live, { opening: () => undefined, failed: () => undefined }),
    });
    // What is wrong with a sentinel is told by the connection that asks it for the primary.
    client.on('error', () => undefined);
    void client.connect().catch(() => undefined);
    return client;
  });

  async function ask(client: Redis): Promise<string | undefined> {
    const named: unknown = await client.call('sentinel', 'get-master-addr-by-name', name).catch(() => undefined);
    return Array.isArray(named) && named.length === 2 ? named.map(String).join(' ') : undefined;
  }

  return {
    async nameAnother({ stream }) {
      const named = mostOf((await Promise.all(all.map(ask))).filter((one) => one !== undefined));
      const [host, port] = named?.split(' ') ?? [];
      const { remoteAddress, remotePort } = stream ?? {};
      if (host === undefined || remoteAddress === undefined) return false;
      return Number(port) !== remotePort || !(await isAt(host, remoteAddress));
    },
    close() {
      for (const client of all) client.disconnect();
    },
  };
}

/** What more than half of them say. */
function mostOf(answers: readonly string[]): string | undefined {
  return answers.find((one) => answers.filter((other) => other === one).length > answers.length / 2);
}

/** Whether a name or an address leads to this one. A name that cannot be looked up says nothing. */
async function isAt(host: string, address: string): Promise<boolean> {
  const plain = withoutMapping(address);
  if (isIP(host) !== 0) return withoutMapping(host) === plain;
  const found = await lookup(host, { all: true }).catch(() => [{ address: plain }]);
  return found.some((one) => withoutMapping(one.address) === plain);
}

function withoutMapping(address: string): string {
  return address.toLowerCase().replace(/^::ffff:(?=[\d.]+$)/, '');
}
