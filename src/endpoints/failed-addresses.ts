import type { CrossfadeError } from '../errors.js';
import { createLimiter, type LimitsOptions } from '../grants/limits.js';
import type { Peers } from './peer.js';
import type { RequestHead } from './reply.js';

/** What a failed request is answered with: its own error, or `too_many_requests` where its address has failed too often. */
export type CountFailure = (head: RequestHead, error: CrossfadeError) => Promise<CrossfadeError>;

/**
 * What fails is counted by address, and only what fails is refused by address: an office behind one address is not locked out by one of its
 * machines.
 */
export function createCountFailure(peers: Pick<Peers, 'addressOf'>, options: LimitsOptions): CountFailure {
  const limiter = createLimiter(options, 'address', options.config.failuresPerAddressPerMinute);
  return async function countFailure(head, error) {
    return isFailure(error) ? ((await limiter.consume(peers.addressOf(head))) ?? error) : error;
  };
}

/** What a client did wrong. What the stage refuses, and what the bridge cannot answer, is no failure of a client's. */
function isFailure({ status, code, details }: CrossfadeError): boolean {
  return status >= 400 && status < 500 && code !== 'too_many_requests' && details['stage'] === undefined;
}
