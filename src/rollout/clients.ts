import type { ClientConfig, Config } from '../config/config.js';
import { createRecent } from '../recent.js';

/** What a request shows of the app that sent it, before anything is verified. */
export interface ClientTraits {
  /** `client_id` of a verified token or an authenticated client. */
  readonly provenId?: string | undefined;
  readonly origin?: string | undefined;
  /** Host that the client addressed, with its port where it has one. */
  readonly host?: string | undefined;
  readonly userAgent?: string | undefined;
  readonly claimedId?: string | undefined;
  readonly claimedVersion?: string | undefined;
  readonly header: (name: string) => string | undefined;
}

export interface ResolvedClient {
  /** A configured id, or `unknown`. */
  readonly id: string;
  readonly config?: ClientConfig;
  readonly version?: string;
  /** Whether this client, at this version, knows how to exchange its session. */
  readonly exchanges: boolean;
}

export interface ClientRegistry {
  byId(id: string): ClientConfig | undefined;
  /** Which client a request belongs to: rollout only, it grants nothing (law 10). */
  resolve(traits: ClientTraits): ResolvedClient;
  /** Name of the cohort that a tenant of a client is in, where the config names one. */
  cohortOf(client: string, tenant: string | undefined): string | undefined;
  /** Whether the tenants of a client are in cohorts of their own. */
  hasCohorts(client: string): boolean;
  /** Origins of all clients. */
  readonly origins: ReadonlySet<string>;
}

/** A version comes from the request and is remembered with the flags' answers. */
const MAX_VERSION_LENGTH = 64;
const MAX_RESOLVED = 500;

export function createClientRegistry(clients: Config['clients'], cohorts: Config['rollout']['cohorts']): ClientRegistry {
  const byId = new Map(clients.map((client) => [client.id, client]));
  const cohortsOf = new Map(cohorts.map(({ client }) => [client, cohorts.filter((other) => other.client === client)]));
  /** The same object for the same client and version. */
  const resolved = createRecent<string, ResolvedClient>({ max: MAX_RESOLVED });
  const matchers = clients.flatMap((client) => (client.match ? [{ client, fits: createMatcher(client.match) }] : []));
  const agentPatterns = new Map(
    clients.flatMap((client) => (client.match?.userAgent ? [[client.id, wildcard(client.match.userAgent)] as const] : [])),
  );

  function find(traits: ClientTraits): ClientConfig | undefined {
    if (traits.provenId !== undefined) return byId.get(traits.provenId);
    const { origin } = traits;
    const byOrigin = origin === undefined ? undefined : clients.find(({ origins }) => origins.includes(origin));
    return byOrigin ?? matchers.find(({ fits }) => fits(traits))?.client ?? byId.get(traits.claimedId ?? '');
  }

  return {
    byId: (id) => byId.get(id),
    origins: new Set(clients.flatMap(({ origins }) => origins)),
    resolve(traits) {
      const config = find(traits);
      if (!config) return UNKNOWN_CLIENT;
      const version = (agentPatterns.get(config.id)?.exec(traits.userAgent ?? '')?.[1] ?? traits.claimedVersion)?.slice(0, MAX_VERSION_LENGTH);
      const key = version === undefined ? config.id : `${config.id}\n${version}`;
      const known = resolved.get(key);
      if (known) return known;
      const exchanges = config.exchanges && (config.minVersion === undefined || isAtLeast(version, config.minVersion));
      const client = { id: config.id, config, exchanges, ...(version === undefined ? {} : { version }) };
      resolved.set(key, client);
      return client;
    },
    hasCohorts: (client) => cohortsOf.has(client),
    cohortOf: (client, tenant) => cohortsOf.get(client)?.find(({ tenants }) => !tenants || (tenant !== undefined && tenants.includes(tenant)))?.name,
  };
}

const UNKNOWN_CLIENT: ResolvedClient = { id: 'unknown', exchanges: false };

function createMatcher(match: NonNullable<ClientConfig['match']>): (traits: ClientTraits) => boolean {
  const agent = match.userAgent === undefined ? undefined : wildcard(match.userAgent);
  const headers = Object.entries(match.header ?? {});
  // A host that a request names comes in lower case (RFC 3986, section 3.2.2).
  const host = match.host?.toLowerCase();
  return function fits(traits) {
    if (host !== undefined && host !== traits.host && host !== traits.host?.replace(/:\d+$/, '')) return false;
    if (agent && !agent.test(traits.userAgent ?? '')) return false;
    return headers.every(([name, value]) => traits.header(name) === value);
  };
}

/** The version that `*` stands for ends at the first white space, so that what follows in a real User-Agent does not matter. */
function wildcard(pattern: string): RegExp {
  const [before = '', after] = pattern.split('*').map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`));
  return after === undefined ? new RegExp(`^${before}$`) : new RegExp(after === '' ? `^${before}(\\S*)` : `^${before}(.*?)${after}$`);
}

/** Compares versions number by number; one that is absent or not made of numbers is below every other. */
function isAtLeast(version: string | undefined, minimum: string): boolean {
  if (version === undefined || !/^\d{1,9}(\.\d{1,9})*/.test(version)) return false;
  const parts = (/^[\d.]+/.exec(version)?.[0] ?? '').split('.').map(Number);
  const wanted = minimum.split('.').map(Number);
  for (let at = 0; at < Math.max(parts.length, wanted.length); at++) {
    const difference = (parts[at] ?? 0) - (wanted[at] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
