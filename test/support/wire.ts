import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { basic, cookiesOf, exchangeNative, refreshCookie, SESSION_TYPE, TOKEN_EXCHANGE } from './tokens.js';
import { CLIENT_SECRETS, ORIGIN, type World } from './world.js';

/** What a request of the list may show. Each place that is tried has its own, so that none ends what another one needs. */
export interface Credentials {
  readonly cookie: string;
  /** A native client's. */
  readonly access: string;
  readonly refresh: string;
  /** A browser's: the session and the refresh token, both as cookies. */
  readonly browser: string;
  readonly etag: string;
}

export async function makeCredentials(world: World): Promise<Credentials> {
  const cookie = await world.login('alice');
  const { access, refresh } = await exchangeNative(world, await world.login('bob'));
  const session = await world.login('carol');
  const exchanged = await world.exchange(session);
  cookiesOf(exchanged);
  const jwks = await world.call('/.well-known/jwks.json');
  return { cookie, access, refresh, browser: `${session}; ${refreshCookie(exchanged)}`, etag: jwks.headers.get('etag') ?? '' };
}

export interface RecordedRequest {
  readonly name: string;
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Default: HTTP/1.1. */
  readonly version?: '1.0' | '2';
}

const FORM = { 'content-type': 'application/x-www-form-urlencoded' };
const JSON_TYPE = { 'content-type': 'application/json' };
const form = (fields: Record<string, string>) => new URLSearchParams(fields).toString();
const orders = basic('orders-api', CLIENT_SECRETS['orders-api']);
const login = basic('login', CLIENT_SECRETS.login);

/** Requests to the bridge's own paths. */
export function endpointRequests({ cookie, access, refresh, browser, etag }: Credentials): readonly RecordedRequest[] {
  const exchange = { grant_type: TOKEN_EXCHANGE, client_id: 'android', subject_token: cookie, subject_token_type: SESSION_TYPE };
  const post = (name: string, path: string, body: string, headers: Record<string, string> = {}): RecordedRequest => ({
    name,
    method: 'POST',
    path,
    headers: { ...FORM, ...headers },
    body,
  });
  const get = (name: string, path: string, headers: Record<string, string> = {}, method = 'GET'): RecordedRequest => ({
    name,
    method,
    path,
    headers,
  });
  return [
    post('exchange, native', '/auth/token', form(exchange)),
    { ...post('exchange, over HTTP/1.0', '/auth/token', form(exchange)), version: '1.0' },
    { ...post('exchange, over HTTP/2', '/auth/token', form(exchange)), version: '2' },
    post('exchange, browser', '/auth/token', form({ grant_type: TOKEN_EXCHANGE }), { origin: ORIGIN, cookie }),
    post('exchange of another audience', '/auth/token', form({ ...exchange, audience: 'https://elsewhere.example.com' })),
    post('exchange of more scope', '/auth/token', form({ ...exchange, scope: 'admin:all' })),
    post('exchange with less scope', '/auth/token', form({ ...exchange, scope: 'read:orders' })),
    post('exchange without a session', '/auth/token', form({ ...exchange, subject_token: 'koa.sess=nobody' })),
    post('exchange of an unknown client', '/auth/token', form({ ...exchange, client_id: 'nobody' })),
    post('exchange from a foreign page', '/auth/token', form({ grant_type: TOKEN_EXCHANGE }), { origin: 'https://evil.example.com', cookie }),
    post('exchange beside the bearer of somebody else', '/auth/token', form(exchange), { authorization: `Bearer ${access}` }),
    post('exchange with actor_token', '/auth/token', form({ ...exchange, actor_token: 'x' })),
    post('no grant type', '/auth/token', form({ client_id: 'android' })),
    post('unknown grant type', '/auth/token', form({ grant_type: 'password' })),
    post('a parameter twice', '/auth/token', 'grant_type=refresh_token&grant_type=refresh_token'),
    post('too large', '/auth/token', `grant_type=${'x'.repeat(17_000)}`),
    post('another content type', '/auth/token', '{}', JSON_TYPE),
    { name: 'no content type', method: 'POST', path: '/auth/token', body: 'grant_type=refresh_token' },
    { name: 'no body', method: 'POST', path: '/auth/token', headers: { ...FORM, 'content-length': '0' } },
    post('a token in the query', '/auth/token?access_token=x', form(exchange)),
    post('two Authorization headers as one', '/auth/token', form(exchange), { authorization: 'Bearer a.b.c, Bearer d.e.f' }),
    post('refresh, native', '/auth/token', form({ grant_type: 'refresh_token', client_id: 'android', refresh_token: refresh })),
    post('refresh of a malformed token', '/auth/token', form({ grant_type: 'refresh_token', client_id: 'android', refresh_token: 'xfr1.x' })),
    post('refresh of another client', '/auth/token', form({ grant_type: 'refresh_token', client_id: 'ios', refresh_token: refresh })),
    post('refresh, browser', '/auth/token', form({ grant_type: 'refresh_token' }), { origin: ORIGIN, cookie: browser }),
    post('refresh, browser, with a stale cookie', '/auth/token', form({ grant_type: 'refresh_token' }), {
      origin: ORIGIN,
      cookie: '__Secure-xfr=xfr1.x',
    }),
    post('refresh without a token', '/auth/token', form({ grant_type: 'refresh_token', client_id: 'android' })),
    post('return to a session that nobody may go back to yet', '/auth/session', form({ client_id: 'android', refresh_token: refresh })),
    post('return with a malformed token', '/auth/session', form({ client_id: 'android', refresh_token: 'xfr1.x' })),
    post('issue', '/auth/issue', JSON.stringify({ client_id: 'android', subject: 'u-7' }), { ...JSON_TYPE, ...login }),
    {
      ...post('issue for a client with a cookie', '/auth/issue', JSON.stringify({ client_id: 'web', subject: 'u-7' }), { ...JSON_TYPE, ...login }),
    },
    post('issue of what does not fit', '/auth/issue', '{"subject":8}', { ...JSON_TYPE, ...login }),
    post('issue of no JSON', '/auth/issue', '{', { ...JSON_TYPE, ...login }),
    post('issue without a secret', '/auth/issue', '{}', JSON_TYPE),
    post('introspect', '/auth/introspect', form({ token: access }), orders),
    post('introspect of what is no token', '/auth/introspect', form({ token: 'x' }), orders),
    post('introspect without a secret', '/auth/introspect', form({ token: access })),
    post('introspect with a wrong secret', '/auth/introspect', form({ token: access }), basic('orders-api', 'wrong')),
    get('a method that an endpoint has not', '/auth/token'),
    get('TRACE', '/auth/token', {}, 'TRACE'),
    get('DELETE', '/.well-known/jwks.json', {}, 'DELETE'),
    get('OPTIONS', '/auth/token', {}, 'OPTIONS'),
    get('OPTIONS of keys', '/.well-known/jwks.json', {}, 'OPTIONS'),
    get('preflight', '/auth/token', { origin: ORIGIN, 'access-control-request-method': 'POST' }, 'OPTIONS'),
    get('preflight of a foreign page', '/auth/token', { origin: 'https://evil.example.com', 'access-control-request-method': 'POST' }, 'OPTIONS'),
    post('an error that a page may read', '/auth/token', '', { origin: ORIGIN }),
    get('keys', '/.well-known/jwks.json'),
    get('keys from a page', '/.well-known/jwks.json', { origin: ORIGIN }),
    get('keys, HEAD', '/.well-known/jwks.json', {}, 'HEAD'),
    get('keys that have not changed', '/.well-known/jwks.json', { 'if-none-match': etag }),
    get('keys, anew', '/.well-known/jwks.json', { 'if-none-match': etag, 'cache-control': 'no-cache' }),
    get('metadata', '/.well-known/oauth-authorization-server'),
    { ...get('metadata over HTTP/1.0', '/.well-known/oauth-authorization-server'), version: '1.0' },
    { ...get('metadata over HTTP/2', '/.well-known/oauth-authorization-server'), version: '2' },
    get('an absolute URL with settings of forward-auth', 'http://app.example.com/auth/verify?scope=write:everything', { cookie }),
    get('an absolute URL', 'http://app.example.com/.well-known/oauth-authorization-server'),
    get('forward-auth, session', '/auth/verify', { cookie }),
    get('forward-auth, bearer', '/auth/verify', { authorization: `Bearer ${access}` }),
    get('forward-auth, nobody', '/auth/verify'),
    get('forward-auth, nobody where anybody may', '/auth/verify?anonymous=allow'),
    get('forward-auth, scope', '/auth/verify?scope=write:everything', { cookie }),
    get('forward-auth, path parameters', '/auth/verify;scope=read:orders/orders?x=1', { cookie }),
    get('forward-auth, HEAD', '/auth/verify', { cookie }, 'HEAD'),
    { ...get('forward-auth over HTTP/2', '/auth/verify', { cookie }), version: '2' },
    get('forward-auth, what is no setting', '/auth/verify?x=1', { cookie }),
    post('revoke of what is no token', '/auth/revoke', form({ client_id: 'android', token: 'x' })),
    post('revoke without a token', '/auth/revoke', form({ client_id: 'android' })),
    post('revoke', '/auth/revoke', form({ client_id: 'android', token: access })),
    post('logout of nobody', '/auth/logout', '', { origin: ORIGIN }),
    { name: 'logout without a body', method: 'POST', path: '/auth/logout', headers: { 'content-length': '0', origin: ORIGIN, cookie: browser } },
    post('logout from a foreign page', '/auth/logout', '', { origin: 'https://evil.example.com', cookie }),
  ];
}

/** Requests to handlers behind `authenticate()` and `require()`. */
export function guardedRequests({ cookie, access }: Credentials): readonly RecordedRequest[] {
  const me = (name: string, headers: Record<string, string>, path = '/me'): RecordedRequest => ({ name, method: 'GET', path, headers });
  return [
    me('a session', { cookie }),
    me('a bearer', { authorization: `Bearer ${access}` }),
    me('nobody', {}),
    me('a bad bearer', { authorization: 'Bearer a.b.c' }),
    me('a bad bearer beside a session', { authorization: 'Bearer a.b.c', cookie }),
    me('a token in the query', { cookie }, '/me?access_token=x'),
    me('a scope that is there', { cookie }, '/orders'),
    me('a cookie that is none', { cookie: 'koa.sess=nobody; koa.sess.sig=x' }),
    { ...me('a session, HEAD', { cookie }), method: 'HEAD' },
    { ...me('a session over HTTP/2', { cookie }), version: '2' },
    me('a path of the app', { cookie }, '/elsewhere'),
    me('a path beside the bridge', { cookie }, '/auth/tokens'),
  ];
}

/** What came back, a line each; what is different each time is named instead. */
export async function ask(at: { readonly url: string; readonly http2Url: string }, request: RecordedRequest): Promise<string> {
  const { status, headers, body } = request.version === '2' ? await askHttp2(at.http2Url, request) : await askHttp1(at.url, request);
  const isVaried = /<token>/.test(withoutSecrets(body));
  const lines = headers
    .map(([name, value]) => `${name}: ${(isVaried && name === 'content-length') || name === 'retry-after' ? '<number>' : withoutSecrets(value)}`)
    .filter((line) => !/^(date|connection|keep-alive|transfer-encoding|x-powered-by):/.test(line))
    .sort();
  return [`## ${request.name}`, `${request.method} ${request.path}`, String(status), ...lines, withoutSecrets(body), ''].join('\n');
}

function withoutSecrets(value: string): string {
  return value
    .replaceAll(/eyJ[\w-]+\.[\w-]+\.[\w-]+/g, '<token>')
    .replaceAll(/xfr1\.[\w-]+\.[\w.-]+/g, '<token>')
    .replaceAll(/Expires=(?!Thu, 01 Jan 1970)[^;]+/g, 'Expires=<date>')
    .replaceAll(/"(sid|kid|x|y|jti|fid|sub|exp|iat)":("[^"]*"|\d+)/g, '"$1":<$1>')
    .replaceAll(/"(authTime|expiresAt|auth_time)":\d+/g, '"$1":<time>')
    .replaceAll(/^"[\w-]{20,}"$|W\/"[^"]+"/g, '<etag>')
    .replaceAll(/koa\.sess(\.sig)?=[\w-]+/g, 'koa.sess$1=<value>')
    .replaceAll(/u-\d+/g, '<subject>');
}

interface Answer {
  readonly status: number;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: string;
}

async function askHttp1(url: string, { method, path, headers = {}, body = '', version }: RecordedRequest): Promise<Answer> {
  const { hostname, port } = new URL(url);
  const length = body === '' || 'content-length' in headers ? {} : { 'content-length': String(Buffer.byteLength(body)) };
  const all = { host: `${hostname}:${port}`, connection: 'close', ...headers, ...length };
  const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  const socket = connect(Number(port), hostname);
  socket.write(`${method} ${path} HTTP/${version ?? '1.1'}\r\n${head.join('')}\r\n${body}`);
  const answer = await text(socket);
  const end = answer.indexOf('\r\n\r\n');
  const [first = '', ...lines] = answer.slice(0, end).split('\r\n');
  return {
    status: Number(first.split(' ')[1]),
    headers: lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()] as const),
    body: answer.slice(end + 4),
  };
}

async function askHttp2(url: string, { method, path, headers = {}, body = '' }: RecordedRequest): Promise<Answer> {
  const session = connectHttp2(url);
  try {
    const length = body === '' ? {} : { 'content-length': String(Buffer.byteLength(body)) };
    const stream = session.request({ ':method': method, ':path': path, ...headers, ...length }, { endStream: body === '' });
    if (body !== '') stream.end(body);
    const answered = new Promise<Record<string, unknown>>((resolve, reject) => {
      stream.on('response', resolve);
      stream.on('error', reject);
    });
    const found = await answered;
    const named = Object.entries(found).filter(([name]) => !name.startsWith(':'));
    return {
      status: Number(found[':status']),
      headers: named.flatMap(([name, value]) => (Array.isArray(value) ? value : [value]).map((one) => [name, String(one)] as const)),
      body: await text(stream),
    };
  } finally {
    session.close();
  }
}
