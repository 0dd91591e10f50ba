// The API of this port. A sign-in is a cookie that no script can read; what changes something carries the CSRF token beside it.

/** @type {string | undefined} */
let csrfToken;

export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<any>}
 */
async function ask(path, init) {
  const response = await fetch(path, { ...init, credentials: 'same-origin', cache: 'no-store' }).catch(() => {
    throw new ApiError(0, 'this instance does not answer');
  });
  if (response.status === 204) return undefined;
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const told = body.error_description ?? (body.reason === 'redis' ? 'Redis does not answer this instance' : body.error);
  throw new ApiError(response.status, told ?? `answered ${response.status}`);
}

/** @param {string} path @param {Record<string, unknown>} body */
async function post(path, body) {
  return await ask(path, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'content-type': 'application/json', ...(csrfToken ? { 'x-csrf-token': csrfToken } : {}) },
  });
}

/** @param {string} token */
export const signIn = (token) => post('/api/sign-in', { token });
export const signOut = () => post('/api/sign-out', {});

/**
 * What can be named in a clamp; undefined: nobody is signed in.
 * @returns {Promise<{ clients: string[], cohorts: string[], stages: import('./stages.js').StageFacts[] } | undefined>}
 */
export async function openSession() {
  const session = await ask('/api/session');
  csrfToken = session?.csrfToken;
  return session;
}

/** @returns {Promise<import('../overview.js').Overview>} */
export const readStatus = () => ask('/api/status');

/** @param {string} span @returns {Promise<import('../overview.js').Series>} */
export const readSeries = (span) => ask(`/api/series?span=${span}`);

/** @typedef {{ on: string, name?: string }} Selector */

/** @param {Selector} selector @param {string} stage @returns {Promise<{ subjects: number, requestsPerMinute: number }>} */
export const readAffected = (selector, stage) => ask(`/api/affected?${new URLSearchParams({ ...selector, stage })}`);

/** @param {Selector} selector @param {{ stage: string, why: string, forSeconds?: number }} clamp */
export const setClamp = (selector, clamp) => post('/api/clamps', { ...selector, ...clamp });

/** @param {Selector | { id: string }} which @param {string} why */
export const releaseClamp = (which, why) => post('/api/clamps/release', { ...which, why });
