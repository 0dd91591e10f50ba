import type { RedisClient } from '../redis/client.js';
import type { Seals } from '../redis/fleet-keyring.js';
import { loadScript } from '../redis/script.js';
import { type BridgeEvent, type EndEvent, EVENT_CONTEXT, type News } from './event.js';

/** Adds to the stream by which instances tell each other what has ended. All reject with what ioredis rejects with. */
export interface EventPublisher {
  /** By one command; whoever follows has them within moments. Gives the id of the last. */
  publish(...events: readonly EndEvent[]): Promise<string>;
  /** Has every instance read a signed value again. */
  tell(about: News): Promise<void>;
}

export interface EventPublisherOptions {
  readonly client: RedisClient;
  /** Of the stream. */
  readonly key: string;
  readonly secrets: Pick<Seals, 'sign'>;
  /** How long an event matters: longer than any access token lives. */
  readonly keepMs: number;
}

/** Redis keeps them a little longer than anybody asks for them: clocks differ. */
export const AHEAD_MS = 60_000;

const publishEvent = loadScript('publish-event', ['stream']);
const timeOf = loadScript('time');

export function createEventPublisher({ client, key, secrets, keepMs }: EventPublisherOptions): EventPublisher {
  async function add(events: readonly BridgeEvent[]): Promise<string> {
    const signed = events.map((event) => secrets.sign(EVENT_CONTEXT, JSON.stringify(event)));
    return String(await publishEvent(client, [key], [keepMs + AHEAD_MS, ...signed]));
  }

  return {
    publish: async (...events) => await add(events),
    async tell(about) {
      await add([{ type: 'news', about, at: Number(await timeOf(client, [key], [])) }]);
    },
  };
}
