import type { Config } from '../config/config.js';
import type { LiveFiles } from '../config/live-files.js';
import { createStoreEpochs, type StoreEpochs } from '../endings/store-epoch.js';
import type { CookieSecrets } from '../formats/entry-secrets.js';
import { createFormat, reusesIds } from '../formats/formats.js';
import { createRedisRecords } from '../formats/record-store.js';
import { createWhoami, type Whoami } from '../formats/whoami.js';
import type { KnownEnds } from '../login.js';
import type { Belonging } from '../redis/belonging.js';
import type { RedisConnection } from '../redis/connection.js';
import type { Connections } from '../redis/connections.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { type AllCookieSecrets, createCookieSecrets } from '../sessions/cookie-secrets.js';
import { createSessionLedger, type SessionLedger } from '../sessions/ledger.js';
import { createFunctionMapping, createPathMapping, type MappingFunction } from '../sessions/mapping.js';
import { createNobodyKnown, type NobodyKnown } from '../sessions/nobody-known.js';
import { createSessionReader, type SessionReader } from '../sessions/reader.js';
import type { SessionEntry } from '../sessions/record.js';
import { createRestore, type Restore } from '../sessions/restore.js';
import type { Tools } from '../telemetry/tools.js';

export interface SessionPartsOptions extends Tools {
  readonly config: Config;
  readonly connections: Connections;
  /** Where secrets are looked up again when they change. */
  readonly files: LiveFiles;
  readonly secrets: FleetSecrets;
  readonly belonging: Belonging;
  /** Stands in for `sessions[].principal`. */
  readonly principal?: MappingFunction | undefined;
  /** What all of the bridge's keys start with. */
  readonly prefix: string;
  readonly heard: KnownEnds;
}

/** The legacy world: whose a cookie is, what is kept of a session, and how one is brought back. */
export interface SessionParts {
  readonly entries: readonly SessionEntry[];
  readonly cookieSecrets: AllCookieSecrets;
  readonly ledger: SessionLedger;
  readonly sessions: SessionReader;
  readonly restore: Restore;
  readonly nobodyKnown: Pick<NobodyKnown, 'problems'>;
  /** Undefined for an entry that the config does not have, or whose records are not in Redis. */
  readonly epochsOf: (entry: string) => StoreEpochs | undefined;
  /** Each Redis that holds records, with what is asked of its data. */
  readonly stores: ReadonlyMap<RedisConnection, StoreEpochs>;
  close(): void;
}

/** Of an entry whose cookie is not signed. */
const NO_SECRETS: Pick<CookieSecrets, 'verifying' | 'signing'> = { verifying: [], signing: undefined };

export function createSessionParts(options: SessionPartsOptions): SessionParts {
  const { config, connections, files, secrets, belonging, principal, prefix, heard, ...tools } = options;
  const { clock, log, metrics } = tools;
  const { client, reads } = connections.own;
  const { refreshAbsoluteSeconds, resurrectionSeconds } = config.tokens;
  const ledger = createSessionLedger({
    ...tools,
    client,
    reads,
    prefix,
    secrets,
    isStranger: belonging.isStranger,
    keepSeconds: refreshAbsoluteSeconds,
  });
  const asked = new Map<string, Whoami>();
  for (const { name, cookie, http } of config.sessions) if (http) asked.set(name, createWhoami({ ...http, cookie, entry: name, log, metrics }));
  const cookieSecrets = createCookieSecrets({
    ...tools,
    entries: config.sessions.flatMap(({ name, secrets, keepDroppedSecretSeconds: keepSeconds }) =>
      secrets ? [{ name, keepSeconds, file: files.follow({ ...secrets, files: [secrets.file], initial: secrets.current }) }] : [],
    ),
    client,
    prefix,
    secrets,
    isUnheard: belonging.isUnheard,
    nowMs: () => clock.now(),
  });
  const entries = config.sessions.map((session): SessionEntry => {
    const secrets = cookieSecrets.forEntry(session.name);
    const format = createFormat(session, secrets ?? NO_SECRETS, config.redis.keyPrefix);
    const mapped = session.principal;
    return {
      name: session.name,
      format,
      mapping: principal || !mapped ? createFunctionMapping(principal ?? (() => null), session.name) : createPathMapping(mapped),
      store: asked.get(session.name) ?? createRedisRecords(connections.connectionFor(session), format.storage),
      refreshable: !session.http,
      limits: session,
      reusesIds: reusesIds(session.format),
      ...(secrets ? { signerSeen: (signer: string) => secrets.seen(signer) } : {}),
    };
  });
  const stores = new Map([...connections.ofRecords].map((connection) => [connection, createStoreEpochs(connection.client, clock, log)]));
  const nobodyKnown = createNobodyKnown(tools);

  return {
    entries,
    cookieSecrets,
    ledger,
    sessions: createSessionReader({ entries, ledger, heard, resurrectionSeconds, read: nobodyKnown.note, clock }),
    restore: createRestore({ entries, ledger, heard, clock }),
    nobodyKnown,
    epochsOf(entry) {
      const session = config.sessions.find(({ name }) => name === entry);
      return session && !session.http ? stores.get(connections.connectionFor(session)) : undefined;
    },
    stores,
    close() {
      for (const app of asked.values()) app.close();
    },
  };
}
