import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { Redis } from 'ioredis';
import Koa from 'koa';
import { legacyPages, legacySessions } from './legacy-app.js';

/**
 * The legacy app of docker-compose.yml as a process: koa-session on Redis, a login form, and behind the proxy an API that reads nothing
 * but the headers that the bridge has set.
 */
const { PORT = '3000', HOST = '127.0.0.1', REDIS_URL = '', REDIS_USERNAME = '', REDIS_PASSWORD_FILE = '', SESSION_SECRETS_FILE = '' } = process.env;
const redis = new Redis(REDIS_URL, {
  username: REDIS_USERNAME,
  password: readFileSync(REDIS_PASSWORD_FILE, 'utf8').trim(),
  connectionName: 'legacy',
  enableReadyCheck: false,
});
redis.on('error', (error: Error) => process.stderr.write(`redis: ${error.message}\n`));

const app = new Koa();
app.keys = readFileSync(SESSION_SECRETS_FILE, 'utf8').trim().split('\n');
app.use(async (ctx, next) => {
  if (!/^\/(api|orders)\//.test(ctx.path)) return await next();
  ctx.body = { subject: ctx.get('X-Auth-Subject'), via: ctx.get('X-Auth-Via'), ownToken: ctx.get('X-Auth-Upstream') === 'jwt' };
});
app.use(legacySessions(app, redis, [], { storePrefix: 'sess:', session: { secure: false } }));
app.use(legacyPages());
app.use((ctx) => {
  ctx.body = ctx['session'].user ? `hello, ${ctx['session'].user.id}` : 'hello, stranger';
});
const server = createServer(app.callback()).listen(Number(PORT), HOST, () => process.stdout.write(`listening on ${HOST}:${PORT}\n`));
process.once('SIGTERM', () => {
  server.close();
  server.closeIdleConnections();
  redis.disconnect();
});
