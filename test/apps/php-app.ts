import { fileURLToPath } from 'node:url';
import { freePort } from '../../scripts/lib/free-port.js';
import { PEOPLE } from '../../scripts/lib/legacy-app.js';
import { provide, succeeds } from '../../scripts/lib/programs.js';
import { appOfProgram, type ForeignApp } from './app.js';

const SCRIPT = fileURLToPath(new URL('php-app.php', import.meta.url));

/** PHP's own sessions in phpredis, with the packages that Debian has. */
export async function startPhpApp(
  redisPort: number,
  handler: 'php' | 'php_serialize',
  { notesTime = true, lifeSeconds = 1440 } = {},
): Promise<ForeignApp> {
  const php = provide('php', ['php-cli', 'php-redis'], (path) => succeeds(path, ['--ri', 'redis']));
  const port = await freePort();
  const settings = {
    'session.save_handler': 'redis',
    'session.save_path': `tcp://127.0.0.1:${redisPort}`,
    'session.serialize_handler': handler,
    'session.use_strict_mode': '0',
    'session.gc_maxlifetime': String(lifeSeconds),
  };
  const args = Object.entries(settings).flatMap(([name, value]) => ['-d', `${name}=${value}`]);
  return await appOfProgram(php, [...args, '-S', `127.0.0.1:${port}`, SCRIPT], {
    port,
    ready: /Development Server .* started/,
    env: { PEOPLE: JSON.stringify(PEOPLE), ...(notesTime ? { NOTES_TIME: '1' } : {}) },
  });
}
