import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import type { Context, Middleware } from 'koa';
import { z } from 'zod';
import type { Config } from '../config/config.js';
import { CrossfadeError } from '../errors.js';
import type { EndSubjectOptions } from '../sessions/person.js';
import type { Audit } from '../telemetry/audit.js';
import type { Answers } from './answer.js';
import { readJson } from './form.js';

export interface OperatorApiOptions {
  readonly config: Config['admin'];
  readonly answers: Answers;
  readonly audit: Audit;
  readonly endSubject: (subject: string, options: EndSubjectOptions) => Promise<number>;
}

const endSchema = z.strictObject({ subject: z.string().min(1), why: z.string().min(1).max(200), exceptSid: z.string().optional() });

/** What operators may do over HTTP: with the bearer token of `admin.tokenFile`, by a `Host` that is this port's own. */
export function createOperatorApi({ config, answers, audit, endSubject }: OperatorApiOptions): Middleware {
  const names = new Set(['localhost', config.host, ...config.hosts]);

  /** A page that a name of its own leads here (DNS rebinding) is no operator. */
  function checkHost(ctx: Context): void {
    const name = ctx.hostname.replace(/^\[(.*)\]$/, '$1');
    if (!names.has(name) && isIP(name) === 0)
      throw new CrossfadeError('forbidden_host', { message: 'this Host is not one of admin.host and admin.hosts' });
  }

  function checkToken(ctx: Context): void {
    const given = /^bearer +(\S+)$/i.exec(ctx.get('Authorization'))?.[1];
    if (given === undefined) throw new CrossfadeError('missing_credential');
    if (!config.token || !timingSafeEqual(digest(given), digest(config.token.reveal()))) throw new CrossfadeError('invalid_token');
  }

  async function endPerson(ctx: Context): Promise<void> {
    const parsed = endSchema.safeParse(await readJson(ctx));
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      throw new CrossfadeError('invalid_request', { message: `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'does not fit'}` });
    }
    const { subject, why, exceptSid } = parsed.data;
    ctx.body = { sessions: await endSubject(subject, { why, ...(exceptSid === undefined ? {} : { exceptSid }) }) };
  }

  return async function operatorApi(ctx) {
    try {
      checkHost(ctx);
      checkToken(ctx);
      if (ctx.path !== '/api/subjects/end') throw new CrossfadeError('not_found');
      if (ctx.method !== 'POST') throw new CrossfadeError('method_not_allowed', { headers: { Allow: 'POST' } });
      await endPerson(ctx);
    } catch (error) {
      if (error instanceof CrossfadeError && error.status < 500) audit('operator.refused', { code: error.code });
      answers.fail(ctx, error);
    }
  };
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
