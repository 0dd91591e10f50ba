import Router from '@koa/router';
import { Redis } from 'ioredis';
import Koa from 'koa';
import session from 'koa-session';

const redis = new Redis(process.env.REDIS_URL);
const store = {
  get: async (key) => JSON.parse((await redis.get(key)) ?? 'null'),
  set: async (key, value, maxAge) => await redis.set(key, JSON.stringify(value), 'PX', maxAge),
  destroy: async (key) => await redis.del(key),
};

const app = new Koa();
app.keys = [process.env.SESSION_SECRET];
app.use(session({ store, rolling: true, maxAge: 3_600_000 }, app));

const router = new Router();
router.post('/login', (ctx) => {
  ctx.session.user = { id: `u-${ctx.query.name}` };
  ctx.redirect('/');
});
router.post('/logout', (ctx) => {
  ctx.session = null;
  ctx.redirect('/');
});
router.get('/', (ctx) => {
  ctx.body = ctx.session.user ? `hello, ${ctx.session.user.id}` : 'hello, stranger';
});
router.get('/api/me', (ctx) => {
  if (!ctx.session.user) ctx.throw(401);
  ctx.body = { id: ctx.session.user.id };
});
app.use(router.routes());
app.listen(Number(process.env.PORT), '127.0.0.1');
