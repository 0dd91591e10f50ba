import Router from '@koa/router';
import { createBridge, loadConfig } from 'crossfade-auth';
import Koa from 'koa';
import session from 'koa-session';

const bridge = await createBridge(await loadConfig(process.env.CROSSFADE_CONFIG));
const app = new Koa();
app.keys = [process.env.SESSION_SECRET];
app.use(bridge.authenticate());
app.use(session({ store: bridge.sessionStore(), externalKey: bridge.externalKey(), rolling: true, maxAge: 3_600_000 }, app));
app.use(bridge.routes());

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
