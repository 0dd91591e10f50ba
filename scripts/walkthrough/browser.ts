import { cookieHeader } from '../lib/legacy-app.js';

export interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
  readonly text: string;
  readonly headers: Headers;
}

/** Requests as a page of the product sends them. */
export interface Browser {
  ask(path: string, init?: RequestInit & { cookie?: string; bearer?: string }): Promise<Answer>;
  exchange(cookie: string): Promise<Answer>;
  login(name: string): Promise<string>;
  withRefreshCookie(path: string, cookie: string, form?: Record<string, string>): Promise<Answer>;
}

export function openBrowser(origin: string): Browser {
  async function ask(path: string, { cookie, bearer, ...init }: RequestInit & { cookie?: string; bearer?: string } = {}): Promise<Answer> {
    const headers = new Headers(init.headers);
    if (cookie !== undefined) headers.set('cookie', cookie);
    if (bearer !== undefined) headers.set('authorization', `Bearer ${bearer}`);
    const response = await fetch(origin + path, { redirect: 'manual', ...init, headers });
    const text = await response.text();
    const body: unknown = text.startsWith('{') ? JSON.parse(text) : {};
    return { status: response.status, text, headers: response.headers, body: body !== null && typeof body === 'object' ? { ...body } : {} };
  }

  async function exchange(cookie: string): Promise<Answer> {
    const body = new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange', client_id: 'web' });
    return await ask('/auth/token', { method: 'POST', cookie, headers: { origin }, body });
  }

  async function login(name: string): Promise<string> {
    return cookieHeader(await fetch(`${origin}/login`, { method: 'POST', body: new URLSearchParams({ name }), redirect: 'manual' }));
  }

  /** A refresh or a way back, as the browser sends it: its refresh cookie goes along by itself. */
  async function withRefreshCookie(path: string, cookie: string, form: Record<string, string> = {}): Promise<Answer> {
    return await ask(path, { method: 'POST', cookie, headers: { origin }, body: new URLSearchParams({ client_id: 'web', ...form }) });
  }

  return { ask, exchange, login, withRefreshCookie };
}

export function cookieOf({ headers }: Answer): string {
  return headers
    .getSetCookie()
    .map((line) => line.split(';')[0] ?? '')
    .join('; ');
}

export const says = ({ status, body }: Answer) =>
  `${status}${body['error'] ? ` ${body['error']}` : ''}${body['reason'] ? ` (${body['reason']})` : ''}`;
export const textOf = (value: unknown) => (typeof value === 'string' ? value : '');
