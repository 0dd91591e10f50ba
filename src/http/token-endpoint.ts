import type { Context } from 'koa';
import { CrossfadeError } from '../errors.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { GrantType } from './exchange.js';
import { readForm } from './form.js';

/** `POST /auth/token`, the OAuth token endpoint: one function per grant type. */
export function createTokenEndpoint(
  grantTypes: ReadonlyMap<string, GrantType>,
  { grantSeconds }: Pick<Metrics, 'grantSeconds'>,
): (ctx: Context) => Promise<void> {
  return async function tokenEndpoint(ctx) {
    const form = await readForm(ctx);
    const name = form.get('grant_type');
    if (name === undefined) throw new CrossfadeError('invalid_request', { message: 'grant_type is missing' });
    const grantType = grantTypes.get(name);
    if (!grantType) throw new CrossfadeError('unsupported_grant_type');
    const stop = grantSeconds.startTimer({ grant: name === 'refresh_token' ? 'refresh' : 'exchange' });
    await grantType(ctx, form).finally(stop);
  };
}
