import type { Api } from './api.js';
import { type Browser, cookieOf, says, textOf } from './browser.js';
import { eventually, type Steps } from './steps.js';

/** Refresh, way back, and a logout that the legacy app does alone, on two instances. Everybody is at `dual`. */
export async function walkThroughLife(
  { ask, exchange, login, withRefreshCookie }: Browser,
  steps: Steps,
  startOther: () => Promise<Api>,
): Promise<void> {
  steps.chapter('The life of a token (dual again): refresh, and the way back');
  const cookie = await login('bob');
  const refresh = { grant_type: 'refresh_token' };
  const exchanged = await exchange(cookie);
  const one = await withRefreshCookie('/auth/token', cookieOf(exchanged), refresh);
  steps.step(
    'POST /auth/token with the refresh cookie',
    `${one.status}, another token, another refresh cookie`,
    one.status === 200 && cookieOf(one) !== cookieOf(exchanged),
  );
  const again = await withRefreshCookie('/auth/token', cookieOf(exchanged), refresh);
  const same = again.status === 200 && cookieOf(again) === cookieOf(one);
  steps.step('the same once more, as if the answer had got lost', `${again.status}, ${same ? 'the same successor' : 'another successor'}`, same);
  const back = await withRefreshCookie('/auth/session', cookieOf(one));
  const returned = back.status === 204 && cookieOf(back) === cookie;
  steps.step('POST /auth/session with the refresh cookie', `${back.status}, ${returned ? 'the session cookie again' : says(back)}`, returned);

  steps.chapter('Two instances; the legacy app logs out alone');
  const other = await startOther();
  try {
    const bearer = textOf(one.body['access_token']);
    const elsewhere = async () => (await fetch(`${other.url}/orders`, { headers: { authorization: `Bearer ${bearer}` } })).status;
    const before = await elsewhere();
    steps.step('GET /orders with the token, on the other instance', String(before), before === 200);
    const left = await ask('/logout', { method: 'POST', cookie });
    const at = performance.now();
    const out = await eventually(async () => ((await elsewhere()) === 401 ? true : undefined));
    const ms = Math.round(performance.now() - at);
    steps.step('POST /logout on the legacy app', `${left.status}; 401 on the other instance after ${out ? `${ms} ms` : 'never'}`, out === true);
    const refused = await withRefreshCookie('/auth/token', cookieOf(one), refresh);
    steps.step('POST /auth/token with the refresh cookie', says(refused), refused.body['error'] === 'invalid_grant');
    const gone = await withRefreshCookie('/auth/session', cookieOf(one));
    steps.step('POST /auth/session with the refresh cookie', says(gone), gone.body['error'] === 'invalid_grant');
  } finally {
    await other.close();
  }
}
