import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const SCRIPT = fileURLToPath(new URL('../../scripts/redis', import.meta.url));
const env = { ...process.env, REDIS_URL: '', CROSSFADE_INSTALLED: '1' };

async function start(args: string[] = []) {
  const child = spawn(SCRIPT, args, { env, stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  const [data]: Buffer[] = await once(child.stdout, 'data');
  const url = new URL(String(data).trim());
  return { child, port: Number(url.port) };
}

async function listens(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

describe('scripts/redis', () => {
  it('runs a command with REDIS_URL, and ends with its exit status', async () => {
    const { child, port } = await start(['sh', '-c', 'echo $REDIS_URL; exit 7']);
    expect((await once(child, 'close'))[0]).toBe(7);
    await expect.poll(() => listens(port)).toBe(false);
  });

  it.each(['SIGINT', 'SIGTERM', 'SIGKILL'] as const)('leaves no server behind after %s', async (signal) => {
    const { child, port } = await start();
    expect(await listens(port)).toBe(true);
    // To the whole group, as the terminal sends Ctrl-C.
    process.kill(-(child.pid ?? 0), signal);
    await once(child, 'close');
    await expect.poll(() => listens(port)).toBe(false);
  });
});
