import { LRUCache } from 'lru-cache';
import type { Config } from '../config/config.js';
import type { Endings } from '../endings/endings.js';
import type { EventPublisher } from '../endings/event-publisher.js';
import { createEventStream, type EventStream } from '../endings/event-stream.js';
import { createLogout, type Logout } from '../endings/logout.js';
import { createPersons, type Persons } from '../endings/person.js';
import { createPlaces } from '../endings/places.js';
import { createLogoutJudge } from '../endings/record-fate.js';
import { createRecordWatch, type RecordWatch } from '../endings/record-watch.js';
import { createRememberedEnds, type RememberedEnds } from '../endings/remembered-ends.js';
import { createResume, type ResumeSession } from '../endings/resume.js';
import type { RevocationIndex } from '../endings/revocation.js';
import { createVanished } from '../endings/vanished-count.js';
import type { Belonging } from '../redis/belonging.js';
import { type Claim, createClaim } from '../redis/claim.js';
import { BLOCK_MS, type Connections } from '../redis/connections.js';
import type { FleetSecrets } from '../redis/fleet-keyring.js';
import { createNodeWatch, type NodeWatch } from '../redis/node-watch.js';
import { startTracking } from '../redis/tracking.js';
import type { Tools } from '../telemetry/tools.js';
import type { SessionParts } from './sessions.js';

export interface EndingPartsOptions extends Tools {
  readonly config: Config;
  readonly connections: Connections;
  readonly secrets: FleetSecrets;
  readonly belonging: Belonging;
  readonly prefix: string;
  readonly parts: SessionParts;
  readonly endings: Endings;
  readonly publisher: EventPublisher;
  readonly revocations: RevocationIndex;
  /** How long what has ended matters to tokens, and to logins that are carried over, in ms. */
  readonly keepMs: number;
  readonly keepPersonMs: number;
}

/** How sessions, people and what was made from them end, on every instance. */
export interface EndingParts {
  readonly logout: Logout;
  readonly persons: Persons;
  readonly resume: ResumeSession;
  readonly watch: RecordWatch;
  readonly events: EventStream;
  readonly rememberedEnds: RememberedEnds;
  /** The nodes of the bridge's own Redis. */
  readonly nodes: NodeWatch;
  close(): void;
}

/** Sessions in the place of ended ones that were asked for their tokens of late, and how long that counts. */
const MAX_ASKED = 10_000;
const ASK_AGAIN_MS = 2000;

/** A lost write without a failover or a new connection for this long is a surprise. */
export const SURPRISING_MS = 3_600_000;

export function createEndingParts(options: EndingPartsOptions): EndingParts {
  const { config, connections, secrets, belonging, prefix, parts, endings, publisher, revocations, keepMs, keepPersonMs, ...tools } = options;
  const { clock, log, metrics, random } = tools;
  const { entries, sessions, ledger, epochsOf, stores } = parts;
  const { client } = connections.own;
  const { clockSkewSeconds, resurrectionSeconds } = config.tokens;
  const places = createPlaces();
  const nodes = createNodeWatch({ connection: connections.own, clock });
  const vanished = createVanished(tools.audit, metrics);
  const judge = createLogoutJudge(clock);
  const logout = createLogout({
    ...tools,
    ledger,
    endings,
    entries,
    readKnown: sessions.readKnown,
    placeOf: places.find,
    mayHaveLost: () => nodes.mayHaveLostWithin(SURPRISING_MS),
    resurrectionSeconds,
    personKey: secrets.names.person,
  });
  const watch = createRecordWatch({
    ...tools,
    stores: [...stores].map(([connection, epochs]) => ({
      track: (listeners) => startTracking({ name: connections.nameOf(connection), connection, log, metrics, ...listeners }),
      epochs,
      entries: entries.filter(({ name }) => epochsOf(name) === epochs),
    })),
    ledger,
    logout,
    judge,
    places,
    vanished,
    heard: endings,
    resurrectionSeconds,
    fraction: random.fraction,
  });
  const persons = createPersons({
    ...tools,
    client,
    prefix,
    logout,
    ledger,
    known: places.ofSubject,
    endings,
    secrets,
    isStranger: belonging.isStranger,
    keepMs: keepPersonMs,
    skewMs: clockSkewSeconds * 1000,
  });
  const rewriting = createClaim(client, `${prefix}rewriting`, random.token(9));
  // Nobody would open it.
  const claim: Claim = { ...rewriting, take: async (what) => !belonging.isUnheard() && (await rewriting.take(what)) };
  const rememberedEnds = createRememberedEnds({ ...tools, client, prefix, ledger, persons, heard: revocations, claim });
  const events = createEventStream({
    ...tools,
    client,
    follower: connections.follower,
    key: `${prefix}events`,
    publisher,
    claim,
    secrets,
    belonging,
    keepMs,
    blockMs: BLOCK_MS,
    hear: endings.hear,
    known: revocations.known,
    lasting: {
      async load() {
        const { ends, isWhole } = await persons.load();
        ends.forEach(endings.hear);
        return isWhole;
      },
      isWhole: async () => revocations.knownPersons().length === 0 || (await persons.areStored()),
      all: revocations.knownPersons,
      store: persons.store,
    },
  });

  logout.onDelete(watch.forget);
  nodes.onChange(rememberedEnds.writeAll);
  events.onLoss(() => {
    nodes.noteLoss();
    rememberedEnds.writeAll();
  });
  endings.onHeard((event, isNews) => {
    if (isNews && event.type === 'subject.ended') void persons.endKnown(event).catch(() => undefined); // What it finds is refused all the same where it has a time.
    if (event.type === 'session.ended' && event.unfinished) void logout.finish(event.sid, event).catch(() => undefined); // Its cookie will meet the tombstone.
  });
  sessions.onUnfinished((place) => void logout.finish(place.sid, place.ended, place).catch(() => undefined)); // Met again with the next request.
  const recentlyAsked = new LRUCache<string, true>({ max: MAX_ASKED, ttl: ASK_AGAIN_MS });
  sessions.onSeen((session, hasTokens) => {
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
  });

  return {
    logout,
    persons,
    resume: createResume({ sessions, ledger, logout, judge, epochsOf, vanished }),
    watch,
    events,
    rememberedEnds,
    nodes,
    close() {
      rememberedEnds.close();
      vanished.close();
      watch.close();
      events.close();
    },
  };
}
