import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { Client, ClientOptions } from '../../src/client/index.js';

// The floor of docs/client.md: Safari 14 and React Native. What is newer is taken away, or throws, one after the other.

const SOURCES = fileURLToPath(new URL('../../src/client', import.meta.url));
const BASE = 'https://app.example.com';
/** Where a global stands: of the object that a path leads to, the last name. */
const NEWER = [
  'AbortSignal.timeout',
  'AbortSignal.any',
  'AbortSignal.prototype.throwIfAborted',
  'AbortSignal.prototype.reason',
  'Array.prototype.findLast',
  'BroadcastChannel',
  'Event',
  'EventTarget',
  'Headers.prototype.getSetCookie',
  'Promise.withResolvers',
  'Response.prototype.body',
  'String.prototype.at',
  'atob',
  'crypto',
  'navigator',
  'structuredClone',
] as const;

let put: (() => void)[] = [];
beforeEach(() => {
  vi.resetModules();
  define(globalThis, 'document', { value: {} });
});
afterEach(() => {
  for (const back of put.reverse()) back();
  put = [];
});

function define(owner: object, name: string, descriptor: PropertyDescriptor | undefined): void {
  const before = Object.getOwnPropertyDescriptor(owner, name);
  put.push(() => {
    if (before) Object.defineProperty(owner, name, before);
    else Reflect.deleteProperty(owner, name);
  });
  if (descriptor) Object.defineProperty(owner, name, { configurable: true, ...descriptor });
  else Reflect.deleteProperty(owner, name);
}

function ownerOf(path: string): [owner: object, name: string] {
  const names = path.split('.');
  const last = names.pop() ?? '';
  const owner = names.reduce<unknown>((at, name) => Reflect.get(Object(at), name), globalThis);
  return [Object(owner), last];
}

/** A bridge at jwt-only: a session is exchanged first; a refresh and a return work. */
async function openClient(more: Partial<ClientOptions> = {}): Promise<{ client: Client; asked: string[] }> {
  const { createClient } = await import('../../src/client/index.js');
  const asked: string[] = [];
  const client = createClient({
    baseUrl: BASE,
    clientId: 'app',
    cookies: { get: () => 'koa.sess=a', set: (lines) => void asked.push(`cookies ${lines.length}`) },
    fetch: async (input, init) => {
      const request = new Request(input, init);
      const { pathname } = new URL(request.url);
      if (pathname.startsWith('/auth/')) asked.push(pathname);
      if (pathname === '/auth/token') return Response.json({ access_token: 'a.b.c', refresh_token: 'r', expires_in: 600 });
      if (pathname === '/auth/session')
        return new Response(null, {
          status: 204,
          headers: [
            ['set-cookie', 'koa.sess=b; Expires=Thu, 01 Jan 2032 00:00:00 GMT'],
            ['set-cookie', 'koa.sess.sig=c'],
          ],
        });
      if (pathname === '/auth/logout') return new Response(null, { status: 204 });
      if (pathname === '/back') return new Response('ok', { headers: { 'auth-migration': 'stage=recall, return="/auth/session"' } });
      if (request.headers.has('authorization')) return new Response('ok');
      return new Response('', { status: 401, headers: { 'auth-migration': 'stage=jwt-only, exchange="/auth/token"' } });
    },
    ...more,
  });
  return { client, asked };
}

async function goesTheWholeWay(): Promise<void> {
  const { client, asked } = await openClient();
  const states: string[] = [];
  client.addEventListener('state', () => states.push(client.state));
  expect((await client.fetch(`${BASE}/me`)).status).toBe(200);
  expect((await client.fetch(`${BASE}/me`, { method: 'POST', body: 'x' })).status).toBe(200);
  expect((await client.fetch(`${BASE}/back`)).status).toBe(200);
  await expect.poll(() => client.state).toBe('session');
  await client.logout();
  client.close();
  expect(states).toEqual(['jwt', 'session', 'signed-out']);
  expect(asked).toEqual(['/auth/token', '/auth/session', 'cookies 2', '/auth/logout']);
}

it('uses nothing newer that the fetch of Node.js itself needs', () => {
  for (const name of readdirSync(SOURCES))
    expect(readFileSync(join(SOURCES, name), 'utf8')).not.toMatch(/\.at\(|Object\.hasOwn|#\w+ =|static \{|^await /m);
});

it.each(NEWER)('works without %s', async (path) => {
  const [owner, name] = ownerOf(path);
  define(owner, name, undefined);
  await goesTheWholeWay();
});

const refuse = () => {
  throw Object.assign(new Error('The operation is insecure.'), { name: 'SecurityError' });
};

it.each<[what: string, take: () => void]>([
  ['new BroadcastChannel', () => define(globalThis, 'BroadcastChannel', { value: refuse })],
  ['the getter of BroadcastChannel', () => define(globalThis, 'BroadcastChannel', { get: refuse })],
  ['the getter of navigator.locks', () => define(globalThis, 'navigator', { value: Object.defineProperty({}, 'locks', { get: refuse }) })],
  ['navigator.locks.request', () => define(globalThis, 'navigator', { value: { locks: { request: refuse } } })],
  ['a rejected navigator.locks.request', () => define(globalThis, 'navigator', { value: { locks: { request: async () => refuse() } } })],
  ['localStorage', () => define(globalThis, 'localStorage', { get: refuse })],
  ['sessionStorage', () => define(globalThis, 'sessionStorage', { get: refuse })],
  ['indexedDB', () => define(globalThis, 'indexedDB', { get: refuse })],
])('works where %s throws', async (_, take) => {
  take();
  await goesTheWholeWay();
});

it('goes on alone where another tab never gives the lock back', async () => {
  vi.useFakeTimers();
  try {
    const request = (_: string, { signal }: { signal: AbortSignal }) =>
      new Promise((__, reject) => signal.addEventListener('abort', () => reject(new Error('aborted'))));
    define(globalThis, 'navigator', { value: { locks: { request } } });
    const { client, asked } = await openClient();
    const answer = client.fetch(`${BASE}/me`);
    await vi.advanceTimersByTimeAsync(1900);
    expect(asked).toEqual([]);
    await vi.advanceTimersByTimeAsync(200);
    expect((await answer).status).toBe(200);
    client.close();
  } finally {
    vi.useRealTimers();
  }
});

it('a mistake of ours is no bridge that cannot say: it is thrown', async () => {
  const { client } = await openClient({
    cookies: {
      get: () => {
        throw new TypeError('the jar is broken');
      },
      set: () => undefined,
    },
  });
  await expect(client.fetch(`${BASE}/me`)).rejects.toThrow('the jar is broken');
});
