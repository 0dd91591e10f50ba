import { CrossfadeError } from '../errors.js';
import type { CookiePairs } from '../formats/cookies.js';
import type { FrameAttempt } from '../grants/attempt.js';
import type { Exchange } from '../grants/exchange.js';
import type { Refresh } from '../grants/refresh.js';
import type { ResolvedClient } from '../rollout/clients.js';
import type { SessionReader } from '../sessions/reader.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { BridgeCookies } from './bridge-cookies.js';
import { assertInTime } from './budget.js';
import type { ClientRequests } from './client-request.js';
import { readCredentials } from './credentials.js';
import { type Form, type ReadBody, readForm } from './form.js';
import type { RefreshCookies } from './refresh-cookies.js';
import type { Reply, RequestHead } from './reply.js';
import { replyTokens } from './token-answer.js';
import { ACCESS_TOKEN_TYPE, readAsked, readSubjectToken, refuseUnknownParameters } from './token-form.js';

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';

export interface TokenEndpointOptions {
  readonly exchange: Exchange;
  readonly refresh: Refresh;
  readonly frameAttempt: FrameAttempt;
  readonly requests: ClientRequests;
  readonly sessions: Pick<SessionReader, 'cookieNames'>;
  readonly refreshCookies: RefreshCookies;
  readonly cookies: Pick<BridgeCookies, 'refreshLine'>;
  readonly metrics: Pick<Metrics, 'grantSeconds'>;
}

/** `POST /auth/token`, the OAuth token endpoint: one function per grant type. */
export function createTokenEndpoint(options: TokenEndpointOptions): (head: RequestHead, readBody: ReadBody) => Promise<Reply> {
  const { frameAttempt, requests, refreshCookies, cookies, metrics } = options;

  /** The cookies that are to be exchanged: the form's, else the request's own where its origin allows. */
  function subjectCookies(head: RequestHead, form: Form, client: ResolvedClient): { cookies: CookiePairs; areOwn: boolean } {
    const subjectToken = readSubjectToken(form, options.sessions.cookieNames);
    requests.checkOrigin(head, client, { readsCookie: !subjectToken, maySetCookie: client.config?.refreshTransport === 'cookie' });
    if (subjectToken) return { cookies: subjectToken, areOwn: false };
    if ((client.config?.origins ?? []).length === 0)
      throw new CrossfadeError('invalid_request', {
        message: 'subject_token is missing, and this client has no origins for which the cookie would be read',
      });
    return { cookies: readCredentials(head).cookies, areOwn: true };
  }

  async function exchange(head: RequestHead, form: Form): Promise<Reply> {
    return await frameAttempt('exchange', async (attempt) => {
      const client = requests.resolve(head, form);
      attempt.client = client;
      refuseUnknownParameters(form);
      const { cookies: subject, areOwn } = subjectCookies(head, form, client);
      const { bearer, cookies: besides } = requests.beside(head, client);
      // What is itself turned into tokens is not looked at beside.
      const beside = { bearer, cookies: areOwn ? [] : besides };
      const command = { client, beside, cookies: subject, ...readAsked(form), assertInTime: () => assertInTime(head) };
      const granted = await options.exchange(command, attempt);
      return { outcome: granted.outcome, ...replyTokens(client, granted, cookies, ACCESS_TOKEN_TYPE) };
    });
  }

  async function refresh(head: RequestHead, form: Form): Promise<Reply> {
    return await frameAttempt('refresh', async (attempt) => {
      const client = requests.resolve(head, form);
      attempt.client = client;
      return await refreshCookies.clearIfRefused(client, async () => {
        const presented = refreshCookies.read(head, form, client, { maySetCookie: false });
        const beside = requests.beside(head, client);
        const command = { client, beside, presented, ...readAsked(form), assertInTime: () => assertInTime(head) };
        const granted = await options.refresh(command, attempt);
        return { outcome: granted.outcome, ...replyTokens(client, granted, cookies) };
      });
    });
  }

  const grants = new Map([
    [TOKEN_EXCHANGE, { label: 'exchange', run: exchange }],
    ['refresh_token', { label: 'refresh', run: refresh }],
  ]);

  return async function tokenEndpoint(head, readBody) {
    const form = await readForm(head, readBody);
    const name = form.get('grant_type');
    if (name === undefined) throw new CrossfadeError('invalid_request', { message: 'grant_type is missing' });
    const grant = grants.get(name);
    if (!grant) throw new CrossfadeError('unsupported_grant_type');
    const stop = metrics.grantSeconds.startTimer({ grant: grant.label });
    return await grant.run(head, form).finally(stop);
  };
}
