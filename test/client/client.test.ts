import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Client, type ClientOptions, type ClientState, createClient } from '../../src/client/index.js';
import { rememberRefresh } from '../support/tokens.js';
import { rememberToken } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import { createWorld, type World } from '../support/world.js';

interface Sent {
  readonly path: string;
  readonly method: string;
  readonly bearer: boolean;
  readonly status: number;
}

interface Opened {
  readonly client: Client;
  /** Every request that left, with its answer. */
  readonly sent: Sent[];
  readonly states: ClientState[];
  cookie: string;
  /** Makes access tokens look as if they lived so long, from now on. */
  lifeSeconds: number | undefined;
  /** Paths that are answered 503 for want of something, from now on. */
  refuse: (path: string) => boolean;
  /** Stands in for an answer, from now on. */
  answer: (path: string) => Response | undefined;
  refusals: number;
  /** Answers of the token endpoint wait for this. */
  hold: Promise<void> | undefined;
  /** Calls and gives the status. */
  get(path?: string): Promise<number>;
  /** POSTs to the bridge's endpoints. */
  readonly posts: Sent[];
}

/** The client in this process, as the registered app `android`, on the session of a person. */
async function openClient(world: World, person = 'alice', more: Partial<Pick<ClientOptions, 'exchange'>> = {}): Promise<Opened> {
  const sent: Sent[] = [];
  const states: ClientState[] = [];
  const opened: Opened = {
    cookie: await world.login(person),
    lifeSeconds: undefined,
    refuse: () => false,
    hold: undefined,
    answer: () => undefined,
    refusals: 0,
    sent,
    states,
    get posts() {
      return sent.filter(({ path }) => path.startsWith('/auth/'));
    },
    get: async (path = '/me') => (await client.fetch(world.url + path)).status,
    get client() {
      return client;
    },
  };
  const client = createClient({
    baseUrl: world.url,
    clientId: 'android',
    headers: { 'x-client-id': 'android' },
    ...more,
    cookies: {
      get: () => opened.cookie,
      set(lines) {
        opened.cookie = lines.map((line) => line.split(';')[0]).join('; ');
      },
    },
    async fetch(input, init) {
      const request = new Request(input, init);
      const away = () => Response.json({ error: 'temporarily_unavailable' }, { status: 503, headers: { 'retry-after': '1' } });
      const { pathname } = new URL(request.url);
      const answer = opened.refuse(pathname) ? away() : (opened.answer(pathname) ?? (await fetch(request)));
      sent.push({ path: new URL(request.url).pathname, method: request.method, bearer: request.headers.has('authorization'), status: answer.status });
      if (!request.url.endsWith('/auth/token') || !answer.ok) return answer;
      await opened.hold;
      const body = Object.fromEntries(Object.entries((await answer.json()) ?? {}));
      rememberToken(String(body['access_token']));
      rememberRefresh(String(body['refresh_token']));
      return Response.json({ ...body, ...(opened.lifeSeconds === undefined ? {} : { expires_in: opened.lifeSeconds }) });
    },
  });
  client.addEventListener('state', () => states.push(client.state));
  return opened;
}

const open = useWorlds();
let world: World;

beforeAll(async () => {
  world = await createWorld();
});
afterAll(async () => await world.close());
beforeEach(async () => await world.setFlags({ 'auth-migration-stage': 'jwt-preferred' }));

describe('crossfade-auth/client in Node', () => {
  it('starts on the cookie, exchanges when it is nudged, and goes on by token', async () => {
    const app = await openClient(world);
    expect(app.client.state).toBe('session');
    expect(await app.get()).toBe(200);
    await expect.poll(() => app.client.state).toBe('jwt');
    expect(await app.get()).toBe(200);
    expect(app.sent.map(({ path, bearer, status }) => [path, bearer, status])).toEqual([
      ['/me', false, 200],
      ['/auth/token', false, 200],
      ['/me', true, 200],
    ]);
    expect(app.states).toEqual(['jwt']);
  });

  it('is not nudged at dual, and stays on the cookie', async () => {
    await world.setFlags({ 'auth-migration-stage': 'dual' });
    const app = await openClient(world);
    for (let at = 0; at < 3; at++) expect(await app.get()).toBe(200);
    expect(app.posts).toEqual([]);
  });

  it('exchanges within the request where only a token is accepted: the caller sees one answer, 200', async () => {
    await world.setFlags({ 'auth-migration-stage': 'jwt-only' });
    const app = await openClient(world);
    expect(await app.get()).toBe(200);
    expect(app.sent.map(({ path, status }) => [path, status])).toEqual([
      ['/me', 401],
      ['/auth/token', 200],
      ['/me', 200],
    ]);
  });

  it('sends the body again with the second credential', async () => {
    await world.setFlags({ 'auth-migration-stage': 'jwt-only' });
    const app = await openClient(world);
    const answer = await app.client.fetch(`${world.url}/me`, { method: 'POST', body: 'a whole order' });
    expect(answer.status).toBe(200);
    expect(app.sent.filter(({ path }) => path === '/me').map(({ method, status }) => [method, status])).toEqual([
      ['POST', 401],
      ['POST', 200],
    ]);
  });

  it('refreshes once for many requests at once', async () => {
    const app = await openClient(world);
    app.lifeSeconds = 5;
    await app.get();
    await expect.poll(() => app.client.state).toBe('jwt');
    app.lifeSeconds = 600;
    const statuses = await Promise.all(Array.from({ length: 20 }, async () => await app.get()));
    expect(new Set(statuses)).toEqual(new Set([200]));
    await expect.poll(() => app.posts.map(({ status }) => status)).toEqual([200, 200]);
    await Promise.all(Array.from({ length: 5 }, async () => await app.get()));
    expect(app.posts).toHaveLength(2);
  });

  it('steps back to the cookie where its tokens were ended and the session lives', async () => {
    const app = await openClient(world);
    app.lifeSeconds = 1;
    await app.get();
    await expect.poll(() => app.client.state).toBe('jwt');
    await world.setFlags({ 'auth-migration-stage': 'session-only' });
    const [sid] = world.log
      .audits('exchange.granted')
      .slice(-1)
      .map((line) => String(line['sid']));
    await world.legacy.redis.del(...(await world.legacy.redis.keys(`${world.prefix}{${sid}}:famil*`)));
    await expect.poll(async () => [await app.get(), app.client.state]).toEqual([200, 'session']);
    expect(app.states).toEqual(['jwt', 'session']);
    expect(await app.get()).toBe(200);
    expect(app.sent.at(-1)).toMatchObject({ path: '/me', bearer: false, status: 200 });
  });

  it.each([
    ['refused', true, () => new Response('', { status: 500 })],
    ['a page for everybody', true, () => new Response('ok')],
    ['accepted once', false, () => new Response('ok', { headers: { 'auth-migration': 'stage=jwt-preferred, exchange="/auth/token"' } })],
  ])('keeps a refresh token that was refused, until its cookie was accepted: %s', async (_, isKept, answerToCookie) => {
    const refreshes: string[] = [];
    let phase: 'lost' | 'back' = 'lost';
    const client = createClient({
      baseUrl: 'https://app.example.com',
      clientId: 'app',
      cookies: { get: () => 'koa.sess=a', set: () => undefined },
      fetch: async (input, init) => {
        const request = new Request(input, init);
        if (request.url.endsWith('/auth/token')) {
          const form = new URLSearchParams(await request.text());
          const given = { access_token: 'a.b.c', refresh_token: 'the-refresh-token', expires_in: 600 };
          const isFirst = refreshes.length === 0;
          if (form.get('grant_type') !== 'refresh_token')
            return isFirst ? Response.json(given) : Response.json({ error: 'unauthorized_client' }, { status: 400 });
          refreshes.push(form.get('refresh_token') ?? '');
          const isGood = phase === 'back' && form.has('refresh_token');
          return isGood ? Response.json(given) : Response.json({ error: 'invalid_grant' }, { status: 400 });
        }
        if (request.headers.has('authorization')) {
          const challenge = { 'www-authenticate': 'Bearer error="invalid_token"' };
          return phase === 'back' ? new Response('ok') : new Response('', { status: 401, headers: challenge });
        }
        if (refreshes.length === 0) return new Response('ok', { headers: { 'auth-migration': 'stage=jwt-preferred, exchange="/auth/token"' } });
        if (phase === 'back') return new Response('', { status: 401, headers: { 'www-authenticate': 'Bearer' } });
        return answerToCookie();
      },
    });
    await client.fetch('https://app.example.com/me');
    await expect.poll(() => client.state).toBe('jwt');
    await client.fetch('https://app.example.com/me');
    expect(refreshes).toEqual(['the-refresh-token']);
    phase = 'back';
    const answer = await client.fetch('https://app.example.com/me');
    expect(answer.status).toBe(isKept ? 200 : 401);
    expect(refreshes[1] ?? '').toBe(isKept ? 'the-refresh-token' : '');
  });

  it.each([
    ['when-told', 'session'],
    ['when-open', 'jwt'],
  ] as const)('at dual, with exchange: %s, goes on by %s', async (exchange, state) => {
    await world.setFlags({ 'auth-migration-stage': 'dual' });
    const app = await openClient(world, 'alice', { exchange });
    for (let n = 0; n < 3; n++) expect(await app.get()).toBe(200);
    await expect.poll(() => app.client.state).toBe(state);
    expect(await app.client.exchange()).toBe(true);
    expect(app.client.state).toBe('jwt');
  });

  it('with exchange: when-open asks once for a page, and not again for ten minutes after a refusal', async () => {
    await world.setFlags({ 'auth-migration-stage': 'session-only' });
    const app = await openClient(world, 'alice', { exchange: 'when-open' });
    for (let n = 0; n < 3; n++) expect(await app.get()).toBe(200);
    await expect.poll(() => app.posts.length).toBe(1);
    expect(await app.client.exchange()).toBe(false);
    expect(app.posts).toHaveLength(2);
    app.client.signedIn();
    expect(await app.get()).toBe(200);
    await expect.poll(() => app.posts.length).toBe(3);
  });

  it('is signed out once the session has ended, says so, and asks no further', async () => {
    const app = await openClient(world);
    await app.get();
    await expect.poll(() => app.client.state).toBe('jwt');
    await world.legacy.logout(app.cookie);
    await expect.poll(async () => await app.get()).toBe(401);
    expect(app.client.state).toBe('signed-out');
    const asked = app.posts.length;
    for (let at = 0; at < 3; at++) expect(await app.get()).toBe(401);
    expect(app.posts).toHaveLength(asked);
    app.cookie = await world.login('alice');
    app.client.signedIn();
    expect(await app.get()).toBe(200);
  });

  it('ends session and tokens by logout()', async () => {
    const app = await openClient(world);
    await app.get();
    await expect.poll(() => app.client.state).toBe('jwt');
    await app.client.logout();
    expect(app.client.state).toBe('signed-out');
    expect((await world.call('/me', { cookie: app.cookie })).status).toBe(401);
  });

  it('goes back to its session when it is called, and stays there', async () => {
    const app = await openClient(world);
    await app.get();
    await expect.poll(() => app.client.state).toBe('jwt');
    await world.setFlags({ 'auth-migration-stage': 'recall' });
    expect(await app.get()).toBe(200);
    await expect.poll(() => app.client.state).toBe('session');
    expect(await app.get()).toBe(200);
    expect(app.posts.map(({ path, status }) => [path, status])).toEqual([
      ['/auth/token', 200],
      ['/auth/session', 204],
    ]);
  });

  it('asks no second time soon for an exchange that is refused', async () => {
    const app = await openClient(world);
    const { fetch: realFetch } = globalThis;
    // A nudge that is a moment older than the flag.
    const client = createClient({
      baseUrl: world.url,
      clientId: 'android',
      cookies: { get: () => app.cookie, set: () => undefined },
      async fetch(input, init) {
        const answer = await realFetch(input, init);
        app.sent.push({ path: new URL(answer.url).pathname, method: '', bearer: false, status: answer.status });
        const headers = new Headers(answer.headers);
        headers.set('auth-migration', 'stage=jwt-preferred, exchange="https://app.example.com/auth/token"');
        return new Response(answer.body, { status: answer.status, headers });
      },
    });
    await world.setFlags({ 'auth-migration-stage': 'session-only' });
    for (let at = 0; at < 5; at++) expect((await client.fetch(`${world.url}/me`)).status).toBe(200);
    await expect.poll(() => app.posts.length).toBe(1);
    expect(client.state).toBe('session');
  });

  it('waits as Retry-After says where the bridge cannot know, for what can be repeated', async () => {
    const alone = await open({ stage: 'session-only' });
    const app = await openClient(alone);
    await alone.store.cut();
    expect((await app.client.fetch(`${alone.url}/me`, { method: 'POST', body: 'once' })).status).toBe(503);
    expect(app.sent).toHaveLength(1);
    const answer = app.get();
    await expect.poll(() => app.sent.length).toBe(2);
    await alone.store.restore();
    expect(await answer).toBe(200);
    expect(app.client.state).toBe('session');
  }, 40_000);

  it('whose token has run out, whose session is gone and whom nobody can answer is not signed out; the way back serves where it is open', async () => {
    const app = await openClient(world);
    app.lifeSeconds = 1;
    await app.get();
    await expect.poll(() => app.client.state).toBe('jwt');
    await new Promise((resolve) => setTimeout(resolve, 1100));
    // Whatever makes tokens is away; the cookie names no session.
    app.refuse = (path) => path === '/auth/token' || path === '/auth/session';
    app.cookie = '';
    expect(await app.get()).toBe(401);
    expect(app.states).toEqual(['jwt', 'session']);
    expect(app.posts.map(({ path }) => path)).toContain('/auth/session');
    // The way back is there again, and has a session for it.
    await world.setFlags({ 'auth-migration-stage': 'dual' });
    app.refuse = (path) => path === '/auth/token';
    await new Promise((resolve) => setTimeout(resolve, 1100));
    expect(await app.get()).toBe(200);
    expect(app.states).toEqual(['jwt', 'session']);
  });

  it('gives up waiting when the request is given up', async () => {
    const alone = await open({ stage: 'session-only' });
    const app = await openClient(alone);
    await alone.store.cut();
    const giveUp = new AbortController();
    const answer = app.client.fetch(`${alone.url}/me`, { signal: giveUp.signal });
    await expect.poll(() => app.sent.length).toBe(1);
    giveUp.abort();
    await expect(answer).rejects.toMatchObject({ name: 'AbortError' });
  });

  it('takes no token of the person before, that comes back after somebody else has signed in', async () => {
    const app = await openClient(world, 'alice');
    let release: () => void = () => undefined;
    app.hold = new Promise((resolve) => {
      release = resolve;
    });
    await app.get();
    await expect.poll(() => app.posts.length).toBe(1);
    app.cookie = await world.login('bob');
    app.client.signedIn();
    release();
    app.hold = undefined;
    for (let at = 0; at < 3; at++) {
      const answer = await app.client.fetch(`${world.url}/me`);
      expect(await answer.json()).toMatchObject({ principal: { subject: 'u-bob' } });
    }
    await expect.poll(() => app.client.state).toBe('jwt');
    expect(await (await app.client.fetch(`${world.url}/me`)).json()).toMatchObject({ principal: { subject: 'u-bob', via: 'jwt' } });
  });

  it('sends a token nowhere else', async () => {
    const app = await openClient(world);
    await app.get();
    await expect.poll(() => app.client.state).toBe('jwt');
    const elsewhere = await open();
    await app.client.fetch(`${elsewhere.url}/`);
    expect(app.sent.filter(({ path }) => path === '/')).toEqual([expect.objectContaining({ bearer: false })]);
  });

  it('one service that refuses good tokens signs nobody out: its answer is passed on, and the token kept', async () => {
    const app = await openClient(world);
    await app.get();
    await expect.poll(() => app.client.state).toBe('jwt');
    app.answer = (path) =>
      path === '/stale' ? new Response('', { status: 401, headers: { 'www-authenticate': 'Bearer error="invalid_token"' } }) : undefined;
    expect(await app.get('/stale')).toBe(401);
    expect(app.client.state).toBe('jwt');
    expect(await app.get()).toBe(200);
    expect(app.sent.at(-1)).toMatchObject({ bearer: true });
  });

  it('a challenge that is not the bridge’s own asks for nothing', async () => {
    await world.setFlags({ 'auth-migration-stage': 'dual' });
    const app = await openClient(world);
    app.answer = (path) => (path === '/cdn' ? new Response('', { status: 401, headers: { 'www-authenticate': 'Bearer realm="cdn"' } }) : undefined);
    expect(await app.get('/cdn')).toBe(401);
    expect(app.client.state).toBe('session');
    expect(app.posts).toEqual([]);
  });

  it('a request of the person before is not sent again as the next person', async () => {
    await world.setFlags({ 'auth-migration-stage': 'jwt-only' });
    const app = await openClient(world, 'alice');
    let release: () => void = () => undefined;
    app.hold = new Promise((resolve) => {
      release = resolve;
    });
    const answer = app.client.fetch(`${world.url}/me`, { method: 'PUT', body: 'of alice' });
    await expect.poll(() => app.posts.length).toBe(1);
    app.cookie = await world.login('bob');
    app.client.signedIn();
    release();
    app.hold = undefined;
    expect((await answer).status).toBe(401);
    expect(app.sent.filter(({ method, path }) => method === 'PUT' && path === '/me')).toHaveLength(1);
  });

  it('gives up with the caller while a renewal hangs', async () => {
    await world.setFlags({ 'auth-migration-stage': 'jwt-only' });
    const app = await openClient(world);
    let release: () => void = () => undefined;
    app.hold = new Promise((resolve) => {
      release = resolve;
    });
    const giveUp = new AbortController();
    const answer = app.client.fetch(`${world.url}/me`, { signal: giveUp.signal });
    await expect.poll(() => app.posts.length).toBe(1);
    giveUp.abort();
    await expect(answer).rejects.toMatchObject({ name: 'AbortError' });
    release();
  });

  it('leaves a credential of the caller’s own as it is', async () => {
    const app = await openClient(world);
    await app.get();
    await expect.poll(() => app.client.state).toBe('jwt');
    const answer = await app.client.fetch(`${world.url}/me`, { headers: { authorization: 'Basic YTpi' } });
    expect(answer.status).toBe(401);
    expect(app.client.state).toBe('jwt');
  });

  it('ends the session where its tokens have ended already', async () => {
    const app = await openClient(world);
    await app.get();
    await expect.poll(() => app.client.state).toBe('jwt');
    const line = world.log.audits('exchange.granted').at(-1);
    await world.legacy.redis.del(...(await world.legacy.redis.keys(`${world.prefix}{${String(line?.['sid'])}}:famil*`)));
    app.answer = (path) => (path === '/auth/logout' && app.refusals++ === 0 ? Response.json({ error: 'invalid_token' }, { status: 401 }) : undefined);
    await app.client.logout();
    expect(app.client.state).toBe('signed-out');
    expect((await world.call('/me', { cookie: app.cookie })).status).toBe(401);
  });
});
