import { LRUCache } from 'lru-cache';
import type { Config, RedisTarget, SessionConfig } from '../config/config.js';
import type { LiveFiles } from '../config/live-files.js';
import { createEventStream, type EndEvent, type EventStream, type News } from '../endings/event-stream.js';
import { createLogoutJudge } from '../endings/legacy-logout.js';
import { createLogout, type Logout } from '../endings/logout.js';
import { createPersons, type Persons } from '../endings/person.js';
import { createPlaces } from '../endings/places.js';
import { createRecordWatch, type RecordWatch } from '../endings/record-watch.js';
import { createRememberedEnds } from '../endings/remembered-ends.js';
import { createResume, type ResumeSession } from '../endings/resume.js';
import { createRevocationIndex, type RevocationIndex } from '../endings/revocation.js';
import { createStoreEpochs, type StoreEpochs } from '../endings/store-epoch.js';
import { createVanished } from '../endings/vanished.js';
import type { CookieSecrets } from '../formats/entry-secrets.js';
import { createFormat, reusesIds } from '../formats/formats.js';
import { createRedisRecords } from '../formats/record-store.js';
import { createWhoami, type Whoami } from '../formats/whoami.js';
import { createClaim } from '../redis/claim.js';
import { connectRedis, type RedisConnection } from '../redis/connection.js';
import type { FleetSecrets } from '../redis/fleet-secrets.js';
import { createNodeWatch, type NodeWatch } from '../redis/node-watch.js';
import { ownProbeKey, recordsProbeKey } from '../redis/probe.js';
import { startTracking } from '../redis/tracking.js';
import { type AllCookieSecrets, createCookieSecrets } from '../sessions/cookie-secrets.js';
import { createSessionLedger, type SessionLedger } from '../sessions/ledger.js';
import { createFunctionMapping, createPathMapping, type MappingFunction } from '../sessions/mapping.js';
import { createNobodyKnown, type NobodyKnown } from '../sessions/nobody-known.js';
import { createSessionReader, type SessionReader } from '../sessions/reader.js';
import type { SessionEntry } from '../sessions/record.js';
import { createRestore, type Restore } from '../sessions/restore.js';
import type { Log } from '../telemetry/log.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { Tools } from '../telemetry/tools.js';
import { createFamilies, type Families } from '../tokens/families.js';

export interface LifecycleOptions extends Tools {
  readonly config: Config;
  readonly connections: Connections;
  /** Where secrets are looked up again when they change. */
  readonly files: LiveFiles;
  readonly secrets: FleetSecrets;
  /** Whether what no secret here opens may be of this fleet all the same. */
  readonly isStranger: () => boolean;
  /** Stands in for `sessions[].principal`. */
  readonly principal?: MappingFunction | undefined;
  /** Called where a signed value is to be read again; `wasLost` where Redis came back without what it had. */
  readonly onNews?: (about: News, wasLost?: boolean) => void;
}

/** Sessions and what is made from them: how they are found, ended and brought back, on every instance. */
export interface Lifecycle {
  readonly entries: readonly SessionEntry[];
  readonly cookieSecrets: AllCookieSecrets;
  readonly sessions: SessionReader;
  readonly ledger: SessionLedger;
  readonly logout: Logout;
  readonly persons: Persons;
  readonly families: Families;
  readonly resume: ResumeSession;
  readonly restore: Restore;
  readonly watch: RecordWatch;
  readonly events: EventStream;
  readonly revocations: RevocationIndex;
  /** Undefined for an entry that the config does not have. */
  readonly epochsOf: (entry: string) => StoreEpochs | undefined;
  readonly nobodyKnown: Pick<NobodyKnown, 'problems'>;
  /** The nodes of the bridge's own Redis. */
  readonly nodes: Pick<NodeWatch, 'look'>;
  close(): void;
}

/** One connection for each Redis that the config names; entries that name the same one share it. */
export class Connections {
  readonly #byTarget = new Map<RedisTarget, RedisConnection>();
  readonly own: RedisConnection;
  /** Of its own for the event stream: a blocking read holds it. */
  readonly follower: RedisConnection;
  readonly #config: Pick<Config, 'redis' | 'sessions'>;

  /** `files`: where credentials are looked up again when they change. */
  constructor(config: Pick<Config, 'redis' | 'sessions'>, files: LiveFiles, log: Log, metrics: Metrics) {
    this.#config = config;
    const { commandTimeoutMs, keyPrefix } = config.redis;
    const own = { probe: 'write', probeKey: ownProbeKey(keyPrefix), log, metrics } as const;
    const access = files.follow({ at: 'redis', files: config.redis.files, initial: config.redis.access, read: config.redis.readAccess });
    const onRefusedAccess = () => access.reread();
    this.own = connectRedis(config.redis, { ...own, name: 'bridge', commandTimeoutMs, onRefusedAccess });
    const followerTimeoutMs = commandTimeoutMs + BLOCK_MS;
    this.follower = connectRedis(config.redis, { ...own, name: 'events', commandTimeoutMs: followerTimeoutMs, probeAgain: false, onRefusedAccess });
    // What one of them hears of a failover holds for the other.
    this.own.onLost(() => this.follower.reconnect());
    for (const connection of [this.own, this.follower]) access.onChange((changed) => void connection.setAccess(changed));
    this.#byTarget.set(config.redis, this.own);
    config.sessions.forEach((session, index) => {
      const { name, redis } = session;
      if (!redis) return;
      const its = files.follow({ at: `sessions[${index}].redis`, files: redis.files, initial: redis.access, read: redis.readAccess });
      const probeKey = recordsProbeKey(session.keyPrefix);
      const onRefused = () => its.reread();
      const connection = connectRedis(redis, { name, commandTimeoutMs, probe: 'role', probeKey, onRefusedAccess: onRefused, log, metrics });
      its.onChange((changed) => void connection.setAccess(changed));
      this.#byTarget.set(redis, connection);
    });
  }

  /** Where the records of an entry are. */
  of({ redis }: Pick<SessionConfig, 'redis'>): RedisConnection {
    return this.#byTarget.get(redis ?? this.#config.redis) ?? this.own;
  }

  /** Those that hold records, each once. */
  get ofRecords(): ReadonlySet<RedisConnection> {
    return new Set(this.#config.sessions.filter(({ http }) => !http).map((session) => this.of(session)));
  }

  /** For an operator, a sentence for each server that cannot be used. */
  get problems(): readonly string[] {
    return [...new Set([...this.#byTarget.values(), this.follower].flatMap(({ problems }) => problems))];
  }

  async ready(timeoutMs: number): Promise<void> {
    await Promise.all([...this.#byTarget.values(), this.follower].map((connection) => connection.ready(timeoutMs)));
  }

  close(): void {
    for (const connection of this.#byTarget.values()) connection.close();
    this.follower.close();
  }
}

/** Sessions in the place of ended ones that were asked for their tokens of late, and how long that counts. */
const MAX_ASKED = 10_000;
const ASK_AGAIN_MS = 2000;

/** Of an entry whose cookie is not signed. */
const NO_SECRETS: Pick<CookieSecrets, 'verifying' | 'signing'> = { verifying: [], signing: undefined };

/** A lost write without a failover or a new connection for this long is a surprise. */
const SURPRISING_MS = 3_600_000;

/** How long a read of the event stream waits for news. */
const BLOCK_MS = 1000;

/** How long what has ended matters to tokens, in ms. */
export function keepEventsMs({ tokens: { accessTtlSeconds, clockSkewSeconds }, keys }: Pick<Config, 'tokens' | 'keys'>): number {
  return (accessTtlSeconds + clockSkewSeconds + keys.publishSeconds) * 1000;
}

export function createLifecycle(options: LifecycleOptions): Lifecycle {
  const { config, connections, secrets, isStranger, random, clock, log, audit, metrics } = options;
  const { client, reads } = connections.own;
  const prefix = `${config.redis.keyPrefix}v1:`;
  const personKey = secrets.names.person;
  const { refreshAbsoluteSeconds, clockSkewSeconds, resurrectionSeconds } = config.tokens;
  const keepMs = keepEventsMs(config);
  const keepPersonMs = Math.max(refreshAbsoluteSeconds, ...config.sessions.map(({ absoluteTtlSeconds }) => absoluteTtlSeconds)) * 1000;

  const revocations = createRevocationIndex({ keepMs, keepPersonMs, clock, log, metrics });
  const places = createPlaces();
  /** What has ended elsewhere, and what of it is still to be done here. */
  function apply(event: EndEvent): void {
    const isNews = revocations.apply(event);
    if (isNews && event.type === 'subject.ended') void persons.endKnown(event).catch(() => undefined); // What it finds is refused all the same where it has a time.
    if (event.type === 'session.ended' && event.unfinished) void logout.finish(event.sid, event).catch(() => undefined); // Its cookie will meet the tombstone.
  }
  const ledger = createSessionLedger({ client, reads, prefix, secrets, isStranger, keepSeconds: refreshAbsoluteSeconds, audit, metrics });
  const asked = new Map<string, Whoami>();
  for (const { name, cookie, http } of config.sessions) if (http) asked.set(name, createWhoami({ ...http, cookie, entry: name, log, metrics }));
  const cookieSecrets = createCookieSecrets({
    entries: config.sessions.flatMap(({ name, secrets, keepDroppedSecretSeconds: keepSeconds }) =>
      secrets ? [{ name, keepSeconds, file: options.files.follow({ ...secrets, files: [secrets.file], initial: secrets.current }) }] : [],
    ),
    client,
    prefix,
    secrets,
    nowMs: () => clock.now(),
    log,
    audit,
  });
  const entries = config.sessions.map((session): SessionEntry => {
    const secrets = cookieSecrets.of(session.name);
    const format = createFormat(session, secrets ?? NO_SECRETS, config.redis.keyPrefix);
    const map = options.principal;
    return {
      name: session.name,
      format,
      mapping: map || !session.principal ? createFunctionMapping(map ?? (() => null), session.name) : createPathMapping(session.principal),
      store: asked.get(session.name) ?? createRedisRecords(connections.of(session), format.storage),
      refreshable: !session.http,
      limits: session,
      reusesIds: reusesIds(session.format),
      ...(secrets ? { signerSeen: (signer: string) => secrets.seen(signer) } : {}),
    };
  });
  const vanished = createVanished(audit, metrics);
  const nobodyKnown = createNobodyKnown({ clock, log, metrics });
  const judge = createLogoutJudge(clock);
  const epochs = new Map<RedisConnection, StoreEpochs>();
  for (const connection of connections.ofRecords) epochs.set(connection, createStoreEpochs(connection.client, clock, log));
  const epochsOf = (entry: string): StoreEpochs | undefined => {
    const session = config.sessions.find(({ name }) => name === entry);
    return session && !session.http ? epochs.get(connections.of(session)) : undefined;
  };

  const claim = createClaim(client, `${prefix}rewriting`, random.token(9));
  const events = createEventStream({
    client,
    follower: connections.follower,
    key: `${prefix}events`,
    claim,
    secrets,
    keepMs,
    blockMs: BLOCK_MS,
    apply,
    onNews: options.onNews ?? (() => undefined),
    onLoss() {
      nodes.noteLoss();
      rememberedEnds.writeAll();
    },
    known: () => revocations.known(),
    lasting: {
      load: async () => (await persons.load()).forEach(apply),
      isWhole: async () => revocations.knownPersons().length === 0 || (await persons.areStored()),
      all: () => revocations.knownPersons(),
      store: async (some) => await persons.store(some),
    },
    clock,
    log,
    audit,
    metrics,
  });
  const recentlyAsked = new LRUCache<string, true>({ max: MAX_ASKED, ttl: ASK_AGAIN_MS });
  const sessions = createSessionReader({
    entries,
    ledger,
    heard: revocations,
    resurrectionSeconds,
    unfinished: (place) => void logout.finish(place.sid, place.ended, place).catch(() => undefined), // Met again with the next request.
    read: nobodyKnown.note,
    seen: (session, hasTokens) => {
      if (hasTokens) {
        places.note(session);
        void watch.watch(session);
      } else if (hasTokens === undefined && !recentlyAsked.has(session.sid)) {
        // A new login under the id of one that has ended: asked beside the request, and not at each of them.
        recentlyAsked.set(session.sid, true);
        void ledger.kept(session.sid).then(
          (kept) => kept && watch.watch(session),
          () => undefined,
        );
      }
    },
    clock,
  });
  const logout = createLogout({
    ledger,
    events,
    apply,
    entries,
    readKnown: sessions.readKnown,
    forget: (place) => watch.forget(place),
    placeOf: places.of,
    mayHaveLost: () => nodes.mayHaveLostWithin(SURPRISING_MS),
    resurrectionSeconds,
    clock,
    personKey,
    audit,
    metrics,
  });
  const watch = createRecordWatch({
    stores: [...connections.ofRecords].map((connection) => ({
      track: (listeners) => startTracking({ name: nameOf(connection, config, connections), connection, log, metrics, ...listeners }),
      epochs: epochs.get(connection) ?? createStoreEpochs(connection.client, clock, log),
      entries: entries.filter(({ name }) => epochsOf(name) === epochs.get(connection)),
    })),
    ledger,
    logout,
    judge,
    places,
    vanished,
    heard: revocations,
    resurrectionSeconds,
    fraction: random.fraction,
    clock,
    log,
    metrics,
  });
  const rememberedEnds = createRememberedEnds({
    client,
    prefix,
    ledger,
    persons: () => persons,
    heard: revocations,
    claim,
    log,
    audit,
    metrics,
  });
  const nodes = createNodeWatch({ connection: connections.own, onChange: rememberedEnds.writeAll, clock });
  const persons = createPersons({
    client,
    prefix,
    logout,
    ledger,
    known: places.ofSubject,
    events,
    apply,
    secrets,
    isStranger,
    keepMs: keepPersonMs,
    skewMs: clockSkewSeconds * 1000,
    clock,
    audit,
    metrics,
  });

  return {
    entries,
    cookieSecrets,
    sessions,
    ledger,
    logout,
    persons,
    families: createFamilies({
      client,
      ledger,
      events,
      apply,
      heard: revocations,
      writeAgain: rememberedEnds.writeAgain,
      onLostWrite: rememberedEnds.writeAllSoon,
      async hasRedisChanged() {
        await nodes.look();
        return nodes.hasChangedWithin(SURPRISING_MS);
      },
      config: config.tokens,
      secrets,
      random,
      clock,
      audit,
      metrics,
    }),
    resume: createResume({ sessions, ledger, logout, judge, epochsOf, vanished }),
    restore: createRestore({ entries, ledger, heard: revocations, clock }),
    watch,
    events,
    revocations,
    epochsOf,
    nodes,
    nobodyKnown,
    close() {
      rememberedEnds.close();
      vanished.close();
      watch.close();
      events.close();
      for (const app of asked.values()) app.close();
    },
  };
}

function nameOf(connection: RedisConnection, config: Config, connections: Connections): string {
  return connection === connections.own ? 'bridge' : (config.sessions.find((session) => connections.of(session) === connection)?.name ?? 'records');
}
