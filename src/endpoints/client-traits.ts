import type { ClientTraits } from '../rollout/clients.js';
import type { Peers } from './peer.js';
import { header, type RequestHead } from './reply.js';

/** What a request shows of the app that sent it; of a verified token's client most of it is never asked. `provenId`: that, or one that authenticated. */
export function clientTraits(request: RequestHead, peers: Peers, provenId?: string): ClientTraits {
  return new RequestTraits(request, peers, provenId);
}

class RequestTraits implements ClientTraits {
  readonly provenId: string | undefined;
  readonly #request: RequestHead;
  readonly #peers: Peers;

  constructor(request: RequestHead, peers: Peers, provenId: string | undefined) {
    this.#request = request;
    this.#peers = peers;
    this.provenId = provenId;
  }

  /** A page with `Referrer-Policy: no-referrer` hides it from its own host as well, and the browser says that it is the same. */
  get origin() {
    const origin = header(this.#request, 'origin');
    const isSame = origin === 'null' && header(this.#request, 'sec-fetch-site') === 'same-origin';
    return isSame ? this.#peers.ownOriginOf(this.#request) : origin;
  }

  get host() {
    return this.#peers.hostOf(this.#request);
  }

  get userAgent() {
    return header(this.#request, 'user-agent');
  }

  get claimedId() {
    return header(this.#request, 'x-client-id');
  }

  get claimedVersion() {
    return header(this.#request, 'x-client-version');
  }

  header = (name: string) => header(this.#request, name.toLowerCase());
}
