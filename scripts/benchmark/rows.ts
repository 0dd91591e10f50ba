import type { AppName } from './apps.js';
import type { Algorithm } from './fixture.js';
import type { Workload } from './load.js';

/** One app under one workload: measured once a round. */
export interface Measure {
  readonly app: AppId;
  readonly workload: WorkloadId;
}

/** A line of the report: a measure, what it is divided by, and what it should reach. */
export interface Row extends Measure {
  readonly title: string;
  readonly group: string;
  readonly baseline: Measure;
  /** At least so much of the baseline. */
  readonly goal?: number;
  /** At least so many times another row's figure. */
  readonly times?: { readonly least: number; readonly of: Measure; readonly name: string };
  /** At most so many commands to Redis for each request. */
  readonly commands?: number;
  /** Whether the short form has it as well. */
  readonly quick?: boolean;
}

export interface AppSpec {
  readonly app: AppName | 'haproxy' | 'nginx';
  readonly algorithm?: Algorithm;
  readonly rememberedTokens?: number;
  /** Which of the two Redis servers it has: that with few sessions, or that with very many. */
  readonly many?: boolean;
  /** How many ends of sessions are in its event stream. */
  readonly revocations?: number;
}

/** All processes of a run, by name. */
export const APP_SPECS = {
  bare: { app: 'bare' },
  'bare again': { app: 'bare' },
  'bare hash': { app: 'bare-hash' },
  'bare MGET': { app: 'bare-mget' },
  'bare 204': { app: 'bare-204' },
  'throw 401': { app: 'throw-401' },
  'bare exchange ES256': { app: 'bare-exchange', algorithm: 'ES256' },
  'bare exchange EdDSA': { app: 'bare-exchange', algorithm: 'EdDSA' },
  'bare exchange RS256': { app: 'bare-exchange', algorithm: 'RS256' },
  bridge: { app: 'bridge' },
  'bridge that forgets, ES256': { app: 'bridge', rememberedTokens: 50 },
  'bridge that forgets, RS256': { app: 'bridge', algorithm: 'RS256', rememberedTokens: 50 },
  'bridge for memory': { app: 'bridge' },
  'bridge required': { app: 'bridge-required' },
  'bridge many sessions': { app: 'bridge', many: true },
  'bridge many revocations': { app: 'bridge', revocations: 100_000 },
  'bridge beside koa-session': { app: 'bridge-beside-koa-session' },
  'endpoints ES256': { app: 'bridge-endpoints', algorithm: 'ES256' },
  'endpoints EdDSA': { app: 'bridge-endpoints', algorithm: 'EdDSA' },
  'endpoints RS256': { app: 'bridge-endpoints', algorithm: 'RS256' },
  'endpoints that forget': { app: 'bridge-endpoints', rememberedTokens: 50 },
  'koa-session': { app: 'koa-session' },
  'koa-jwt RS256': { app: 'koa-jwt', algorithm: 'RS256' },
  'koa-jwt ES256': { app: 'koa-jwt', algorithm: 'ES256' },
  'passport-jwt': { app: 'passport-jwt', algorithm: 'RS256' },
  '@fastify/jwt': { app: 'fastify-jwt', algorithm: 'RS256' },
  'express-oauth2-jwt-bearer': { app: 'express-oauth2-jwt-bearer', algorithm: 'RS256' },
  'HAProxy jwt_verify': { app: 'haproxy', algorithm: 'RS256' },
  'nginx auth_request': { app: 'nginx', algorithm: 'RS256' },
} as const satisfies Record<string, AppSpec>;

export type AppId = keyof typeof APP_SPECS;

export interface WorkloadSpec extends Omit<Workload, 'name' | 'texts' | 'header'> {
  readonly tokens?: { readonly algorithm: Algorithm; readonly count: number; readonly tenants?: number; readonly forged?: boolean };
  readonly sessions?: 'few' | 'many';
}

const bearer = { connections: 64, status: 200 };

export const WORKLOAD_SPECS = {
  anonymous: { connections: 64, status: 200 },
  'no credential': { connections: 64, status: 401 },
  'bearer, 1,000 tokens': { ...bearer, tokens: { algorithm: 'ES256', count: 1000 } },
  'bearer, 1,000 tokens, RS256': { ...bearer, tokens: { algorithm: 'RS256', count: 1000 } },
  'bearer, 1,000 tokens, Zipf': { ...bearer, tokens: { algorithm: 'ES256', count: 1000 }, order: 'zipf' },
  'bearer, 50,000 tokens, Zipf': { ...bearer, tokens: { algorithm: 'ES256', count: 50_000 }, order: 'zipf' },
  'bearer, 100,000 tokens, Zipf': { ...bearer, tokens: { algorithm: 'ES256', count: 100_000 }, order: 'zipf' },
  'bearer, 10,000 tenants': { ...bearer, tokens: { algorithm: 'ES256', count: 10_000, tenants: 10_000 } },
  'bearer, 10,000 tokens of 10 tenants': { ...bearer, tokens: { algorithm: 'ES256', count: 10_000, tenants: 10 } },
  'forged RS256': { ...bearer, status: 401, tokens: { algorithm: 'RS256', count: 1000, forged: true } },
  'forged ES256': { ...bearer, status: 401, tokens: { algorithm: 'ES256', count: 1000, forged: true } },
  'session, 64 connections': { connections: 64, status: 200, sessions: 'few' },
  'session, 8 connections': { connections: 8, status: 200, sessions: 'few' },
  'session, 1 connection': { connections: 1, status: 200, sessions: 'few' },
  'session, one of 1,000,000': { connections: 64, status: 200, sessions: 'many' },
  'verify, bearer': { ...bearer, path: '/auth/verify', tokens: { algorithm: 'ES256', count: 1000 } },
  'verify, session': { connections: 64, status: 200, path: '/auth/verify', sessions: 'few' },
  'verify, bearer, 204': { ...bearer, status: 204, tokens: { algorithm: 'ES256', count: 1000 } },
  'verify, session, 204': { connections: 64, status: 204, sessions: 'few' },
  exchange: {
    connections: 64,
    status: 200,
    method: 'POST',
    path: '/auth/token',
    sessions: 'few',
    form: 'client_id=web&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token_type=urn%3Acrossfade%3Aparams%3Aoauth%3Atoken-type%3Asession&subject_token=',
  },
  refresh: {
    connections: 64,
    status: 200,
    method: 'POST',
    path: '/auth/token',
    form: 'client_id=web&grant_type=refresh_token&refresh_token=',
    successor: 'refresh_token',
  },
} as const satisfies Record<string, WorkloadSpec>;

export type WorkloadId = keyof typeof WORKLOAD_SPECS;

const bare = (workload: WorkloadId): Measure => ({ app: 'bare', workload });
const token = 'Bearer tokens';
const session = 'Sessions';
const few = 'bearer, 1,000 tokens';
const fewRs256 = 'bearer, 1,000 tokens, RS256';

function row(group: string, title: string, app: AppId, workload: WorkloadId, more: Partial<Row> = {}): Row {
  return { group, title, app, workload, baseline: bare(workload), ...more };
}

const koaSession = (workload: WorkloadId, least: number) => ({ least, of: { app: 'koa-session', workload } as const, name: 'koa-session + ioredis' });

export const ROWS: readonly Row[] = [
  row('Control', 'the same bare Koa in another process', 'bare again', few, { quick: true }),

  row(token, 'bearer, warm, 1,000 tokens', 'bridge', few, { goal: 0.92, commands: 0.005, quick: true }),
  row(token, 'bearer, 50,000 tokens, Zipf', 'bridge', 'bearer, 50,000 tokens, Zipf', { goal: 0.7 }),
  row(token, 'bearer, first sight, RS256', 'bridge that forgets, RS256', fewRs256, { goal: 0.28, quick: true }),
  row(token, 'bearer, first sight, ES256', 'bridge that forgets, ES256', few, { goal: 0.18, quick: true }),
  row(token, 'floor: a bare Koa that takes the SHA-256 of the token and nothing else', 'bare hash', few),
  row(token, 'koa-jwt, RS256', 'koa-jwt RS256', fewRs256, { quick: true }),
  row(token, 'koa-jwt, ES256', 'koa-jwt ES256', few),
  row(token, 'koa-passport + passport-jwt, RS256', 'passport-jwt', fewRs256),
  row(token, '@fastify/jwt with its cache, RS256', '@fastify/jwt', fewRs256),
  row(token, 'express-oauth2-jwt-bearer, RS256', 'express-oauth2-jwt-bearer', fewRs256),
  row(token, 'HAProxy jwt_verify, answering by itself; RS256, iss, neither exp nor aud', 'HAProxy jwt_verify', fewRs256),
  row(token, 'nginx auth_request to /auth/verify on the same core, answering by itself', 'nginx auth_request', few),

  row(session, 'session, 64 connections', 'bridge', 'session, 64 connections', {
    goal: 0.75,
    times: koaSession('session, 64 connections', 2.2),
    commands: 0.05,
    quick: true,
  }),
  row(session, 'session, 8 connections', 'bridge', 'session, 8 connections', { goal: 0.58, times: koaSession('session, 8 connections', 2) }),
  row(session, 'session, 1 connection', 'bridge', 'session, 1 connection', { goal: 0.47, times: koaSession('session, 1 connection', 1.3) }),
  row(session, 'floor: a bare Koa with one MGET a turn, JSON.parse and nothing else, 64 connections', 'bare MGET', 'session, 64 connections'),
  row(session, 'floor, 8 connections', 'bare MGET', 'session, 8 connections'),
  row(session, 'floor, 1 connection', 'bare MGET', 'session, 1 connection'),
  row(session, 'session beside koa-session, one read for both', 'bridge beside koa-session', 'session, 64 connections'),
  row(session, 'koa-session + ioredis, 64 connections', 'koa-session', 'session, 64 connections', { quick: true }),
  row(session, 'koa-session + ioredis, 8 connections', 'koa-session', 'session, 8 connections'),
  row(session, 'koa-session + ioredis, 1 connection', 'koa-session', 'session, 1 connection'),

  row('Refusals', 'anonymous', 'bridge', 'anonymous', { goal: 0.97, quick: true }),
  row('Refusals', '401 for want of a credential', 'bridge required', 'no credential', { goal: 0.9, quick: true, baseline: bare('anonymous') }),
  row('Refusals', 'ctx.throw(401)', 'throw 401', 'no credential', { baseline: bare('anonymous') }),
  row('Refusals', 'forged tokens, RS256', 'bridge that forgets, RS256', 'forged RS256', {
    baseline: bare(fewRs256),
    times: { least: 2, of: { app: 'koa-jwt RS256', workload: 'forged RS256' }, name: 'koa-jwt' },
    quick: true,
  }),
  row('Refusals', 'forged tokens, ES256', 'bridge', 'forged ES256', {
    baseline: bare(few),
    times: { least: 2, of: { app: 'koa-jwt ES256', workload: 'forged ES256' }, name: 'koa-jwt' },
  }),
  row('Refusals', 'forged tokens, RS256, koa-jwt', 'koa-jwt RS256', 'forged RS256', { baseline: bare(fewRs256), quick: true }),
  row('Refusals', 'forged tokens, ES256, koa-jwt', 'koa-jwt ES256', 'forged ES256', { baseline: bare(few) }),

  row('Forward-auth', '/auth/verify, warm bearer', 'endpoints ES256', 'verify, bearer', {
    goal: 0.85,
    baseline: { app: 'bare 204', workload: 'verify, bearer, 204' },
    quick: true,
  }),
  row('Forward-auth', '/auth/verify, first sight, ES256', 'endpoints that forget', 'verify, bearer', {
    baseline: { app: 'bare 204', workload: 'verify, bearer, 204' },
  }),
  row('Forward-auth', '/auth/verify, session', 'endpoints ES256', 'verify, session', {
    goal: 0.7,
    baseline: { app: 'bare 204', workload: 'verify, session, 204' },
    quick: true,
  }),

  ...(['ES256', 'EdDSA', 'RS256'] as const).flatMap((algorithm): Row[] => [
    row('Exchange', `exchange, ${algorithm}`, `endpoints ${algorithm}`, 'exchange', {
      baseline: { app: `bare exchange ${algorithm}`, workload: 'exchange' },
      ...(algorithm === 'ES256' ? { goal: 0.7, quick: true } : {}),
    }),
    row('Exchange', `refresh, ${algorithm}`, `endpoints ${algorithm}`, 'refresh', {
      baseline: { app: `bare exchange ${algorithm}`, workload: 'exchange' },
    }),
  ]),

  growth(
    '100,000 live tokens against 1,000, Zipf',
    { app: 'bridge', workload: 'bearer, 100,000 tokens, Zipf' },
    { app: 'bridge', workload: 'bearer, 1,000 tokens, Zipf' },
  ),
  growth(
    '10,000 tenants against 10',
    { app: 'bridge', workload: 'bearer, 10,000 tenants' },
    { app: 'bridge', workload: 'bearer, 10,000 tokens of 10 tenants' },
  ),
  growth('bearer, 100,000 revocations against 0', { app: 'bridge many revocations', workload: few }, { app: 'bridge', workload: few }),
  growth(
    'session, 100,000 revocations against 0',
    { app: 'bridge many revocations', workload: 'session, 64 connections' },
    { app: 'bridge', workload: 'session, 64 connections' },
  ),
  growth(
    '1,000,000 sessions against 1,000',
    { app: 'bridge many sessions', workload: 'session, one of 1,000,000' },
    { app: 'bridge', workload: 'session, 64 connections' },
  ),
];

/** The large case as a share of the small one. */
function growth(title: string, large: Measure, small: Measure): Row {
  return { group: 'Growth', title, ...large, baseline: small, goal: 0.9 };
}
