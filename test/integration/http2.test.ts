import { once } from 'node:events';
import { connect, createServer } from 'node:http2';
import Koa from 'koa';
import { expect, it } from 'vitest';
import { createWorld } from '../support/world.js';

it('works in an app that speaks HTTP/2: cookie, bearer, and other schemes', async () => {
  const world = await createWorld();
  const app = new Koa();
  app.use(world.bridge.authenticate());
  app.use((ctx) => {
    ctx.body = ctx.state.principal?.via ?? 'anonymous';
  });
  const listener = app.callback();
  const server = createServer((request, response) => void listener(request, response)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const session = connect(`http://127.0.0.1:${address !== null && typeof address === 'object' ? address.port : 0}`);
  const ask = async (headers: Record<string, string>) => {
    const stream = session.request({ ':path': '/', ...headers });
    const [answer]: Record<string, unknown>[] = await once(stream, 'response');
    let text = '';
    for await (const chunk of stream) text += String(chunk);
    return `${answer?.[':status']} ${text}`;
  };
  try {
    const cookie = await world.login('alice');
    expect(await ask({ cookie })).toBe('200 session');
    expect(await ask({ authorization: `Bearer ${await world.token(cookie)}` })).toBe('200 jwt');
    expect(await ask({ authorization: 'Basic dTpw' })).toBe('200 anonymous');
    expect(await ask({ authorization: 'Bearer a.b.c', cookie })).toMatch(/^401 /);
  } finally {
    session.close();
    server.close();
    await world.close();
  }
});
