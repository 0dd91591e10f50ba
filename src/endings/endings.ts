import { unavailable } from '../errors.js';
import type { KnownEnds } from '../login.js';
import { asking } from '../redis/replies.js';
import type { EndEvent } from './event.js';
import type { EventPublisher } from './event-publisher.js';
import type { RevocableToken, RevocationIndex } from './revocation.js';

/** The one way by which something ends: the stream is told, then this instance. And what this instance knows to have ended. */
export interface Endings extends KnownEnds {
  /** Before anything is done for an end that nobody would hear of. @throws {CrossfadeError} `temporarily_unavailable`. */
  assertHeard(): void;
  /**
   * Tells every instance. Nothing is taken for told before Redis has it: whoever tries again after a failure must be heard.
   * @throws {CrossfadeError} `temporarily_unavailable`.
   */
  announce(event: EndEvent): Promise<void>;
  /** Takes note of what another instance has told. */
  hear(event: EndEvent): void;
  /** Calls back with each event that this instance hears of, its own among them. `isNews`: it was not known. */
  onHeard(listener: (event: EndEvent, isNews: boolean) => void): void;
  /** What of a token has ended; undefined: nothing. */
  whatEnded(token: RevocableToken): 'session' | 'family' | 'person' | undefined;
}

/** `isUnheard`: whether nobody would open what this instance publishes. */
export function createEndings(publisher: Pick<EventPublisher, 'publish'>, revocations: RevocationIndex, isUnheard: () => boolean): Endings {
  const listeners: ((event: EndEvent, isNews: boolean) => void)[] = [];

  function hear(event: EndEvent): void {
    const isNews = revocations.apply(event);
    for (const listener of listeners) listener(event, isNews);
  }

  function assertHeard(): void {
    if (isUnheard()) throw unavailable('secret');
  }

  return {
    assertHeard,
    async announce(event) {
      assertHeard();
      await asking(publisher.publish(event));
      hear(event);
    },
    hear,
    onHeard: (listener) => void listeners.push(listener),
    endedLogin: revocations.endedLogin,
    endedPerson: revocations.endedPerson,
    hasFamilyEnded: revocations.hasFamilyEnded,
    whatEnded: revocations.whatEnded,
  };
}
