import { type RawRequest, type RawResponse, rawRequest as send } from '../../scripts/lib/raw-request.js';
import { record } from './transcript.js';

/** As `fetch` in tests does: errors are kept for the search of law 8. */
export async function rawRequest(url: string, request?: RawRequest): Promise<RawResponse> {
  const response = await send(url, request);
  if (response.status >= 400) record(`${JSON.stringify(response.headers)}\n${response.text}`);
  return response;
}
