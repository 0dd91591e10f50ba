import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/** Below what Linux (32768 on) and macOS (49152 on) give to outgoing connections, one of which could take the port before its server does. */
const [FIRST, END] = [20_000, 32_000];

/** Workers of the tests run beside each other: each has its own, so that nobody takes the port of a server that is being started again. */
const SHARES = 8;
const share = Number(process.env['VITEST_POOL_ID'] ?? 0) % SHARES;
const size = (END - FIRST) / SHARES;

const given = new Set<number>();

/** A port that nobody listens on at the moment, and that this process is given once. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 1000; attempt++) {
    const port = FIRST + share * size + randomInt(size);
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    return port;
  }
  throw new Error(`no free port from ${FIRST} to ${END - 1}`);
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}
