import type { Config } from '../config/config.js';
import { createEndings } from '../endings/endings.js';
import { createEventPublisher, type EventPublisher } from '../endings/event-publisher.js';
import { createRevocationIndex, type RevocationIndex } from '../endings/revocation.js';
import { createFamilies } from '../tokens/families.js';
import type { Families } from '../tokens/family.js';
import { createEndingParts, type EndingParts, SURPRISING_MS } from './endings.js';
import { createSessionParts, type SessionParts, type SessionPartsOptions } from './sessions.js';

export type LifecycleOptions = Omit<SessionPartsOptions, 'prefix' | 'heard'>;

/** Sessions and what is made from them: how they are found, ended and brought back, on every instance. Nothing runs before `events.follow()`. */
export interface Lifecycle extends SessionParts, EndingParts {
  readonly families: Families;
  readonly publisher: EventPublisher;
  readonly revocations: RevocationIndex;
}

/** How long what has ended matters to tokens, in ms. */
export function keepEventsMs({ tokens: { accessTtlSeconds, clockSkewSeconds }, keys }: Pick<Config, 'tokens' | 'keys'>): number {
  return (accessTtlSeconds + clockSkewSeconds + keys.publishSeconds) * 1000;
}

export function createLifecycle(options: LifecycleOptions): Lifecycle {
  const { config, connections, files, secrets, belonging, principal, ...tools } = options;
  const { client } = connections.own;
  const prefix = `${config.redis.keyPrefix}v1:`;
  const keepMs = keepEventsMs(config);
  const keepPersonMs = Math.max(config.tokens.refreshAbsoluteSeconds, ...config.sessions.map(({ absoluteTtlSeconds }) => absoluteTtlSeconds)) * 1000;
  const revocations = createRevocationIndex({ ...tools, keepMs, keepPersonMs });
  const publisher = createEventPublisher({ client, key: `${prefix}events`, secrets, keepMs });
  const endings = createEndings(publisher, revocations, belonging.isUnheard);
  const shared = { ...tools, config, connections, secrets, belonging, prefix };
  const parts = createSessionParts({ ...shared, files, principal, heard: endings });
  const ending = createEndingParts({ ...shared, parts, endings, publisher, revocations, keepMs, keepPersonMs });
  const { nodes, rememberedEnds } = ending;
  const families = createFamilies({
    ...tools,
    client,
    ledger: parts.ledger,
    endings,
    writeAgain: rememberedEnds.writeAgain,
    onLostWrite: rememberedEnds.writeAllSoon,
    async hasRedisChanged() {
      await nodes.look();
      return nodes.hasChangedWithin(SURPRISING_MS);
    },
    config: config.tokens,
    secrets,
  });
  return {
    ...parts,
    ...ending,
    families,
    publisher,
    revocations,
    close() {
      ending.close();
      parts.close();
    },
  };
}
