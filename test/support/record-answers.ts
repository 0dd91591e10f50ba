import { record } from './transcript.js';

/** Keeps every error and every page of metrics that any test is answered, for the search of law 8. */
const original = globalThis.fetch;

globalThis.fetch = async function recordingFetch(input, init) {
  const response = await original(input, init);
  if (response.status >= 400 || new URL(response.url).pathname === '/metrics') {
    record(`${[...response.headers].join('\n')}\n${await response.clone().text()}`);
  }
  return response;
};
