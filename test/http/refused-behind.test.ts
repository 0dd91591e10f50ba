import { expect, it } from 'vitest';
import { useWorlds } from '../support/use-worlds.js';

const open = useWorlds();

it('a handler that answers 401 to a good token is counted, and told once a minute', async () => {
  const world = await open({
    handlers: async (ctx, next) => {
      if (ctx.path === '/sets') ctx.status = 401;
      else if (ctx.path === '/throws') ctx.throw(401, 'nobody is logged in');
      else await next();
    },
  });
  const cookie = await world.login('alice');
  const bearer = await world.token(cookie);
  for (const path of ['/sets', '/throws', '/sets']) expect((await world.call(path, { bearer })).status).toBe(401);
  // Neither a session that the app refuses, nor a token that the bridge refuses, is of that kind.
  for (const credential of [{ cookie }, { bearer: `${bearer}x` }]) expect((await world.call('/sets', credential)).status).toBe(401);
  expect((await world.call('/me', { bearer })).status).toBe(200);
  expect(await world.metrics()).toContain('crossfade_tokens_refused_by_app_total{client="web"} 3');
  expect(world.log.all.filter(({ msg }) => String(msg).startsWith('handlers of the app answer 401'))).toHaveLength(1);
});
