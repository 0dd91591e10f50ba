import { once } from 'node:events';
import { createServer } from 'node:http';
import { APPS, type AppSettings } from './apps.js';

/** One app in a process of its own: says where it listens, and what it has used whenever it is asked. */
const settings: AppSettings = JSON.parse(process.argv[2] ?? '');
const started = performance.now();
const server = createServer(await APPS[settings.app](settings)).listen(0, '127.0.0.1');
await once(server, 'listening');
const address = server.address();
const port = address !== null && typeof address === 'object' ? address.port : 0;
process.on('message', (question) => {
  if (question === 'memory') globalThis.gc?.();
  const { user, system } = process.cpuUsage();
  const { heapUsed, rss } = process.memoryUsage();
  process.send?.({ cpuMicros: user + system, heapBytes: heapUsed, rssBytes: rss });
});
process.on('disconnect', () => process.exit());
process.send?.({ port, startMs: performance.now() - started });
