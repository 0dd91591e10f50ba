import { decodeJwt } from 'jose';
import { z } from 'zod';
import { cookieHeader } from '../../scripts/lib/legacy-app.js';
import type { Instance } from './instance.js';
import { remember, rememberCookie, rememberToken } from './transcript.js';
import { ORIGIN } from './world.js';

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
export const SESSION_TYPE = 'urn:crossfade:params:oauth:token-type:session';

export interface Tokens {
  readonly access: string;
  readonly refresh: string;
  readonly sid: string;
  readonly family: string;
  readonly scope: string | undefined;
}

const answerSchema = z.object({ access_token: z.string(), refresh_token: z.string(), scope: z.string().optional() });

/** The tokens of an answer that must be one. */
export async function readTokens(response: Response): Promise<Tokens> {
  const text = await response.text();
  if (response.status !== 200) throw new Error(`no tokens: ${response.status} ${text}`);
  const { access_token: access, refresh_token: refresh, scope } = answerSchema.parse(JSON.parse(text));
  rememberToken(access);
  rememberRefresh(refresh);
  const { sid, fid } = decodeJwt(access);
  return { access, refresh, sid: String(sid), family: String(fid), scope };
}

/** Whole, and by the parts that are secret. */
export function rememberRefresh(token: string): void {
  remember(token, ...token.split('.').slice(3));
}

/** The exchange of a native client: the session in the form. */
export async function postExchange(at: Instance, cookie: string, form: Record<string, string> = {}): Promise<Response> {
  return await at.post('/auth/token', {
    grant_type: TOKEN_EXCHANGE,
    client_id: 'android',
    subject_token: cookie,
    subject_token_type: SESSION_TYPE,
    ...form,
  });
}

export async function exchangeNative(at: Instance, cookie: string, form: Record<string, string> = {}): Promise<Tokens> {
  return await readTokens(await postExchange(at, cookie, form));
}

export async function postRefresh(at: Instance, token: string, form: Record<string, string> = {}): Promise<Response> {
  return await at.post('/auth/token', { grant_type: 'refresh_token', client_id: 'android', refresh_token: token, ...form });
}

export async function refreshNative(at: Instance, token: string, form: Record<string, string> = {}): Promise<Tokens> {
  return await readTokens(await postRefresh(at, token, form));
}

export async function postReturn(at: Instance, token: string, form: Record<string, string> = {}): Promise<Response> {
  return await at.post('/auth/session', { client_id: 'android', refresh_token: token, ...form });
}

export function basic(id: string, secret: string): Record<string, string> {
  return { authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}` };
}

/** The `Cookie` header of a browser after this answer. */
export function cookiesOf(response: Response): string {
  const cookie = cookieHeader(response);
  rememberCookie(cookie);
  return cookie;
}

/** The refresh cookie of a browser after this answer, as its `Cookie` header would hold it. */
export function refreshCookie(response: Response): string | undefined {
  const line = response.headers.getSetCookie().find((one) => one.startsWith('__Secure-xfr='));
  const pair = line?.split(';')[0];
  const value = pair?.slice(pair.indexOf('=') + 1);
  if (value) rememberRefresh(value);
  return value ? pair : undefined;
}

/** A POST as a page of the client's own sends it. */
export async function postAsBrowser(at: Instance, path: string, cookie: string, form: Record<string, string> = {}): Promise<Response> {
  return await at.post(path, form, { cookie, headers: { origin: ORIGIN } });
}
