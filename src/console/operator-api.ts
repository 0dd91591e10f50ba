import { METHODS } from 'node:http';
import { PassThrough } from 'node:stream';
import Router from '@koa/router';
import Koa, { type Context, type Middleware } from 'koa';
import { z } from 'zod';
import { bodyOf } from '../adapters/body.js';
import { writeReply } from '../adapters/koa.js';
import type { EndSubjectOptions } from '../endings/person.js';
import type { Answers } from '../endpoints/answer.js';
import { readJsonBody } from '../endpoints/form.js';
import { CrossfadeError, unavailable } from '../errors.js';
import type { ClampSelector } from '../rollout/clamp.js';
import { SAFE_STAGE, STAGE_TABLE, STAGES } from '../stages.js';
import { type Audit, MAX_WHY } from '../telemetry/audit.js';
import type { AuditEntry } from '../telemetry/audit-feed.js';
import { type ClampSource, clampNames, countAffected, releaseClamp, setClamp } from './clamping.js';
import type { FleetAudit } from './fleet-audit.js';
import type { OperatorAccess } from './operator-access.js';
import { type Overview, readOverview, readSeries } from './overview.js';
import type { PageFile } from './page-files.js';

export interface OperatorApiOptions {
  readonly access: OperatorAccess;
  readonly answers: Answers;
  readonly audit: Audit;
  readonly source: ClampSource;
  readonly fleetAudit: FleetAudit;
  /** Files of the console, by their path. */
  readonly page: ReadonlyMap<string, PageFile>;
  readonly nowMs: () => number;
  readonly endSubject: (subject: string, options: EndSubjectOptions) => Promise<number>;
}

const why = z.string().trim().min(1).max(MAX_WHY);
const selector = { on: z.enum(['all', 'client', 'cohort']), name: z.string().optional() };
const schemas = {
  signIn: z.strictObject({ token: z.string().min(1) }),
  end: z.strictObject({ subject: z.string().min(1), why, exceptSid: z.string().optional() }),
  affected: z.object({ ...selector, stage: z.enum(STAGES) }),
  clamp: z.strictObject({ ...selector, stage: z.enum(STAGES), why, forSeconds: z.int().min(1).max(31_536_000).optional() }),
  release: z.union([z.strictObject({ id: z.string(), why }), z.strictObject({ ...selector, why })]),
  span: z.object({ span: z.enum(['minute', 'hour', 'day']).default('hour') }),
};

/** Nothing from elsewhere, nothing inline: what the page shows is what this port has sent. */
const PAGE_HEADERS = {
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
};

const SHARED_MS = 1000;
const MAX_UNREAD_BYTES = 1_000_000;
/** So that a proxy keeps the connection open. */
const HEARTBEAT_MS = 15_000;

/** What operators see and may do over HTTP: the console, whose files hold nothing that is secret, and the API behind it. */
export function createOperatorApi(options: OperatorApiOptions): Middleware {
  const { access, answers, audit, source, fleetAudit, page, nowMs, endSubject } = options;
  const { config } = source;

  /** @throws {CrossfadeError} `invalid_request`, where there is no such client or cohort. */
  function selectorOf({ on, name }: { readonly on: ClampSelector['on']; readonly name?: string | undefined }): ClampSelector {
    if (on === 'all') return { on };
    const { clients, cohorts } = clampNames(config);
    const held = source.control.clamps.all.flatMap(({ selector: one }) => (one.on === on ? [one.name] : []));
    const known = [...(on === 'client' ? clients : cohorts), ...held];
    if (name === undefined || !known.includes(name))
      throw new CrossfadeError('invalid_request', { message: `name: must be one of ${known.join(', ')}` });
    return { on, name };
  }

  let overview: { readonly at: number; readonly found: Promise<Overview> } | undefined;
  /** One for all pages that are open. */
  async function readShared(): Promise<Overview> {
    if (!overview || nowMs() - overview.at > SHARED_MS) overview = { at: nowMs(), found: readOverview(source) };
    return await overview.found;
  }

  async function follow(ctx: Context): Promise<void> {
    const stream = new PassThrough();
    const unfollow = await asked(
      fleetAudit.follow((entry: AuditEntry) => {
        // A page that does not read is cut off; it comes again.
        if (stream.writableLength > MAX_UNREAD_BYTES) stream.destroy();
        else stream.write(`data: ${JSON.stringify(entry)}\n\n`);
      }),
    );
    const heartbeat = setInterval(() => stream.write(': still here\n\n'), HEARTBEAT_MS);
    heartbeat.unref();
    stream.once('close', () => {
      clearInterval(heartbeat);
      unfollow();
    });
    ctx.type = 'text/event-stream';
    ctx.set('X-Accel-Buffering', 'no');
    ctx.body = stream;
  }

  const router = new Router({ prefix: '/api', methods: METHODS });
  router.get('/session', (ctx: Context) => {
    const stages = STAGES.map((name) => ({
      name,
      tone: STAGE_TABLE[name].tone,
      safe: name === SAFE_STAGE,
      back: STAGE_TABLE[name].nudge === 'back',
    }));
    ctx.body = { csrfToken: access.csrfTokenOf(ctx), ...clampNames(config), stages };
  });
  router.get('/status', async (ctx: Context) => {
    ctx.body = await asked(readShared());
  });
  router.get('/series', async (ctx: Context) => {
    ctx.body = await asked(readSeries(source, parse(schemas.span, ctx.query).span));
  });
  router.get('/events', follow);
  router.get('/affected', async (ctx: Context) => {
    const { stage, ...given } = parse(schemas.affected, ctx.query);
    ctx.body = await asked(countAffected(source, selectorOf(given), stage));
  });
  router.post('/clamps', async (ctx: Context) => {
    const { stage, why: reason, forSeconds, ...given } = parse(schemas.clamp, await readBodyOf(ctx));
    const request = { selector: selectorOf(given), stage, why: reason, ...(forSeconds === undefined ? {} : { forMs: forSeconds * 1000 }) };
    ctx.body = await asked(setClamp(source, request));
    overview = undefined;
  });
  router.post('/clamps/release', async (ctx: Context) => {
    const { why: reason, ...given } = parse(schemas.release, await readBodyOf(ctx));
    ctx.body = await asked(releaseClamp(source, 'id' in given ? given : selectorOf(given), reason));
    overview = undefined;
  });
  router.post('/subjects/end', async (ctx: Context) => {
    const { subject, why: reason, exceptSid } = parse(schemas.end, await readBodyOf(ctx));
    ctx.body = { sessions: await endSubject(subject, { why: reason, ...(exceptSid === undefined ? {} : { exceptSid }) }) };
  });
  const inner = new Koa();
  inner.use(router.routes());
  inner.use(router.allowedMethods());
  const [route, refuseMethods] = inner.middleware;
  const nothing = async () => undefined;

  async function answer(ctx: Context): Promise<void> {
    access.checkHost(ctx);
    const file = page.get(ctx.path);
    if (file && !access.isConfigured)
      throw new CrossfadeError('not_found', { message: 'admin.tokenFile is not set: there is no console, and no API behind it' });
    if (file && (ctx.method === 'GET' || ctx.method === 'HEAD')) return sendFile(ctx, file);
    if (ctx.path === '/api/sign-in' && ctx.method === 'POST') {
      access.signIn(ctx, parse(schemas.signIn, await readBodyOf(ctx)).token);
      ctx.status = 204;
      return;
    }
    // The page asks before anybody has signed in: that is nothing to refuse, or to tell of.
    if (ctx.path === '/api/session' && !access.isSignedIn(ctx)) {
      ctx.status = 204;
      return;
    }
    access.check(ctx);
    if (ctx.path === '/api/sign-out' && ctx.method === 'POST') {
      access.signOut(ctx);
      ctx.status = 204;
      return;
    }
    await route?.(ctx, async () => await refuseMethods?.(ctx, nothing));
    if (ctx.status === 405) throw new CrossfadeError('method_not_allowed', { headers: { Allow: ctx.response.get('Allow') } });
    if (ctx.status === 404) throw new CrossfadeError('not_found');
  }

  return async function operatorApi(ctx) {
    ctx.set('Cache-Control', 'no-store');
    try {
      await answer(ctx);
    } catch (error) {
      if (error instanceof CrossfadeError && error.status < 500) audit('operator.refused', { code: error.code });
      writeReply(ctx, answers.fail(error));
    }
  };
}

function sendFile(ctx: Context, { type, etag, body }: PageFile): void {
  ctx.set(PAGE_HEADERS);
  ctx.set({ 'Cache-Control': 'no-cache', ETag: etag });
  ctx.type = type;
  ctx.status = 200;
  if (ctx.fresh) ctx.status = 304;
  else ctx.body = body;
}

async function readBodyOf(ctx: Context): Promise<unknown> {
  return await readJsonBody(ctx.req, bodyOf(ctx.req, ctx.request));
}

/** @throws {CrossfadeError} `invalid_request`, with the place. */
function parse<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new CrossfadeError('invalid_request', { message: `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'does not fit'}` });
}

/** What fails with something of Redis' is that it cannot be known now. */
async function asked<T>(work: Promise<T>): Promise<T> {
  return await work.catch((error: unknown) => {
    throw error instanceof CrossfadeError ? error : unavailable('redis', error);
  });
}
