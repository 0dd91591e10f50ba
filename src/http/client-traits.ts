import type { IncomingMessage } from 'node:http';
import type { ClientTraits } from '../rollout/clients.js';
import { header, type Peers } from './peer.js';

/** What a request shows of the app that sent it. `provenId`: the client of a verified token, or one that authenticated. */
export function clientTraits(request: IncomingMessage, peers: Peers, provenId?: string): ClientTraits {
  return {
    provenId,
    origin: header(request, 'origin'),
    host: peers.hostOf(request),
    userAgent: header(request, 'user-agent'),
    claimedId: header(request, 'x-client-id'),
    claimedVersion: header(request, 'x-client-version'),
    header: (name) => header(request, name.toLowerCase()),
  };
}
