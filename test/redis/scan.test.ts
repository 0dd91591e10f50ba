import { Redis } from 'ioredis';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import { startTcpProxy, type TcpProxy } from '../../scripts/lib/tcp-proxy.js';
import { type KeyPage, scanPages } from '../../src/redis/scan.js';

let servers: PrivateRedis[];
let proxy: TcpProxy;
let client: Redis;
beforeEach(async () => {
  servers = [await startRedis(), await startRedis()];
  proxy = await startTcpProxy(servers[0]?.url ?? '');
  client = new Redis(proxy.url, { retryStrategy: () => 20 });
  client.on('error', () => undefined); // It is cut off on purpose.
  for (const { url } of servers) {
    const admin = new Redis(url);
    const pipeline = admin.pipeline();
    for (let n = 0; n < 2000; n++) pipeline.set(`sess:${n}`, 'x');
    await pipeline.exec();
    admin.disconnect();
  }
});
afterEach(async () => {
  client.disconnect();
  await proxy.close();
  for (const server of servers) await server.stop();
});

const options = { type: 'string', count: 100 } as const;
const keysOf = (pages: readonly KeyPage[]) => new Set(pages.flatMap(({ keys }) => keys));

it('finds every key, and goes on where it was interrupted', async () => {
  const pages: KeyPage[] = [];
  for await (const page of scanPages({ client }, { before: 'sess:', behind: '' }, options)) {
    pages.push(page);
    if (pages.length === 5) break;
  }
  const last = pages.at(-1);
  if (!last) throw new Error('there are pages');
  const from = { done: [], runId: last.runId, cursor: last.cursor };
  for await (const page of scanPages({ client }, { before: 'sess:', behind: '' }, { ...options, from })) pages.push(page);
  expect(keysOf(pages).size).toBe(2000);
  expect(pages.filter(({ isThrough }) => isThrough)).toHaveLength(1);
  expect(pages.length).toBeLessThan(40);
});

it('begins again where another server answers: its keys are in another order', async () => {
  const pages: KeyPage[] = [];
  const [first] = servers;
  let ofSecond: KeyPage[] = [];
  for await (const page of scanPages({ client }, { before: 'sess:', behind: '' }, options)) {
    pages.push(page);
    if (page.runId !== pages[0]?.runId) ofSecond = [...ofSecond, page];
    if (pages.length !== 10) continue;
    proxy.leadTo(servers[1]?.url ?? '');
    await first?.stop();
  }
  // The first page after the change is of the old cursor, and counts for nothing.
  expect(keysOf(ofSecond.slice(1)).size).toBe(2000);
});
