import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { provideRedis } from './private-redis.js';

/** Behind `scripts/redis`: holds a server while a command runs, or until Ctrl-C. */
const redis = await provideRedis().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : 'Redis could not be started.'}\n`);
  process.exit(1);
});
const [command, ...args] = process.argv.slice(2);

if (command === undefined) {
  process.stdout.write(`${redis.url}\n`);
  const hold = setInterval(() => undefined, 60_000);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      clearInterval(hold);
      void redis.stop();
    });
  }
} else {
  const child = spawn(command, args, { stdio: 'inherit', cwd: process.env['CROSSFADE_CWD'], env: { ...process.env, REDIS_URL: redis.url } });
  // The terminal sends Ctrl-C to the command as well; this process waits for it to end.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  child.once('error', (error) => {
    process.stderr.write(`${command}: ${error.message}\n`);
    void redis.stop().then(() => process.exit(127));
  });
  child.once('exit', (code, signal) => {
    void redis.stop().then(() => process.exit(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
}
