import type { Context, Next } from 'koa';
import { describe, expect, it } from 'vitest';
import { cookieHeader, PEOPLE } from '../../scripts/lib/legacy-app.js';
import { expectError } from '../support/expect-error.js';
import { LogLines } from '../support/log-lines.js';
import { exchangeNative, postRefresh, postReturn, refreshNative } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import type { World, WorldOptions } from '../support/world.js';

const openWorld = useWorlds();

/** Requests that wait in their handler until they are let go, by name. */
class Gate {
  readonly #waiting = new Map<string, () => void>();
  readonly #arrivals = new LogLines();

  async pass(name: string): Promise<void> {
    const released = new Promise<void>((resolve) => this.#waiting.set(name, resolve));
    this.#arrivals.write(JSON.stringify({ name }));
    await released;
  }
  async arrived(name: string): Promise<void> {
    await this.#arrivals.until((line) => line['name'] === name);
  }
  release(name: string): void {
    this.#waiting.get(name)?.();
  }
}

let gate = new Gate();

/** The app as it was before anybody thought of tokens: handlers that read and write `ctx.session`. */
async function handlers(ctx: Context, next: Next): Promise<void> {
  const { session } = ctx;
  switch (ctx.path) {
    case '/cart':
      session.cart = [...(session.cart ?? []), ctx.query['add']];
      ctx.body = { user: session.user?.id ?? null, cart: session.cart };
      return;
    case '/show':
      ctx.body = { user: session.user?.id ?? null, cart: session.cart ?? null };
      return;
    case '/late':
      ctx.set('ETag', '"x"');
      ctx.cookies.set('theme', 'dark');
      await gate.pass('late');
      session.seen = Date.now();
      ctx.body = 'done';
      return;
    case '/slow':
      await gate.pass(String(ctx.query['name']));
      session.seen = Date.now();
      ctx.body = 'done';
      return;
    case '/legacy-logout':
      ctx['session'] = null;
      ctx.status = 204;
      return;
    case '/legacy-logout-in-place':
      session.user = null;
      ctx.status = 204;
      return;
    case '/legacy-login':
      session.user = { ...PEOPLE['alice'], ...(ctx.query['at'] === 'no' ? {} : { loggedInAt: Date.now() }) };
      ctx.body = 'logged in';
      return;
    case '/switch-to-bob':
      session.user = PEOPLE['bob'];
      ctx.body = 'switched';
      return;
    default:
      await next();
  }
}

async function open(options: Partial<WorldOptions>): Promise<World> {
  gate = new Gate();
  return await openWorld({ koaSession: 'ours', handlers, ...options });
}

async function json(response: Response): Promise<unknown> {
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
  return await response.json();
}

describe.each<[koa: 2 | 3, version: 5 | 7]>([
  [3, 7],
  [2, 7],
  [3, 5],
  [2, 5],
])('ctx.session of koa-session on Koa %i, koa-session %i', (koa, version) => {
  const legacy = { version, session: { key: 'koa.sess' } };

  it('is the same for the cookie of a session and for a token that was made from it', async () => {
    const world = await open({ koa, legacy });
    const cookie = await world.login('alice');
    const { access, refresh } = await exchangeNative(world, cookie);
    expect(await json(await world.call('/cart?add=book', { bearer: access }))).toEqual({ user: 'u-alice', cart: ['book'] });
    expect(await json(await world.call('/cart?add=pen', { cookie }))).toEqual({ user: 'u-alice', cart: ['book', 'pen'] });
    expect(await json(await world.call('/show', { bearer: access }))).toEqual({ user: 'u-alice', cart: ['book', 'pen'] });
    expect((await postRefresh(world, refresh)).status).toBe(200);
  });

  it('sets no cookie for a token, and the usual one for a browser', async () => {
    const world = await open({ koa, legacy });
    const cookie = await world.login('alice');
    const { access } = await exchangeNative(world, cookie);
    expect((await world.call('/cart?add=book', { bearer: access })).headers.getSetCookie()).toEqual([]);
    const stranger = await world.call('/cart?add=book');
    const own = stranger.headers.getSetCookie().map((line) => line.split(';')[0] ?? '');
    expect(own).toEqual([expect.stringMatching(/^koa\.sess=[\w-]{30,}$/), expect.stringMatching(/^koa\.sess\.sig=/)]);
    expect(await json(await world.call('/cart?add=pen', { cookie: own.join('; ') }))).toEqual({ user: null, cart: ['book', 'pen'] });
    await world.legacy.redis.del(/koa\.sess=([^;]+)/.exec(own[0] ?? '')?.[1] ?? '');
  });

  it.each(['/legacy-logout', '/legacy-logout-in-place'])('Law 6: %s of a handler ends tokens at once, by cookie and by token', async (path) => {
    const world = await open({ koa, legacy });
    for (const by of ['cookie', 'bearer'] as const) {
      const cookie = await world.login('alice');
      const { access, refresh } = await exchangeNative(world, cookie);
      const response = await world.call(path, { method: 'POST', ...(by === 'cookie' ? { cookie } : { bearer: access }) });
      expect(response.status).toBe(204);
      expect((await world.call('/me', { bearer: access })).status).toBe(401);
      expect((await world.call('/me', { cookie })).status).toBe(401);
      expect((await postRefresh(world, refresh)).status).toBe(400);
    }
  });

  it('X12: a slow request does not write a record again after a logout', async () => {
    const world = await open({ koa, legacy });
    for (const [round, logOut] of [
      async (cookie: string) => await world.legacy.logout(cookie),
      async (cookie: string) => void (await world.call('/legacy-logout', { cookie })),
      async (cookie: string) => void (await world.call('/legacy-logout-in-place', { cookie })),
      async (_: string, bearer: string) => void (await world.post('/auth/logout', {}, { bearer })),
    ].entries()) {
      for (const by of ['cookie', 'bearer'] as const) {
        const cookie = await world.login('alice');
        const key = world.legacy.keys.at(-1) ?? '';
        const { access } = await exchangeNative(world, cookie);
        const name = `${round}-${by}`;
        const slow = world.call(`/slow?name=${name}`, by === 'cookie' ? { cookie } : { bearer: access });
        await gate.arrived(name);
        await logOut(cookie, access);
        gate.release(name);
        expect((await slow).status).toBe(200);
        const left = await world.legacy.redis.get(key);
        expect(left === null ? undefined : JSON.parse(left).user).toBeFalsy();
        expect((await world.call('/me', { cookie })).status).toBe(401);
      }
    }
    expect(await world.metrics()).toMatch(/^crossfade_late_writes_refused_total [1-9]/m);
  });
});

describe('the store', () => {
  it('shows a token client what was last seen where the record is gone without a logout, and keeps what it writes', async () => {
    const world = await open({});
    const cookie = await world.login('alice');
    const key = world.legacy.keys.at(-1) ?? '';
    await world.legacy.redis.pexpire(key, 1500);
    const { access, refresh } = await exchangeNative(world, cookie);
    await world.legacy.redis.pexpire(key, 1);
    await expect.poll(async () => await world.legacy.redis.exists(key)).toBe(0);
    expect(await json(await world.call('/cart?add=book', { bearer: access }))).toEqual({ user: 'u-alice', cart: ['book'] });
    expect(await json(await world.call('/cart?add=pen', { bearer: access }))).toEqual({ user: 'u-alice', cart: ['book', 'pen'] });
    expect(await world.legacy.redis.exists(key)).toBe(0);
    expect(refresh).not.toBe('');
  });

  async function dormant(world: World) {
    const cookie = await world.login('alice');
    const key = world.legacy.keys.at(-1) ?? '';
    await world.legacy.redis.pexpire(key, 1500);
    const tokens = await exchangeNative(world, cookie);
    await world.legacy.redis.pexpire(key, 1);
    await expect.poll(async () => await world.legacy.redis.exists(key)).toBe(0);
    return tokens;
  }

  it('a token of before a change of tenant opens the session as ever, and ends nothing', async () => {
    const world = await open({});
    const cookie = await world.login('alice');
    const { access, refresh } = await exchangeNative(world, cookie);
    await world.editRecord(({ user }) => Object.assign(user, { tenant: 'globex' }));
    expect(await json(await world.call('/cart?add=book', { bearer: access }))).toEqual({ user: 'u-alice', cart: ['book'] });
    expect((await world.call('/me', { cookie })).status).toBe(200);
    const later = await refreshNative(world, refresh);
    expect(await json(await world.call('/cart?add=pen', { bearer: access }))).toEqual({ user: 'u-alice', cart: ['book', 'pen'] });
    expect((await world.call('/me', { bearer: later.access })).status).toBe(200);
  });

  it('Law 6: a logout in place by a token client whose record is gone ends its tokens', async () => {
    const world = await open({});
    const { access, refresh } = await dormant(world);
    expect((await world.call('/legacy-logout-in-place', { method: 'POST', bearer: access })).status).toBe(204);
    expect((await world.call('/me', { bearer: access })).status).toBe(401);
    expect((await postRefresh(world, refresh)).status).toBe(400);
  });

  it('a handler that writes another person does not get into what is brought back', async () => {
    const world = await open({
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((one) => ({ ...one, rolling: true })) }),
    });
    const { access, refresh } = await dormant(world);
    await world.call('/switch-to-bob', { bearer: access });
    const cookie = cookieHeader(await postReturn(world, refresh));
    expect(await (await world.call('/me', { cookie })).json()).toMatchObject({ principal: { subject: 'u-alice' } });
    await world.legacy.redis.del(/koa\.sess=([^;]+)/.exec(cookie)?.[1] ?? '');
  });

  it('shows a token client its session also where the record has idled out', async () => {
    const world = await open({
      legacy: { session: { maxAge: 2000, rolling: true } },
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((one) => ({ ...one, rolling: true })) }),
    });
    const cookie = await world.login('alice');
    const key = world.legacy.keys.at(-1) ?? '';
    const { access, refresh } = await exchangeNative(world, cookie);
    await world.editRecord((record) => Object.assign(record, { _expire: Date.now() + 100 }));
    const later = await refreshNative(world, refresh);
    await expect.poll(async () => (await world.call('/auth/verify', { cookie })).status).toBe(401);
    await world.legacy.redis.del(key);
    const response = await world.call('/show', { bearer: later.access });
    expect(response.headers.getSetCookie()).toEqual([]);
    expect(await json(response)).toEqual({ user: 'u-alice', cart: null });
    expect(access).not.toBe(later.access);
  });

  it('a login under the same id is written and opens, right after a logout in place and after the end of its person', async () => {
    const untimed = await open({
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((one) => ({ ...one, principal: { subject: 'user.id' } })) }),
    });
    const plain = await untimed.login('alice');
    await untimed.call('/legacy-logout-in-place', { cookie: plain });
    expect((await untimed.call('/me', { cookie: plain })).status).toBe(401);
    await untimed.call('/legacy-login?at=no', { cookie: plain });
    expect((await untimed.call('/me', { cookie: plain })).status).toBe(200);

    const world = await open({});
    const cookie = await world.login('alice');
    const old = await exchangeNative(world, cookie);
    const slow = world.call('/slow?name=login', { cookie });
    await gate.arrived('login');
    await world.bridge.endSubject('u-alice', { why: 'password changed' });
    gate.release('login');
    await slow;
    expect((await world.call('/me', { cookie })).status).toBe(401);
    const again = await world.call('/legacy-login', { cookie });
    const own = again.headers
      .getSetCookie()
      .map((line) => line.split(';')[0] ?? '')
      .join('; ');
    expect((await world.call('/me', { cookie: own })).status).toBe(200);
    expect((await world.call('/me', { bearer: old.access })).status).toBe(401);
    await world.legacy.redis.del(/koa\.sess=([^;]+)/.exec(own)?.[1] ?? '');
  });

  it('is answered 503 at once where Redis is away, by cookie and by token, and nothing hangs', async () => {
    const world = await open({});
    const cookie = await world.login('alice');
    const { access } = await exchangeNative(world, cookie);
    world.store.silence();
    for (const credential of [{ cookie }, { bearer: access }]) {
      const response = await world.call('/show', credential);
      await expectError(response, 503, 'temporarily_unavailable');
      expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
      expect(response.headers.get('etag')).toBeNull();
    }
    await world.store.restore();
  });

  it('Law 1: a 503 at the end of a request carries nothing of what its handler meant to answer, its cookies least of all', async () => {
    const world = await open({});
    const cookie = await world.login('alice');
    const late = world.call('/late', { cookie });
    await gate.arrived('late');
    world.store.silence();
    gate.release('late');
    const response = await late;
    await expectError(response, 503, 'temporarily_unavailable');
    expect(response.headers.get('etag')).toBeNull();
    await world.store.restore();
  });

  it('X12: a slow request does not undo a logout in place of the legacy app, of which Redis tells nothing', async () => {
    const world = await open({});
    for (const by of ['cookie', 'bearer'] as const) {
      const cookie = await world.login('alice');
      const key = world.legacy.keys.at(-1) ?? '';
      const gone = await world.another();
      const { access } = await exchangeNative(gone, cookie);
      await gone.close();
      const slow = world.call(`/slow?name=in-place-${by}`, by === 'cookie' ? { cookie } : { bearer: access });
      await gate.arrived(`in-place-${by}`);
      await world.editRecord((record) => Reflect.deleteProperty(record, 'user'), key);
      gate.release(`in-place-${by}`);
      await slow;
      expect(JSON.parse((await world.legacy.redis.get(key)) ?? '{}').user).toBeUndefined();
      expect((await world.call('/me', { cookie })).status).toBe(401);
    }
  });

  it("opens nobody's session for a cookie that holds the name of one in a token, signed or not", async () => {
    const world = await open({
      configure: (config) => ({
        ...config,
        sessions: (config.sessions ?? []).map(({ secretsFile: _, ...session }) => ({ ...session, signed: false })),
      }),
      legacy: { session: { signed: false } },
    });
    const { sid } = await exchangeNative(world, await world.login('alice'));
    for (const name of [sid, `token-session-:${sid}`, `token-session-${JSON.stringify({ sid, subject: 'u-alice' })}`]) {
      expect(await json(await world.call('/show', { cookie: `koa.sess=${encodeURIComponent(name)}` }))).toEqual({ user: null, cart: null });
    }
  });

  it('shows nothing of the cookie for a bearer that is somebody else’s, nor of a login that has ended', async () => {
    const world = await open({});
    const cookie = await world.login('alice');
    expect(await json(await world.call('/show', { cookie, bearer: 'sk_live_1' }))).toEqual({ user: null, cart: null });
    const key = world.legacy.keys.at(-1) ?? '';
    const record = (await world.legacy.redis.get(key)) ?? '';
    await world.call('/legacy-logout', { cookie });
    await world.legacy.redis.set(key, record, 'PX', 60_000);
    expect(await json(await world.call('/show', { cookie }))).toEqual({ user: null, cart: null });
  });

  it('gives the token of a login without a session an empty one, says once that it is not kept, and sets no cookie', async () => {
    const world = await open({});
    const { accessToken } = await world.bridge.issueFor({ subject: 'u-alice' }, { client: 'android' });
    const response = await world.call('/cart?add=book', { bearer: accessToken });
    expect(response.headers.getSetCookie()).toEqual([]);
    expect(await json(response)).toEqual({ user: null, cart: ['book'] });
    expect(await json(await world.call('/show', { bearer: accessToken }))).toEqual({ user: null, cart: null });
    await world.call('/cart?add=book', { bearer: accessToken });
    expect(world.log.all.filter(({ msg }) => String(msg).includes('is not kept'))).toHaveLength(1);
  });

  it('is for an entry that the config has', async () => {
    const world = await openWorld();
    expect(() => world.bridge.sessionStore('php')).toThrow('sessions: there is no entry of koa-session named php');
    const none = await openWorld({ configure: (config) => ({ ...config, sessions: [] }) });
    expect(() => none.bridge.sessionStore()).toThrow('no sessions of koa-session are configured');
    const other = await openWorld({
      configure: (config) => ({ ...config, sessions: [{ name: 'php', format: 'php', principal: { subject: 'id' } }, ...config.sessions] }),
    });
    expect(() => other.bridge.sessionStore('php')).toThrow('sessions: there is no entry of koa-session named php');
    expect(other.bridge.sessionStore()).toBeDefined();
  });
});
