import { BlockList, isIP, isIPv6 } from 'node:net';
import { header, type RequestHead } from './reply.js';

/** What a request says of itself, with the words of proxies believed only where the peer is one that is trusted. */
export interface Peers {
  trusts(request: RequestHead): boolean;
  /** Where the request comes from, for counting: an IPv4 address, or the /64 of an IPv6 one. */
  addressOf(request: RequestHead): string;
  /** Host that the client addressed. */
  hostOf(request: RequestHead): string | undefined;
  /** Origin of the pages of the host that the client addressed; undefined where it is neither the issuer's nor one of a client's. */
  ownOriginOf(request: RequestHead): string | undefined;
  /** Method of the request that a proxy asks about, for forward-auth. */
  methodOf(request: RequestHead): string;
  /**
   * Path and query of the request that a proxy asks about. A proxy sets one of the two headers that say so, and may pass on the other as the
   * client sent it: so what speaks against a request counts in either.
   */
  urisOf(request: RequestHead): readonly string[];
}

/** `origins`: where pages are that may ask. */
export function createPeers(trustProxy: readonly string[], origins: readonly string[]): Peers {
  const originsByHost = new Map(origins.flatMap((origin) => (URL.canParse(origin) ? [[new URL(origin).host, origin] as const] : [])));
  const trusted = new BlockList();
  for (const range of trustProxy) {
    const [address = '', bits = ''] = range.split('/');
    trusted.addSubnet(address, Number(bits), isIPv6(address) ? 'ipv6' : 'ipv4');
  }

  function isTrusted(address: string): boolean {
    return trusted.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
  }

  /** By connection: a peer sends many requests over one. */
  const known = new WeakMap<object, boolean>();

  function trusts({ socket }: RequestHead): boolean {
    let trusted = known.get(socket);
    if (trusted === undefined) {
      const { remoteAddress: address } = socket;
      if (address === undefined) return false;
      trusted = isTrusted(address);
      known.set(socket, trusted);
    }
    return trusted;
  }

  /** Each proxy appends whom it was asked by: from the last on, the first that is no proxy of ours. */
  function clientAddress(request: RequestHead): string | undefined {
    const peer = request.socket.remoteAddress;
    if (!trusts(request)) return peer;
    const forwarded = (header(request, 'x-forwarded-for') ?? '').split(',').map((part) => withoutPort(part.trim()));
    return forwarded.reverse().find((address) => isIP(address) === 0 || !isTrusted(address)) || peer;
  }

  function hostOf(request: RequestHead): string | undefined {
    const forwarded = trusts(request) ? header(request, 'x-forwarded-host')?.split(',')[0]?.trim() : undefined;
    return (forwarded ?? header(request, ':authority') ?? request.headers.host)?.toLowerCase();
  }

  return {
    trusts,
    addressOf(request) {
      const address = clientAddress(request);
      if (address === undefined || isIP(address) === 0) return 'unknown';
      return isIPv6(address) ? networkOf(address) : address;
    },
    hostOf,
    ownOriginOf: (request) => originsByHost.get(hostOf(request) ?? ''),
    methodOf(request) {
      const given = trusts(request) ? ['x-original-method', 'x-forwarded-method'].flatMap((name) => header(request, name)?.toUpperCase() ?? []) : [];
      // The same as for paths: only what is a page navigation by both is one.
      return given.find((method) => method !== 'GET' && method !== 'HEAD') ?? given[0] ?? (request.method ?? 'GET').toUpperCase();
    },
    urisOf(request) {
      const uris = originalUris(request);
      return uris.length > 0 && trusts(request) ? uris : NO_URIS;
    },
  };
}

/** Whoever says it: to be believed only where it speaks against the request. */
export function originalUris(request: RequestHead): readonly string[] {
  const original = header(request, 'x-original-uri');
  const forwarded = header(request, 'x-forwarded-uri');
  if (original === undefined && forwarded === undefined) return NO_URIS;
  return [original, forwarded].filter((uri) => uri !== undefined);
}

const NO_URIS: readonly string[] = [];

function withoutPort(address: string): string {
  return /^\[(.*)\](?::\d+)?$/.exec(address)?.[1] ?? address.replace(/^([\d.]+):\d+$/, '$1');
}

/** The first 64 bits: one household or machine has them all. An IPv4 address in IPv6 form is that address. */
function networkOf(address: string): string {
  const [mapped] = /(?<=^::ffff:)[\d.]+$/i.exec(address) ?? [];
  if (mapped !== undefined) return mapped;
  const [head = '', tail] = (address.split('%')[0] ?? '').split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const filled = tail === undefined ? left : [...left, ...Array<string>(Math.max(0, 8 - left.length - right.length)).fill('0'), ...right];
  return `${filled
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`;
}
