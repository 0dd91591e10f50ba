import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { type RawResponse, rawRequest } from '../../scripts/lib/raw-request.js';
import { IDENTITY_HEADERS } from '../../src/endpoints/verify-endpoint.js';
import { createWorld, type World } from '../support/world.js';

// Debian has neither Traefik nor Envoy. What they do with a request is replayed here, by the rules of their sources (Traefik 3.7
// pkg/middlewares/auth/forward.go, Envoy 1.30 ext_authz_http_impl.cc), out of the shipped files; nothing here proves the files' own grammar.

const read = (path: string): unknown => parse(readFileSync(new URL(`../../docs/deploy/${path}`, import.meta.url), 'utf8'), { merge: true });

interface ClientRequest {
  readonly method: string;
  readonly uri: string;
  readonly headers: Readonly<Record<string, string>>;
}

interface Proxied {
  /** What the bridge has answered. */
  readonly answer: RawResponse;
  /** Headers of the request as the app gets it; undefined: it does not get it. */
  readonly toApp: Readonly<Record<string, string>> | undefined;
}

const traefikSchema = z.object({
  http: z.object({
    middlewares: z.object({
      crossfade: z.object({
        forwardAuth: z.object({
          address: z.string(),
          trustForwardHeader: z.literal(false),
          authRequestHeaders: z.array(z.string()),
          authResponseHeadersRegex: z.string(),
        }),
      }),
      nobody: z.object({ headers: z.object({ customRequestHeaders: z.record(z.string(), z.string()) }) }),
    }),
  }),
});

/** As Go writes a header's name. */
const canonical = (name: string) => name.toLowerCase().replaceAll(/(^|-)([a-z])/g, (_, dash: string, letter: string) => dash + letter.toUpperCase());

async function throughTraefik(world: World, { method, uri, headers }: ClientRequest): Promise<Proxied> {
  const { forwardAuth } = traefikSchema.parse(read('traefik/crossfade.yml')).http.middlewares.crossfade;
  const sent: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) if (forwardAuth.authRequestHeaders.includes(canonical(name))) sent[canonical(name)] = value;
  const { pathname, search } = new URL(forwardAuth.address);
  const answer = await rawRequest(`${world.url}${pathname}${search}`, {
    headers: {
      ...sent,
      'X-Forwarded-Method': method,
      'X-Forwarded-Proto': 'https',
      'X-Forwarded-Host': 'app.example.com',
      'X-Forwarded-Uri': uri,
      'X-Forwarded-For': '198.51.100.7',
    },
  });
  if (answer.status < 200 || answer.status >= 300) return { answer, toApp: undefined };
  const matches = new RegExp(forwardAuth.authResponseHeadersRegex.replace('(?i)', ''), 'i');
  const kept = Object.entries(headers).filter(([name]) => !matches.test(canonical(name)));
  const set = Object.entries(answer.headers).filter(([name]) => matches.test(canonical(name)));
  return { answer, toApp: Object.fromEntries([...kept, ...set.map(([name, value]) => [name, String(value)] as const)]) };
}

const patterns = z.object({ patterns: z.array(z.union([z.object({ exact: z.string() }), z.object({ prefix: z.string() })])) });
const authzSchema = z.object({
  failure_mode_allow: z.literal(false),
  status_on_error: z.object({ code: z.literal('ServiceUnavailable') }),
  allowed_headers: patterns,
  http_service: z.object({
    path_prefix: z.string(),
    authorization_response: z.object({
      allowed_upstream_headers: patterns,
      allowed_client_headers_on_success: patterns,
      allowed_client_headers: patterns,
    }),
  }),
});

/** The one ext_authz filter, wherever it stands. */
function findAuthz(value: unknown): z.output<typeof authzSchema> {
  const found: unknown[] = [];
  JSON.stringify(value, (_, member: unknown) => {
    if (authzSchema.safeParse(member).success) found.push(member);
    return member;
  });
  return authzSchema.parse(found[0]);
}

const fits = ({ patterns: all }: z.output<typeof patterns>, name: string) =>
  all.some((pattern) => ('exact' in pattern ? pattern.exact === name : name.startsWith(pattern.prefix)));

async function throughEnvoy(world: World, { method, uri, headers }: ClientRequest, prefix?: string): Promise<Proxied> {
  const { allowed_headers: allowed, http_service: service } = findAuthz(read('envoy/envoy.yaml'));
  // headers_with_underscores_action: DROP_HEADER
  const came = Object.entries(headers).flatMap(([name, value]) => (name.includes('_') ? [] : [[name.toLowerCase(), value] as const]));
  const sent = came.filter(([name]) => name === 'authorization' || fits(allowed, name));
  // normalize_path: true
  const { pathname, search } = new URL(uri, 'http://app.example.com');
  const answer = await rawRequest(`${world.url}${prefix ?? service.path_prefix}${pathname}${search}`, {
    method,
    headers: { ...Object.fromEntries(sent), host: 'app.example.com', 'content-length': '0' },
  });
  if (answer.status !== 200) return { answer, toApp: undefined };
  const { allowed_upstream_headers: upstream } = service.authorization_response;
  const set = Object.entries(answer.headers).flatMap(([name, value]) => (fits(upstream, name) ? [[name, String(value)] as const] : []));
  return { answer, toApp: { ...Object.fromEntries(came), ...Object.fromEntries(set) } };
}

let world: World;
beforeAll(async () => {
  world = await createWorld({
    stage: 'jwt-preferred',
    configure: (config) => ({ ...config, services: [{ id: 'orders', audience: 'https://orders.internal', upstream: 'jwt' }] }),
  });
});
afterAll(async () => await world.close());

const get = (headers: Record<string, string> = {}): ClientRequest => ({ method: 'GET', uri: '/api/orders?page=2', headers });
const FORGED = Object.fromEntries(IDENTITY_HEADERS.flatMap((name) => [name, name.replaceAll('-', '_')].map((spelled) => [spelled, 'u-root'])));

describe.each([
  ['Traefik', throughTraefik],
  ['Envoy', throughEnvoy],
] as const)('%s, replayed from the shipped file', (name, through) => {
  it('200: the app gets every identity header from the bridge, whatever the client sent in any spelling (A1)', async () => {
    const { answer, toApp } = await through(world, get({ cookie: await world.login('bob'), ...FORGED }));
    expect(answer.status).toBe(200);
    const seen = Object.entries(toApp ?? {}).filter(([header]) => /^x[-_]auth[-_]/i.test(header));
    expect(seen.map(([header]) => header.toLowerCase()).sort()).toEqual(IDENTITY_HEADERS.map((header) => header.toLowerCase()).sort());
    expect(Object.fromEntries(seen)).toMatchObject({ 'x-auth-subject': 'u-bob', 'x-auth-roles': 'member' });
    expect(JSON.stringify(toApp)).not.toContain('u-root');
  });

  it('401 for nobody, for a bad bearer, and whatever the client’s own query says', async () => {
    const uris = ['/api/x', '/api/x?anonymous=allow', '/auth/verify?anonymous=allow', '/;anonymous=allow'];
    for (const uri of uris) expect((await through(world, { ...get(), uri })).answer.status, uri).toBe(401);
    const cookie = await world.login('alice');
    expect((await through(world, get({ cookie, authorization: 'Bearer a.b.c' }))).answer.status).toBe(401);
  });

  it.each(['POST', 'PUT', 'PATCH', 'DELETE', 'HEAD'])('A6: %s and a deep path are answered as GET is', async (method) => {
    const request = { method, uri: '/a/b%20c/../d/?x=1', headers: { cookie: await world.login('alice'), 'x-original-method': 'GET' } };
    expect((await through(world, request)).answer.status).toBe(200);
  });

  it('503 with Retry-After where the bridge cannot know', async () => {
    const cookie = await world.login('alice');
    await world.store.cut();
    try {
      const { answer } = await through(world, get({ cookie }));
      expect([answer.status, Number(answer.headers['retry-after']) > 0]).toEqual([503, true]);
    } finally {
      await world.store.restore();
      await expect.poll(async () => (await through(world, get({ cookie }))).answer.status).toBe(200);
    }
  });

  it('upstream: jwt: Authorization is the service’s own token, whatever the client sent', async () => {
    const ask = async (headers: Record<string, string>) =>
      name === 'Traefik' ? await throughTraefik(world, get(headers)) : await throughEnvoy(world, get(headers), '/auth/verify;service=orders');
    const { toApp } = await ask({ cookie: await world.login('alice'), authorization: 'Basic dTpw' });
    expect(toApp).toMatchObject({ authorization: expect.stringMatching(/^Bearer ey/), 'x-auth-upstream': 'jwt' });
  });
});

it('Traefik: the routers without forward-auth empty the same headers', () => {
  const { customRequestHeaders } = traefikSchema.parse(read('traefik/crossfade.yml')).http.middlewares.nobody.headers;
  expect(Object.keys(customRequestHeaders)).toEqual(expect.arrayContaining([...IDENTITY_HEADERS]));
  expect(new Set(Object.values(customRequestHeaders))).toEqual(new Set(['']));
});

it('Envoy: the routes without ext_authz that lead to the app take the same headers away', () => {
  const lists: unknown[] = [];
  JSON.stringify(read('envoy/envoy.yaml'), (member, value: unknown) => {
    if (member === 'request_headers_to_remove') lists.push(value);
    return value;
  });
  expect(lists).toEqual([IDENTITY_HEADERS.map((header) => header.toLowerCase())]);
});

it('Envoy: the nudge reaches the client', async () => {
  const { allowed_client_headers_on_success: allowed } = findAuthz(read('envoy/envoy.yaml')).http_service.authorization_response;
  const { answer } = await throughEnvoy(world, get({ cookie: await world.login('alice'), 'x-client-id': 'web' }));
  expect(answer.headers['auth-migration']).toContain('stage=jwt-preferred');
  expect(fits(allowed, 'auth-migration')).toBe(true);
});
