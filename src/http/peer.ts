import type { IncomingMessage } from 'node:http';
import { BlockList, isIPv6 } from 'node:net';

/** What a request says of itself, with the words of proxies believed only where the peer is one that is trusted. */
export interface Peers {
  trusts(request: IncomingMessage): boolean;
  /** Host that the client addressed. */
  hostOf(request: IncomingMessage): string | undefined;
  /** Method of the request that a proxy asks about, for forward-auth. */
  methodOf(request: IncomingMessage): string;
}

export function createPeers(trustProxy: readonly string[]): Peers {
  const trusted = new BlockList();
  for (const range of trustProxy) {
    const [address = '', bits = ''] = range.split('/');
    trusted.addSubnet(address, Number(bits), isIPv6(address) ? 'ipv6' : 'ipv4');
  }

  function trusts({ socket: { remoteAddress: address } }: IncomingMessage): boolean {
    return address !== undefined && trusted.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
  }

  return {
    trusts,
    hostOf(request) {
      const forwarded = trusts(request) ? header(request, 'x-forwarded-host')?.split(',')[0]?.trim() : undefined;
      return (forwarded ?? header(request, ':authority') ?? request.headers.host)?.toLowerCase();
    },
    methodOf(request) {
      const original = trusts(request) ? (header(request, 'x-original-method') ?? header(request, 'x-forwarded-method')) : undefined;
      return (original ?? request.method ?? 'GET').toUpperCase();
    },
  };
}

/** One request header, as one text. */
export function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value.join(', ') : value;
}
